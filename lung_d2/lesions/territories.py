"""Lungs and lobes, and how much of them lesions take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError
from lung_d2.lesions.lesion import Mask
from lung_d2.lesions.lobes import LOBES, LobeField
from lung_d2.lesions.slabs import voxel_volumes_ml

Floats = npt.NDArray[np.float64]
Patch = tuple[int, tuple[slice, slice], Mask]
"""Slice, rows and columns of the volume, and the mask in them, bool ``[y, x]``."""

SIDES = ("right", "left")
"""In the order of the lungs' labels, from 1."""
SIDE_SHARE = 0.1


class LungLabels(Protocol):
    """What is read of a :class:`lung_d2.lungs.field.LungField`."""

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Lungs, uint8 ``[Z, Y, X]``: 1 right, 2 left, 0 outside."""


@dataclass(frozen=True)
class LobeShare:
    """What lesions take of a lobe.

    Attributes:
        lobe: Of :data:`lung_d2.lesions.lobes.LOBES`.
        volume_ml: Volume inside the lobe.
        share_percent: That over the volume of the lobe; None where there is no such lobe.
    """

    lobe: str
    volume_ml: float
    share_percent: float | None


@dataclass(frozen=True)
class Occupancy:
    """What lesions take of a volume. What needs lungs or lobes is None, or empty, without them.

    Attributes:
        voxel_count: Number of voxels.
        volume_ml: Their volume; a slice is as thick as half the gaps to its neighbours
            (:func:`lung_d2.lesions.slabs.slice_bounds_mm`).
        right_ml: Volume inside the right lung.
        left_ml: Volume inside the left lung.
        lung_share_percent: Volume inside the lungs over the volume of both lungs; None too where these are empty.
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
        """``right``, ``left``, or ``both`` where the lesser side holds a tenth or more; None outside the lungs."""
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
    """What the lesions of a volume are measured in.

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
        """Measure what these patches take; no voxel may come twice."""
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
        known = self.lungs is not None
        return Occupancy(
            voxel_count=count,
            volume_ml=volume_ml,
            right_ml=float(lungs_ml[1]) if known else None,
            left_ml=float(lungs_ml[2]) if known else None,
            lung_share_percent=_percent(lungs_ml[1:].sum(), self.lungs.volumes_ml[1:].sum()) if self.lungs else None,
            lobes=_lobe_shares(lobes_ml, self.lobes.volumes_ml) if self.lobes else (),
        )


def _percent(part_ml: float, whole_ml: float) -> float | None:
    return 100.0 * float(part_ml) / float(whole_ml) if whole_ml else None


def _lobe_shares(taken_ml: Floats, volumes_ml: Floats) -> tuple[LobeShare, ...]:
    return tuple(
        LobeShare(name, float(taken_ml[label]), _percent(taken_ml[label], volumes_ml[label]))
        for label, name in enumerate(LOBES, start=1)
    )


def build_surroundings(
    volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> Surroundings:
    """Measure the lungs and lobes of a volume, once for all its lesions.

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
