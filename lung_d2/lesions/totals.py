"""What all lesions of a category take together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lung_d2.categories import CATEGORIES
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LobeField
from lung_d2.lesions.territories import LungLabels, Occupancy, Patch, build_surroundings

ANY = "any"
"""Under this name stand the lesions of all categories."""


@dataclass(frozen=True)
class Total(Occupancy):
    """What lesions take together: of a voxel that several share, once.

    Attributes:
        lesion_count: Number of lesions.
    """

    lesion_count: int


def measure_totals(
    lesions: Sequence[Lesion], volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> dict[str, Total]:
    """Measure what the lesions of each category take together.

    Args:
        lesions: Those of the volume; may be none.
        volume: The volume on which they were found.
        lungs: Where the lungs are.
        lobes: Where the lobes are.

    Returns:
        By name of the category, all of :data:`lung_d2.categories.CATEGORIES`; and under ``any`` what they take
        together, where bronchiectasis inside ground glass counts once.

    Raises:
        GeometryError: Lungs or lobes are not on the grid of the volume.
    """
    around = build_surroundings(volume, lungs, lobes)
    groups = {category.name: [lesion for lesion in lesions if lesion.category == category] for category in CATEGORIES}
    totals = {}
    for name, group in {**groups, ANY: list(lesions)}.items():
        taken = around.occupancy(unite_lesions(group, volume))
        totals[name] = Total(**vars(taken), lesion_count=len(group))
    return totals


def unite_lesions(lesions: Sequence[Lesion], volume: CTVolume) -> Iterator[Patch]:
    """Yield the union of lesions slice by slice, for :meth:`Surroundings.occupancy`."""
    rows, columns = volume.hu.shape[1:]
    for index in sorted({index for lesion in lesions for index in lesion.slice_indices}):
        union = np.zeros((rows, columns), bool)
        for lesion in lesions:
            first = lesion.offset_zyx[0]
            if first <= index < first + len(lesion.mask):
                union[lesion.box[1:]] |= lesion.mask[index - first]
        yield index, (slice(0, rows), slice(0, columns)), union
