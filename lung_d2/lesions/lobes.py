"""The five lobes of the lungs, from label volumes of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.errors import InputError

LOBES = ("left upper", "left lower", "right upper", "right middle", "right lower")

LUNGMASK_LOBES: Mapping[int, str] = MappingProxyType(dict(enumerate(LOBES, start=1)))
"""Values of lungmask's LTRCLobes and LTRCLobes_R231 (github.com/JoHof/lungmask)."""

TOTALSEGMENTATOR_LOBES: Mapping[int, str] = MappingProxyType(dict(enumerate(LOBES, start=10)))
"""Values of TotalSegmentator's task ``total``, version 2, in one file (``--ml``): ``lung_upper_lobe_left`` is 10."""


@dataclass(frozen=True, eq=False)
class LobeField:
    """Where the lobes are.

    Attributes:
        labels: uint8 ``[Z, Y, X]`` on the grid of the CT; 0 outside, 1 to 5 as in :data:`LOBES`.
    """

    labels: npt.NDArray[np.uint8] = field(repr=False)

    def lung_labels(self) -> npt.NDArray[np.uint8]:
        """Return the lungs that the lobes make up, uint8 ``[Z, Y, X]``: 1 right, 2 left, 0 outside."""
        side = [0, *(1 if name.startswith("right") else 2 for name in LOBES)]
        return np.array(side, np.uint8)[self.labels]


def build_lobe_field(
    labels: npt.NDArray[np.unsignedinteger[Any]], values: Mapping[int, str] = LUNGMASK_LOBES
) -> LobeField:
    """Take the lobes out of a label volume; other organs in it become background.

    Args:
        labels: ``[Z, Y, X]`` on the grid of the CT, see :func:`lung_d2.ct.labels_on_grid`.
        values: Name, of :data:`LOBES`, by value.

    Raises:
        InputError: No value of the volume is a lobe, or a name is unknown.
    """
    unknown = sorted(set(values.values()) - set(LOBES))
    if unknown:
        raise InputError(
            f"lobe {unknown[0]!r}", found="unknown", expected="one of " + ", ".join(LOBES), remedy="rename it"
        )
    table = np.zeros(max(int(labels.max(initial=0)), *values) + 1, np.uint8)
    for value, name in values.items():
        table[value] = LOBES.index(name) + 1
    lobes = table[labels]
    if not lobes.any():
        raise InputError(
            "lobe labels",
            found="none of the values of lobes",
            expected=", ".join(f"{value} {name}" for value, name in sorted(values.items())),
            remedy="say which values are which lobes",
        )
    return LobeField(lobes)
