"""COCO's average precision of boxes and masks: AP, AP50, AP75, by size, by category, in percent.

Definition: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and https://cocodataset.org/#detection-eval.
AP is the mean over the IoU thresholds 0.50:0.05:0.95; APs, APm and APl count lesions below 32 x 32, below 96 x 96, and
above, in pixels of the slice, and not in mm. ``all`` is the mean over the categories that have lesions. The numbers are
those of Detectron2's ``COCOEvaluator``; here they can be measured on any draw of the patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lung_d2.evaluation.average_precision import RECALLS, PrecisionRecall
from lung_d2.evaluation.figures import ALL, NAMES, Key, Weights, category_number, ones
from lung_d2.evaluation.matching import STRICT_ROWS, TASKS, Matches
from lung_d2.evaluation.truth import Ints, Truth

_SIZES = {"APs": "small", "APm": "medium", "APl": "large"}


class CocoAP:
    """AP, AP50, AP75, APs, APm and APl, by task and category; see the module."""

    group = "coco"
    definition = (
        "COCO average precision in percent: mean over IoU 0.50:0.05:0.95 (AP), at IoU 0.50 and 0.75, and by area in "
        "pixels (small below 32², large above 96²). 'All' is the mean over the categories that have lesions."
    )

    def __init__(self, truth: Truth, matches: Mapping[str, Mapping[tuple[int, str], Matches]]) -> None:
        """Take what :func:`lung_d2.evaluation.matching.match` gives, by task."""
        self._truth = truth
        self._recalled = {
            (task, category, area): PrecisionRecall(found, truth.patient_of_slice, STRICT_ROWS)
            for task in TASKS
            for (category, area), found in matches[task].items()
        }

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by task, metric and category."""
        figures: dict[Key, float] = {}
        for task in TASKS:
            by_metric: dict[str, list[float]] = {}
            has_lesions: dict[str, list[bool]] = {}
            for category in range(len(NAMES)):
                aps = 100 * self._recalled[task, category, "all"].average(weights)
                found = {"AP": aps.mean(), "AP50": aps[0], "AP75": aps[5]} | {
                    metric: 100 * self._recalled[task, category, area].average(weights).mean()
                    for metric, area in _SIZES.items()
                }
                for metric, value in found.items():
                    lesions = self._recalled[task, category, _SIZES.get(metric, "all")].lesion_patients
                    by_metric.setdefault(metric, []).append(float(value))
                    has_lesions.setdefault(metric, []).append(len(lesions) > 0)
            figures |= spread_categories(task, by_metric, has_lesions)
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have lesions of the category and size; see :func:`rarest_patients` for all."""
        task, metric, name = key
        area, number = _SIZES.get(metric, "all"), category_number(name)
        wanted = range(len(NAMES)) if number is None else [number]
        return rarest_patients([self._recalled[task, category, area].lesion_patients for category in wanted])

    def curves(self) -> dict[str, Any]:
        """Return precision against recall of the masks at IoU 0.50, by category."""
        weights = ones(self._truth)
        precisions = {
            name: self._recalled["segm", number, "all"].precisions(weights)[0] for number, name in enumerate(NAMES)
        }
        return {
            "recall": RECALLS.tolist(),
            "precision_at_iou_50": {name: one.tolist() for name, one in precisions.items() if not np.isnan(one).any()},
        }


def spread_categories(
    task: str, by_metric: Mapping[str, list[float]], has_lesions: Mapping[str, list[bool]]
) -> dict[Key, float]:
    """Return metrics of all categories as figures, with their mean over the categories that have lesions.

    Args:
        task: First part of the figures' names.
        by_metric: The figure of each category.
        has_lesions: Whether each category has lesions at all. Where one of these has none in a draw of patients, the
            mean is NaN too: that of the others is another figure.
    """
    figures: dict[Key, float] = {}
    for metric, values in by_metric.items():
        known = [value for value, has in zip(values, has_lesions[metric], strict=True) if has]
        figures[task, metric, ALL] = float(np.mean(known)) if known else float("nan")
        figures |= {(task, metric, name): value for name, value in zip(NAMES, values, strict=True)}
    return figures


def rarest_patients(patients: Sequence[Ints]) -> Ints:
    """Return the patients on whom a mean over categories rests: those of the rarest that has lesions at all.

    A draw without it has no mean, so that the interval is no better than that category's.

    Args:
        patients: Of the lesions of each category, int64 ``(L,)``.
    """
    known = [np.unique(one) for one in patients if len(one)]
    return min(known, key=len, default=np.empty(0, np.int64))
