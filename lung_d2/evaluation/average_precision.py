"""Average precision of boxes and masks: COCO's, and at lenient IoU, for any weights of the patients, in percent.

Precision and recall follow the falling score; at each of 101 recalls (0, 0.01, ..., 1) the best precision at that
recall or beyond counts, 0 where it is never reached, and their mean is the average precision. Source:
``COCOeval.accumulate`` of pycocotools, with which it agrees if every patient counts once.

``coco``
    AP is the mean over the IoU thresholds 0.50:0.05:0.95; APs, APm and APl count lesions below 32 x 32, below 96 x 96,
    and above, in pixels of the slice, not in mm. ``all`` is the mean over the categories that have lesions. The numbers
    are those of Detectron2's ``COCOEvaluator``; here they can be measured on any draw of the patients. Definition: Lin
    et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and https://cocodataset.org/#detection-eval.
``lenient``
    At IoU 0.10, and as mean over 0.10:0.05:0.50, as medical detection reports it: whether a reader is led to a lesion
    matters more there than where its blurred edge is drawn, and ground glass has no sharp one. Sources: Baumgartner et
    al., nnDetection, MICCAI 2021 (AP at IoU 0.1); Jaeger et al., Retina U-Net, ML4H 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.evaluation.figures import ALL, Key, Weights, category_numbers, ones
from lung_d2.evaluation.matching import LENIENT_ROWS, STRICT_ROWS, TASKS, Matches
from lung_d2.evaluation.truth import Ints, Truth

RECALLS = np.linspace(0.0, 1.0, 101)  # the very floats of pycocotools
Floats = npt.NDArray[np.float64]


class PrecisionRecall:
    """Precision against recall of one category, at all thresholds.

    Attributes:
        lesion_patients: int64 ``(L,)``, the patient of each lesion to be found.
    """

    def __init__(self, matches: Matches, patient_of_slice: Ints, rows: Ints) -> None:
        """Take the rows of these thresholds.

        Args:
            matches: Of the category.
            patient_of_slice: int64 ``(slices,)``.
            rows: int64 ``(T,)``, indices into :data:`lung_d2.evaluation.matching.THRESHOLDS`.
        """
        self.lesion_patients = patient_of_slice[matches.lesion_slices]
        self._patients = patient_of_slice[matches.slices]
        self._hits = [np.flatnonzero(matches.matched[row]) for row in rows]
        counted = ~matches.ignored[rows]
        # Without undecided regions, or where no threshold matters to them, all rows are the same.
        self._counted = counted[:1] if (counted == counted[:1]).all() else counted

    def precisions(self, weights: Floats) -> Floats:
        """Return the best precision at each recall or beyond.

        Args:
            weights: float64 ``(patients,)``.

        Returns:
            float64 ``(T, 101)``, NaN where nothing is to be found.
        """
        lesions = float(weights[self.lesion_patients].sum())
        precisions = np.zeros((len(self._hits), len(RECALLS)))
        if lesions == 0:
            return np.full_like(precisions, np.nan)
        own = weights[self._patients]
        counted = np.cumsum(own * self._counted, axis=1)
        for row, hits in enumerate(self._hits):
            right = np.cumsum(own[hits])
            # Precision is best where a detection is right, so that those alone are looked at.
            precision = right / (counted[min(row, len(counted) - 1)][hits] + np.spacing(1))
            best = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(right / lesions, RECALLS, side="left")
            reached = places < len(best)
            precisions[row, reached] = best[places[reached]]
        return precisions

    def average(self, weights: Floats) -> Floats:
        """Return the average precision at each threshold, float64 ``(T,)``, 0..1."""
        return np.asarray(self.precisions(weights).mean(axis=1), np.float64)


_SIZES = {"APs": "small", "APm": "medium", "APl": "large"}


class _AveragePrecision:
    """What both measures share: precision against recall by task, category and area."""

    _truth: Truth
    _recalled: Mapping[tuple[str, int, str], PrecisionRecall]

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have lesions of the category and size; see :func:`rarest_patients` for all."""
        task, metric, name = key
        area, wanted = _SIZES.get(metric, "all"), category_numbers(self._truth, name)
        return rarest_patients([self._recalled[task, category, area].lesion_patients for category in wanted])


class CocoAP(_AveragePrecision):
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
            for category in range(len(self._truth.categories)):
                aps = 100 * self._recalled[task, category, "all"].average(weights)
                found = {"AP": aps.mean(), "AP50": aps[0], "AP75": aps[5]} | {
                    metric: 100 * self._recalled[task, category, area].average(weights).mean()
                    for metric, area in _SIZES.items()
                }
                for metric, value in found.items():
                    lesions = self._recalled[task, category, _SIZES.get(metric, "all")].lesion_patients
                    by_metric.setdefault(metric, []).append(float(value))
                    has_lesions.setdefault(metric, []).append(len(lesions) > 0)
            figures |= spread_categories(task, self._truth.categories.names, by_metric, has_lesions)
        return figures

    def curves(self) -> dict[str, Any]:
        """Return precision against recall of the masks at IoU 0.50, by category."""
        weights = ones(self._truth)
        precisions = {
            name: self._recalled["segm", number, "all"].precisions(weights)[0]
            for number, name in enumerate(self._truth.categories.names)
        }
        return {
            "recall": RECALLS.tolist(),
            "precision_at_iou_50": {name: one.tolist() for name, one in precisions.items() if not np.isnan(one).any()},
        }


def spread_categories(
    task: str, names: Sequence[str], by_metric: Mapping[str, list[float]], has_lesions: Mapping[str, list[bool]]
) -> dict[Key, float]:
    """Return metrics of all categories as figures, with their mean over the categories that have lesions.

    Args:
        task: First part of the figures' names.
        names: Of the categories.
        by_metric: The figure of each category.
        has_lesions: Whether each category has lesions at all. Where one of these has none in a draw of patients, the
            mean is NaN too: that of the others is another figure.
    """
    figures: dict[Key, float] = {}
    for metric, values in by_metric.items():
        known = [value for value, has in zip(values, has_lesions[metric], strict=True) if has]
        figures[task, metric, ALL] = float(np.mean(known)) if known else float("nan")
        figures |= {(task, metric, name): value for name, value in zip(names, values, strict=True)}
    return figures


def rarest_patients(patients: Sequence[Ints]) -> Ints:
    """Return the patients on whom a mean over categories rests: those of the rarest that has lesions at all.

    A draw without it has no mean, so that the interval is no better than that category's.

    Args:
        patients: Of the lesions of each category, int64 ``(L,)``.
    """
    known = [np.unique(one) for one in patients if len(one)]
    return min(known, key=len, default=np.empty(0, np.int64))


class LenientAP(_AveragePrecision):
    """AP at IoU 0.10, and its mean over 0.10:0.05:0.50, by task and category; see the module."""

    group = "lenient"
    definition = (
        "Average precision in percent as medical detection reports it: at IoU 0.10, and as mean over 0.10:0.05:0.50; "
        "matching, precision and recall are COCO's."
    )

    def __init__(self, truth: Truth, matches: Mapping[str, Mapping[tuple[int, str], Matches]]) -> None:
        """Take what :func:`lung_d2.evaluation.matching.match` gives, by task."""
        self._truth = truth
        self._recalled = {
            (task, category, "all"): PrecisionRecall(
                matches[task][category, "all"], truth.patient_of_slice, LENIENT_ROWS
            )
            for task in TASKS
            for category in range(len(truth.categories))
        }

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by task, metric and category."""
        figures: dict[Key, float] = {}
        for task in TASKS:
            own = [self._recalled[task, category, "all"] for category in range(len(self._truth.categories))]
            aps = [100 * one.average(weights) for one in own]
            by_metric = {"AP10": [float(ap[0]) for ap in aps], "AP10:50": [float(ap.mean()) for ap in aps]}
            has = [len(one.lesion_patients) > 0 for one in own]
            figures |= spread_categories(task, self._truth.categories.names, by_metric, dict.fromkeys(by_metric, has))
        return figures

    def curves(self) -> dict[str, Any]:
        """Return nothing: the curve of the masks at IoU 0.50 is COCO's."""
        return {}
