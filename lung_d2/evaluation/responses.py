"""Lesions with the scores that find them, and false positives with theirs: what a FROC curve is made of.

See :mod:`lung_d2.evaluation.froc` for what they mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lung_d2.evaluation.chains import chain_regions, chain_scores
from lung_d2.evaluation.figures import Weights
from lung_d2.evaluation.overlaps import Floats, Overlap
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

_MOST_POINTS = 200  # of a curve that is drawn
_BELOW_ALL = -0.5  # below any score
_NOT_FOUND = -1.0
_ROUNDING = 1e-9
Scored = list[tuple[float, int]]
"""Score and number of the patient."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Lesions and false positives with their scores.

    Attributes:
        lesion_scores: float64 ``(L,)``, the highest score that hits each, -1 where none does; falling.
        lesion_patients: int64 ``(L,)``, the number of its patient.
        false_scores: float64 ``(F,)``, falling.
        false_patients: int64 ``(F,)``.
        units: float64 ``(patients,)``, how many images or series each patient has.
        scores: float64 ``(N,)``, of all detections, rising: where a threshold may lie.
    """

    lesion_scores: Floats
    lesion_patients: Ints
    false_scores: Floats
    false_patients: Ints
    units: Floats
    scores: Floats

    def sensitivities(self, rates: Sequence[float], weights: Weights) -> Floats:
        """Return the sensitivity at each rate of false positives per unit, NaN without lesions."""
        return self._found_above(self._cutoffs(rates, weights), weights)

    def threshold(self, rate: float) -> float | None:
        """Return the least score from which detections can be kept at this rate: 0: all can; None: none can."""
        return self._lowest_above(float(self._cutoffs([rate], np.ones(len(self.units)))[0]))

    def curve(self) -> dict[str, list[Any]]:
        """Return false positives per unit, and sensitivity and threshold there; dense where false positives are few."""
        false = np.unique(np.geomspace(1, len(self.false_scores) + 1, _MOST_POINTS).round().astype(np.int64)) - 1
        cutoffs = np.append(self.false_scores, _BELOW_ALL)[false]
        return {
            "false_positives": (false / self.units.sum()).tolist(),
            "sensitivity": self._found_above(cutoffs, np.ones(len(self.units))).tolist(),
            "threshold": [self._lowest_above(float(cutoff)) for cutoff in cutoffs],
        }

    def _lowest_above(self, cutoff: float) -> float | None:
        if cutoff == _BELOW_ALL:
            return 0.0
        place = int(np.searchsorted(self.scores, cutoff, side="right"))
        return float(self.scores[place]) if place < len(self.scores) else None

    def _cutoffs(self, rates: Sequence[float], weights: Weights) -> Floats:
        """Return the score of the first false positive that is too many for each rate, -1/2 where none is.

        Those above it are kept, so that of equal scores all are kept or none.
        """
        allowed = np.asarray(rates) * float(self.units @ weights)
        kept = np.searchsorted(np.cumsum(weights[self.false_patients]), allowed + _ROUNDING, side="right")
        return np.append(self.false_scores, _BELOW_ALL)[kept]

    def _found_above(self, cutoffs: Floats, weights: Weights) -> Floats:
        own = weights[self.lesion_patients]
        total = float(own.sum())
        if total == 0:
            return np.full(len(cutoffs), np.nan)
        found = np.searchsorted(-self.lesion_scores, -cutoffs, side="left")  # those above, without those equal
        return np.asarray(np.concatenate([[0.0], np.cumsum(own)])[found] / total, np.float64)


def respond_on_slices(overlaps: Sequence[Overlap], truth: Truth, units: Floats) -> Responses:
    """Collect the lesions and false positives of slices.

    Args:
        overlaps: Of all slices, and of the categories that count.
        truth: What is there.
        units: float64 ``(patients,)``, how many images or series each patient has.
    """
    lesions: Scored = []
    false: Scored = []
    for one in overlaps:
        patient = int(truth.patient_of_slice[one.slice_number])
        lesions += ((score, patient) for score in _best_scores(one).tolist())
        false += ((score, patient) for score in one.scores[one.false].tolist())
    return _respond(lesions, false, units, overlaps)


def respond_in_series(overlaps: Sequence[Overlap], truth: Truth, detections: Detections, units: Floats) -> Responses:
    """Collect the lesions and false positives of series, both chained over neighbouring slices."""
    lesions: Scored = []
    false: Scored = []
    groups: dict[tuple[int, int], list[Overlap]] = defaultdict(list)
    for one in overlaps:
        groups[int(truth.series_of_slice[one.slice_number]), one.category].append(one)
    for (series, _), members in groups.items():
        patient = int(truth.patient_of_series[series])
        lesions += ((score, patient) for score in _chained_lesions(members, truth))
        false += ((score, patient) for score in _chained_alarms(members, truth, detections))
    return _respond(lesions, false, units, overlaps)


def _chained_lesions(members: Sequence[Overlap], truth: Truth) -> list[float]:
    """Return the highest score that hits each lesion of a series on any slice."""
    regions = [
        (truth.slices[one.slice_number].slice_index, region.mask, score)
        for one in members
        for region, score in zip(
            truth.lesions.get((one.slice_number, one.category), ()), _best_scores(one).tolist(), strict=True
        )
    ]
    chains = chain_regions([index for index, _, _ in regions], [mask for _, mask, _ in regions])
    best = np.full(int(chains.max(initial=-1)) + 1, _NOT_FOUND)
    np.maximum.at(best, chains, [score for _, _, score in regions])
    scores: list[float] = best.tolist()
    return scores


def _chained_alarms(members: Sequence[Overlap], truth: Truth, detections: Detections) -> list[float]:
    alarms = [(one, int(index)) for one in members for index in one.indices[one.false]]
    return chain_scores(
        [truth.slices[one.slice_number].slice_index for one, _ in alarms],
        [detections.masks[index] for _, index in alarms],
        [float(detections.scores[index]) for _, index in alarms],
    )


def _respond(lesions: Scored, false: Scored, units: Floats, overlaps: Sequence[Overlap]) -> Responses:
    lesion_scores, lesion_patients = _split(lesions)
    false_scores, false_patients = _split(false)
    scores = np.sort(np.concatenate([np.empty(0), *(one.scores for one in overlaps)]))
    return Responses(lesion_scores, lesion_patients, false_scores, false_patients, units, scores)


def _split(scored: Scored) -> tuple[Floats, Ints]:
    falling = sorted(scored, key=lambda pair: -pair[0])
    return np.array([score for score, _ in falling], np.float64), np.array([one for _, one in falling], np.int64)


def _best_scores(one: Overlap) -> Floats:
    """Return the highest score that hits each lesion, float64 ``(L,)``."""
    if not len(one.scores):
        return np.full(one.iou.shape[1], _NOT_FOUND)
    return np.asarray(np.where(one.hits, one.scores[:, None], _NOT_FOUND).max(axis=0), np.float64)
