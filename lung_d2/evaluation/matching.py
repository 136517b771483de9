"""Which detections match which lesions, as COCO matches them, done once by ``pycocotools`` for all thresholds.

Detections of a slice and category are taken by falling score, the first 100; each takes the lesion not yet taken with
which its IoU is highest, and at least the threshold. A detection that matches none, but of which at least the
threshold's share lies in an undecided region (``iscrowd``), is ignored: it counts neither for nor against.
Source: ``COCOeval.evaluateImg`` of pycocotools; Lin et al., Microsoft COCO, ECCV 2014.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

TASKS = ("bbox", "segm")
LENIENT_THRESHOLDS = np.linspace(0.10, 0.45, 8)
STRICT_THRESHOLDS = np.linspace(0.50, 0.95, 10)  # the very floats of pycocotools
THRESHOLDS = np.concatenate([LENIENT_THRESHOLDS, STRICT_THRESHOLDS])
"""IoU, from 0.10 to 0.95 in steps of 0.05."""
LENIENT_ROWS = np.arange(len(LENIENT_THRESHOLDS) + 1)
"""Places of 0.10 to 0.50 in :data:`THRESHOLDS`."""
STRICT_ROWS = np.arange(len(LENIENT_THRESHOLDS), len(THRESHOLDS))
"""Places of 0.50 to 0.95 in :data:`THRESHOLDS`."""
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""Least and greatest area in pixels of COCO's sizes."""
MAX_DETECTIONS = 100
"""Most detections of a slice and category, as in COCO."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one category, matched within one range of areas, by falling score.

    Attributes:
        slices: int64 ``(N,)``, numbers of their slices.
        scores: float64 ``(N,)``.
        matched: bool ``(T, N)``, whether each is right at each of :data:`THRESHOLDS`.
        ignored: bool ``(T, N)``, whether it counts neither for nor against.
        lesion_slices: int64 ``(L,)``, the slice of each lesion to be found.
    """

    slices: Ints
    scores: npt.NDArray[np.float64]
    matched: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    lesion_slices: Ints


def match(truth: Truth, detections: Detections, task: str) -> dict[tuple[int, str], Matches]:
    """Match all detections.

    Args:
        truth: What is there.
        detections: What was found.
        task: ``"bbox"`` or ``"segm"``: the IoU of boxes or of masks.

    Returns:
        By the number of the category and the name of the area range.
    """
    evaluation = _evaluate(_to_coco(truth), _to_results(truth, detections, task), task)
    slices_count, areas_count = len(truth.slices), len(AREAS)
    matches = {}
    for category in range(len(truth.categories)):
        for place, area in enumerate(AREAS):
            first = (category * areas_count + place) * slices_count
            matches[category, area] = _join(evaluation.evalImgs[first : first + slices_count])
    return matches


def _evaluate(truth: COCO, results: list[dict[str, Any]], task: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        # loadRes looks at the first result to see what the others are.
        found = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, found, task)
        evaluation.params.iouThrs = THRESHOLDS
        evaluation.params.areaRng = [list(area) for area in AREAS.values()]
        evaluation.params.areaRngLbl = list(AREAS)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    return evaluation


def _to_coco(truth: Truth) -> COCO:
    """Return the truth with ids from 1: to pycocotools an annotation of id 0 is one that was never matched."""
    images = [
        {"id": number, "height": one.shape[0], "width": one.shape[1]} for number, one in enumerate(truth.slices, 1)
    ]
    annotations: list[dict[str, Any]] = []
    for is_crowd, kind in enumerate((truth.lesions, truth.undecided)):
        for (number, category), regions in kind.items():
            annotations += (
                {
                    "image_id": number + 1,
                    "category_id": truth.categories[category].coco_id,
                    "iscrowd": is_crowd,
                    "segmentation": dict(region.mask),
                    "bbox": list(region.box),
                    "area": region.area,
                }
                for region in regions
            )
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": truth.categories.to_coco()}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _to_results(truth: Truth, detections: Detections, task: str) -> list[dict[str, Any]]:
    """Return the results of one task: with a box beside its mask, a detection's area would be that of the box."""
    results = []
    for index in range(len(detections)):
        shape = (
            {"bbox": detections.boxes[index].tolist()}
            if task == "bbox"
            else {"segmentation": copy.copy(detections.masks[index])}
        )
        results.append(
            {
                "image_id": int(detections.slices[index]) + 1,
                "category_id": truth.categories[int(detections.categories[index])].coco_id,
                "score": float(detections.scores[index]),
            }
            | shape
        )
    return results


def _join(slices: list[Mapping[str, Any] | None]) -> Matches:
    """Join what pycocotools says of each slice of a category and area range; it says None of one without anything."""
    known = [(number, one) for number, one in enumerate(slices) if one is not None]
    found = np.array([number for number, one in known for _ in one["dtScores"]], np.int64)
    scores = np.array([score for _, one in known for score in one["dtScores"]], np.float64)
    order = np.argsort(-scores, kind="mergesort")  # ties stay in the order of slices, as in pycocotools
    nothing = np.zeros((len(THRESHOLDS), 0), bool)
    matched = np.concatenate([nothing, *(one["dtMatches"] > 0 for _, one in known)], axis=1)[:, order]
    ignored = np.concatenate([nothing, *(one["dtIgnore"].astype(bool) for _, one in known)], axis=1)[:, order]
    lesions = [number for number, one in known for is_ignored in one["gtIgnore"] if not is_ignored]
    return Matches(found[order], scores[order], matched & ~ignored, ignored, np.array(lesions, np.int64))
