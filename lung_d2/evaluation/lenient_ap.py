"""Average precision at lenient IoU, as medical detection reports it: at 0.10, and as mean over 0.10:0.05:0.50.

Whether a reader is led to a lesion matters more there than where its blurred edge is drawn, and ground glass has no
sharp one. Source: Baumgartner et al., nnDetection, MICCAI 2021 (AP at IoU 0.1); Jaeger et al., Retina U-Net, ML4H 2019.
Precision, recall and matching are COCO's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lung_d2.evaluation.average_precision import PrecisionRecall
from lung_d2.evaluation.coco_ap import rarest_patients, spread_categories
from lung_d2.evaluation.figures import NAMES, Key, Weights, category_number
from lung_d2.evaluation.matching import LENIENT_ROWS, TASKS, Matches
from lung_d2.evaluation.truth import Ints, Truth


class LenientAP:
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
            (task, category): PrecisionRecall(matches[task][category, "all"], truth.patient_of_slice, LENIENT_ROWS)
            for task in TASKS
            for category in range(len(NAMES))
        }

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by task, metric and category."""
        figures: dict[Key, float] = {}
        for task in TASKS:
            aps = [100 * self._recalled[task, category].average(weights) for category in range(len(NAMES))]
            by_metric = {"AP10": [float(ap[0]) for ap in aps], "AP10:50": [float(ap.mean()) for ap in aps]}
            has = [len(self._recalled[task, category].lesion_patients) > 0 for category in range(len(NAMES))]
            figures |= spread_categories(task, by_metric, dict.fromkeys(by_metric, has))
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have lesions of the category; see :func:`rarest_patients` for all."""
        task, _, name = key
        number = category_number(name)
        wanted = range(len(NAMES)) if number is None else [number]
        return rarest_patients([self._recalled[task, category].lesion_patients for category in wanted])

    def curves(self) -> dict[str, Any]:
        """Return nothing: the curve of the masks at IoU 0.50 is COCO's."""
        return {}
