"""Calibration: whether detections of score s are right in a share s of cases.

A detection is correct where COCO matches it with a lesion of its category at mask IoU 0.50: each lesion takes one
detection at most, so that a second one of the same lesion is wrong; those that COCO ignores are left out. Scores fall
into ten bins of equal width, each with its lower end; the expected calibration error (ECE) is the mean of |share
correct - mean score| of the bins, weighted by their detections. Sources: Guo et al., On calibration of modern neural
networks, ICML 2017; Kuppers et al., Multivariate confidence calibration for object detection, CVPR Workshops 2020
(detections, of precision alone).

Detections below the score at which the results end are not there, so nothing is said of them. The score threshold that
a rate of false positives needs is part of :mod:`lung_d2.evaluation.froc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lung_d2.evaluation.figures import ALL, Key, Weights, ones
from lung_d2.evaluation.matching import STRICT_ROWS, Matches
from lung_d2.evaluation.overlaps import Floats
from lung_d2.evaluation.truth import Ints, Truth

BINS = 10
_ROW = int(STRICT_ROWS[0])  # IoU 0.50


class Calibration:
    """Expected calibration error by category; see the module."""

    group = "calibration"
    definition = (
        "A detection is correct where COCO matches it with a lesion at mask IoU 0.50, each lesion with one. ECE is the "
        "mean distance of the share correct from the mean score in ten bins of the score, weighted by detections."
    )

    def __init__(self, truth: Truth, matches: Mapping[tuple[int, str], Matches]) -> None:
        """Take what :func:`lung_d2.evaluation.matching.match` gives for masks."""
        self._truth = truth
        found = {name: matches[number, "all"] for number, name in enumerate(truth.categories.names)}
        own = {name: _judge(one, truth) for name, one in found.items()}
        together = tuple(np.concatenate([judged[part] for judged in own.values()]) for part in range(3))
        self._judged = {ALL: together} | own

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the ECE, 0..1, keyed by metric and category; NaN without detections."""
        figures: dict[Key, float] = {}
        for name, (scores, is_right, patients) in self._judged.items():
            counts, score_sums, right = _bin(scores, is_right, weights[patients])
            total = counts.sum()
            figures["ece", name] = float(np.abs(right - score_sums).sum() / total) if total else float("nan")
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have detections."""
        return np.unique(self._judged[key[1]][2])

    def curves(self) -> dict[str, Any]:
        """Return the reliability diagram of each category: the bins that hold detections."""
        weights = ones(self._truth)
        diagrams = {}
        for name, (scores, is_right, patients) in self._judged.items():
            counts, score_sums, right = _bin(scores, is_right, weights[patients])
            filled = np.flatnonzero(counts)
            diagrams[name] = {
                "bin": (filled / BINS).tolist(),
                "detections": counts[filled].astype(int).tolist(),
                "mean_score": (score_sums[filled] / counts[filled]).tolist(),
                "share_correct": (right[filled] / counts[filled]).tolist(),
            }
        return {name: one for name, one in diagrams.items() if one["bin"]}


def _judge(matches: Matches, truth: Truth) -> tuple[Floats, Floats, Ints]:
    """Return score, 1 or 0 for right or wrong, and patient, of the detections that count."""
    counted = ~matches.ignored[_ROW]
    is_right = matches.matched[_ROW][counted].astype(np.float64)
    return matches.scores[counted], is_right, truth.patient_of_slice[matches.slices[counted]]


def _bin(scores: Floats, is_right: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the weight, the sum of scores and the sum of what is right in each bin, float64 ``(BINS,)`` each."""
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)

    def add_up(values: Floats) -> Floats:
        return np.bincount(places, weights=values, minlength=BINS).astype(np.float64)

    return add_up(weights), add_up(weights * scores), add_up(weights * is_right)
