"""Which lesions each detection hits, by the overlap of masks: the rule of FROC and of the figures of slices.

A detection hits every lesion of its category and slice with which the IoU of its mask is at least :data:`HIT_IOU`. One
that hits none, but of which at least :data:`EXCUSED_SHARE` lies in undecided regions of its category, is excused: it
counts neither for nor against. The IoU is that of nnDetection (Baumgartner et al. 2021); the share is that beyond which
training does not take undecided tissue for background either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Region, Truth

HIT_IOU = 0.1
EXCUSED_SHARE = 0.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Overlap:
    """The detections of one category on one slice against what is there.

    Attributes:
        slice_number: Number of the slice.
        category: Number of the category.
        indices: int64 ``(N,)``, which detections these are, by falling score.
        scores: float64 ``(N,)``.
        iou: float64 ``(N, L)``, of their masks and those of the lesions.
        undecided_share: float64 ``(N,)``, the share of each that is undecided.
    """

    slice_number: int
    category: int
    indices: Ints
    scores: Floats
    iou: Floats
    undecided_share: Floats

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Which detection hits which lesion, bool ``(N, L)``."""
        return self.iou >= HIT_IOU

    @property
    def false(self) -> npt.NDArray[np.bool_]:
        """Which detections are false positives, bool ``(N,)``."""
        return ~self.hits.any(axis=1) & ~self.excused

    @property
    def excused(self) -> npt.NDArray[np.bool_]:
        """Which detections are excused, bool ``(N,)``."""
        return ~self.hits.any(axis=1) & (self.undecided_share >= EXCUSED_SHARE)


def measure_overlaps(truth: Truth, detections: Detections) -> list[Overlap]:
    """Measure the overlaps on each slice and category that has a lesion or a detection, in order."""
    places = sorted({*truth.lesions, *detections.by_place})
    nothing = np.zeros(0, np.int64)
    overlaps = []
    for number, category in places:
        indices = detections.by_place.get((number, category), nothing)
        masks = [detections.masks[index] for index in indices]
        lesions = truth.lesions.get((number, category), ())
        undecided = truth.undecided.get((number, category), ())
        overlaps.append(
            Overlap(
                slice_number=number,
                category=category,
                indices=indices,
                scores=detections.scores[indices],
                iou=_iou(masks, [lesion.mask for lesion in lesions]),
                undecided_share=_share_inside(masks, undecided),
            )
        )
    return overlaps


def _iou(masks: Sequence[dict[str, object]], others: Sequence[dict[str, object]]) -> Floats:
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    return np.asarray(coco_mask.iou(list(masks), list(others), [0] * len(others)), np.float64)


def _share_inside(masks: Sequence[dict[str, object]], regions: Sequence[Region]) -> Floats:
    """Return how much of each mask lies in the regions together, 0..1."""
    if not masks or not regions:
        return np.zeros(len(masks))
    together = coco_mask.merge([region.mask for region in regions])
    # For a crowd, pycocotools gives the share of the detection that is inside.
    return np.asarray(coco_mask.iou(list(masks), [together], [1]), np.float64)[:, 0]
