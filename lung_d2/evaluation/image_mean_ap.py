"""The image-mean average precision that COVID-CT-Mask-Net publishes, for comparison with its numbers alone.

Definition, from its code (``evaluation_mean_ap.py``, ``utils.py`` and ``datasets/dataset_segmentation.py`` of
https://github.com/AlexTS1980/COVID-CT-Mask-Net; Ter-Sarkisov, Detection and Segmentation of Lesion Areas in Chest CT
Scans for the Prediction of COVID-19, 2020):

- the truth of a slice are regions of more than 100 pixels; detections have a score above 0.05;
- each region takes, among the detections of its class with which the IoU of the masks is above the threshold, that of
  the highest IoU; two regions may take the same one;
- the detections of both classes are ranked together by score; the area under their precision over recall, made
  monotonous, is the slice's AP, recall being detections taken over regions;
- a slice without regions and without detections has AP 1; with one of both alone, 0;
- the figure is the mean over slices, then over the IoU thresholds 0.50:0.05:0.95, in percent.

That is kinder than COCO's: empty slices score 1, small regions are dropped, and no score is compared between slices.
``two_classes`` ranks all categories together; ``merged`` makes one class of them, with the connected parts of their
union as regions. Published on its own 100 test slices of CNCB: 38.71 with two classes (ground glass and consolidation)
and 44.68 merged. On other slices the figure compares with nothing; and its second class is not ours.

Undecided regions, which it does not know, excuse detections as everywhere in this room.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.figures import Key, Weights, weighted_mean
from lung_d2.evaluation.matching import STRICT_THRESHOLDS
from lung_d2.evaluation.overlaps import Floats, Overlap
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth
from lung_d2.masks import connected_components, decode_mask, encode_mask

MIN_SCORE = 0.05
MIN_AREA_PX = 100
PUBLISHED = {"two_classes": 38.71, "merged": 44.68}
VARIANTS = tuple(PUBLISHED)

Rle = dict[str, Any]


class ImageMeanAP:
    """Mean over slices of their average precision; see the module."""

    group = "image_mean_ap"
    definition = (
        "Mean over slices of the average precision of a slice, in percent, as COVID-CT-Mask-Net publishes it: regions "
        "of 100 pixels or less dropped, an empty slice without detections counts 1. Comparable with its 38.71 (two "
        "classes) and 44.68 (merged) on its own 100 slices only; on any other slices it compares with nothing."
    )

    def __init__(self, truth: Truth, detections: Detections, overlaps: Sequence[Overlap]) -> None:
        """Measure every slice at every threshold."""
        self._truth = truth
        excused = {int(index) for one in overlaps for index in one.indices[one.excused]}
        measured: dict[str, list[Floats]] = {variant: [] for variant in VARIANTS}
        for number in range(len(truth.slices)):
            found = _choose_detections(detections, number, excused)
            masks = [detections.masks[index] for index in found]
            regions, classes = _regions_of(truth, number)
            measured["two_classes"].append(_slice_ap(regions, classes, masks, detections.categories[found]))
            merged = _merge(regions)
            one_class = np.zeros(len(merged), np.int64), np.zeros(len(masks), np.int64)
            measured["merged"].append(_slice_ap(merged, one_class[0], masks, one_class[1]))
        self._aps = {variant: np.array(aps) for variant, aps in measured.items()}

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by variant and metric (``AP``, ``AP50``)."""
        own = weights[self._truth.patient_of_slice]
        figures: dict[Key, float] = {}
        for variant, aps in self._aps.items():
            figures[variant, "AP"] = 100 * weighted_mean(aps.mean(axis=1), own)
            figures[variant, "AP50"] = 100 * weighted_mean(aps[:, 0], own)
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return all patients: every slice counts."""
        return np.arange(len(self._truth.patients))

    def curves(self) -> dict[str, Any]:
        """Return the published figures, which belong to other slices."""
        return {"published_on_its_own_100_slices": PUBLISHED}


def _choose_detections(detections: Detections, number: int, excused: Collection[int]) -> Ints:
    """Return the detections of a slice that count, by falling score; of equal ones the first of the file goes first."""
    own = [detections.by_place.get((number, category), ()) for category in range(len(CATEGORIES))]
    indices = [int(index) for group in own for index in group]
    counted = [index for index in indices if detections.scores[index] > MIN_SCORE and index not in excused]
    return np.array(sorted(counted, key=lambda index: (-detections.scores[index], index)), np.int64)


def _regions_of(truth: Truth, number: int) -> tuple[list[Rle], Ints]:
    """Return the regions of a slice, and the number of each one's category."""
    regions = [
        (region.mask, category)
        for category in range(len(CATEGORIES))
        for region in truth.lesions.get((number, category), ())
    ]
    return [mask for mask, _ in regions], np.array([category for _, category in regions], np.int64)


def _merge(regions: Sequence[Rle]) -> list[Rle]:
    """Return the connected parts of all regions together."""
    if not regions:
        return []
    return [encode_mask(part) for part in connected_components(decode_mask(coco_mask.merge(list(regions))))]


def _slice_ap(regions: Sequence[Rle], classes: Ints, masks: Sequence[Rle], found_classes: Ints) -> Floats:
    """Return the AP of a slice at each threshold, float64 ``(T,)``, 0..1; ``masks`` are by falling score."""
    large = [place for place, region in enumerate(regions) if coco_mask.area(region) > MIN_AREA_PX]
    if not large or not masks:
        return np.full(len(STRICT_THRESHOLDS), float(not large and not masks))
    iou = np.asarray(coco_mask.iou(list(masks), [regions[place] for place in large], [0] * len(large)))
    iou = np.where(found_classes[:, None] == classes[large], iou, 0.0)
    aps = []
    for threshold in STRICT_THRESHOLDS:
        is_right = np.zeros(len(masks), bool)
        is_right[iou.argmax(axis=0)[iou.max(axis=0) > threshold]] = True
        right = np.cumsum(is_right)
        precision = np.maximum.accumulate((right / np.arange(1, len(masks) + 1))[::-1])[::-1]
        aps.append(float(precision[is_right].sum() / len(large)))
    return np.array(aps)
