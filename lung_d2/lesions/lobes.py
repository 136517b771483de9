"""Lungs and lobes, and how much of them the lesions occupy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError, InputError
from lung_d2.lesions.lesion import Floats, Mask, voxel_volumes_ml

LOBES = ("left upper", "left lower", "right upper", "right middle", "right lower")

LUNGMASK_LOBES: Mapping[int, str] = MappingProxyType(dict(enumerate(LOBES, start=1)))
"""Values of lungmask's LTRCLobes and LTRCLobes_R231 (github.com/JoHof/lungmask)."""

TOTALSEGMENTATOR_LOBES: Mapping[int, str] = MappingProxyType(dict(enumerate(LOBES, start=10)))
"""Values of TotalSegmentator's task ``total``, version 2, in one file (``--ml``): ``lung_upper_lobe_left`` is 10."""
Patch = tuple[int, tuple[slice, slice], Mask]
"""Slice, rows and columns of the volume, and the mask in them, bool ``[y, x]``."""

SIDES = ("right", "left")
"""In the order of the lungs' labels, from 1."""
SIDE_SHARE = 0.1
"""A lesion lies on both sides if the smaller part has at least this share of it."""


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
    """Select the lobes of a label volume; other organs in it become background.

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
            found="no voxel with the value of a lobe",
            expected=", ".join(f"{value} {name}" for value, name in sorted(values.items())),
            remedy="say which values are which lobes",
        )
    return LobeField(lobes)


class LungLabels(Protocol):
    """The part of a :class:`lung_d2.lungs.field.LungField` that is read here."""

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Lungs, uint8 ``[Z, Y, X]``: 1 right, 2 left, 0 outside."""


@dataclass(frozen=True)
class LobeShare:
    """What lesions occupy of a lobe.

    Attributes:
        lobe: Of :data:`lung_d2.lesions.lobes.LOBES`.
        volume_ml: Volume inside the lobe.
        share_percent: That over the volume of the lobe; None if the volume has no such lobe.
    """

    lobe: str
    volume_ml: float
    share_percent: float | None


@dataclass(frozen=True)
class Occupancy:
    """What lesions occupy of a volume. What needs lungs or lobes is None, or empty, without them.

    Attributes:
        voxel_count: Number of voxels.
        volume_ml: Their volume; a slice is as thick as half the gaps to its neighbours
            (:func:`lung_d2.lesions.lesion.slice_bounds_mm`).
        right_ml: Volume inside the right lung.
        left_ml: Volume inside the left lung.
        lung_share_percent: Volume inside the lungs over the volume of both lungs; also None if these are empty.
        lobes: All five, in their order.
    """

    voxel_count: int
    volume_ml: float
    right_ml: float | None
    left_ml: float | None
    lung_share_percent: float | None
    lobes: tuple[LobeShare, ...]

    @property
    def side(self) -> str | None:
        """``right``, ``left``, or ``both`` if the smaller side has a tenth or more; None outside the lungs."""
        right, left = self.right_ml or 0.0, self.left_ml or 0.0
        if not right + left:
            return None
        if min(right, left) >= SIDE_SHARE * (right + left):
            return "both"
        return SIDES[0] if right > left else SIDES[1]


@dataclass(frozen=True, eq=False)
class Territories:
    """Labelled parts of a volume.

    Attributes:
        labels: uint8 ``[Z, Y, X]``; 0 outside.
        volumes_ml: float64, of each label from 0 on.
    """

    labels: npt.NDArray[np.uint8] = field(repr=False)
    volumes_ml: Floats


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The volume with its lungs and lobes, in which lesions are measured.

    Attributes:
        volume: The CT.
        voxel_ml: Volume of a voxel on each slice, float64 ``[Z]``.
        lungs: 1 right, 2 left.
        lobes: 1 to 5.
    """

    volume: CTVolume
    voxel_ml: Floats = field(repr=False)
    lungs: Territories | None
    lobes: Territories | None

    def occupancy(self, patches: Iterable[Patch]) -> Occupancy:
        """Measure what these patches occupy; no voxel may come twice."""
        count = 0
        volume_ml = 0.0
        lungs_ml = np.zeros(len(SIDES) + 1)
        lobes_ml = np.zeros(len(LOBES) + 1)
        for index, window, mask in patches:
            pixels = int(np.count_nonzero(mask))
            count += pixels
            volume_ml += pixels * float(self.voxel_ml[index])
            for part, taken_ml in ((self.lungs, lungs_ml), (self.lobes, lobes_ml)):
                if part is not None:
                    labels = np.bincount(part.labels[index][window][mask], minlength=len(taken_ml))
                    taken_ml += labels[: len(taken_ml)] * self.voxel_ml[index]
        return Occupancy(
            voxel_count=count,
            volume_ml=volume_ml,
            right_ml=float(lungs_ml[1]) if self.lungs else None,
            left_ml=float(lungs_ml[2]) if self.lungs else None,
            lung_share_percent=_percent(lungs_ml[1:].sum(), self.lungs.volumes_ml[1:].sum()) if self.lungs else None,
            lobes=tuple(
                LobeShare(name, float(taken), _percent(taken, whole))
                for name, taken, whole in zip(LOBES, lobes_ml[1:], self.lobes.volumes_ml[1:], strict=True)
            )
            if self.lobes
            else (),
        )


def _percent(part_ml: float, whole_ml: float) -> float | None:
    return 100.0 * float(part_ml) / float(whole_ml) if whole_ml else None


def build_surroundings(
    volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> Surroundings:
    """Measure the lungs and lobes of a volume once for all its lesions.

    Args:
        volume: The CT.
        lungs: Where the lungs are.
        lobes: Where the lobes are.

    Raises:
        GeometryError: Their labels are not on the grid of the volume.
    """
    voxel_ml = voxel_volumes_ml(volume)

    def territories(name: str, labels: npt.NDArray[np.uint8], highest: int) -> Territories:
        if labels.shape != volume.hu.shape:
            shapes = {"found": f"shape {labels.shape}", "expected": f"{volume.hu.shape}, that of the CT"}
            raise GeometryError(name, **shapes, remedy="bring them to the grid of the CT")
        counts = [[np.count_nonzero(plane == label) for label in range(highest + 1)] for plane in labels]
        return Territories(labels, voxel_ml @ np.array(counts, float))

    return Surroundings(
        volume=volume,
        voxel_ml=voxel_ml,
        lungs=None if lungs is None else territories("lung labels", lungs.labels, len(SIDES)),
        lobes=None if lobes is None else territories("lobe labels", lobes.labels, len(LOBES)),
    )
