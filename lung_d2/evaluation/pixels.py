"""Pixels of each slice that are lesion, that are found, and that are both.

The detections of a category with at least the score threshold count together, and so do its lesions; undecided pixels
of the category count in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.overlaps import Floats
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

Rle = dict[str, Any]


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Pixels by slice and category, each int64 ``(slices, categories)``.

    Attributes:
        lesion: Pixels of lesions.
        found: Pixels of detections.
        both: Pixels of both.
    """

    lesion: Ints
    found: Ints
    both: Ints

    def dice(self) -> Floats:
        """Return the Dice coefficient of each slice, its categories together, NaN where there is nothing to compare."""
        return dice_of(self.lesion.sum(axis=1), self.found.sum(axis=1), self.both.sum(axis=1))


def dice_of(lesion: Ints | Floats, found: Ints | Floats, both: Ints | Floats) -> Floats:
    """Return 2 both / (lesion + found) of arrays of one shape, NaN where both are empty (Dice, Ecology 26, 1945)."""
    together = np.asarray(lesion + found, np.float64)
    return np.divide(2.0 * both, together, out=np.full(together.shape, np.nan), where=together > 0)


def count_pixels(truth: Truth, detections: Detections, score_threshold: float) -> PixelCounts:
    """Count the pixels of every slice and category."""
    lesion, found, both = (np.zeros((len(truth.slices), len(CATEGORIES)), np.int64) for _ in range(3))
    for place in {*truth.lesions, *detections.by_place}:
        indices = detections.by_place.get(place, ())
        seen = _unite([detections.masks[index] for index in indices if detections.scores[index] >= score_threshold])
        there = _unite([region.mask for region in truth.lesions.get(place, ())])
        unknown = _unite([region.mask for region in truth.undecided.get(place, ())])
        lesion[place], found[place] = _count([there], unknown), _count([seen], unknown)
        both[place] = _count([there, seen], unknown)
    return PixelCounts(lesion, found, both)


def _unite(masks: Sequence[Rle]) -> Rle | None:
    return coco_mask.merge(list(masks)) if masks else None


def _count(masks: Sequence[Rle | None], unknown: Rle | None) -> int:
    """Count the pixels that are in all the masks, and not in what is unknown; a mask that is None is empty."""
    if None in masks:
        return 0
    shared = int(coco_mask.area(coco_mask.merge(list(masks), intersect=True)))
    if unknown is None:
        return shared
    return shared - int(coco_mask.area(coco_mask.merge([*masks, unknown], intersect=True)))
