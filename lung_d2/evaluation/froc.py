"""FROC: the share of lesions found against the number of false positives, on slices and on series.

Three curves for each category, and for all together:

``slice_per_image``
    Lesions of slices (2-D), false positives per slice, at 1/2 to 16.
``slice_per_series``
    Lesions of slices (2-D), false positives per series, at 1/8 to 8. Each detection on each slice counts, which is hard
    on a long series.
``series_per_series``
    Lesions of series: regions chained over neighbouring slices (:mod:`lung_d2.evaluation.chains`), found where any of
    their slices is hit. False positives per series, at 1/8 to 8, are chained in the same way, so that a vessel taken
    for a lesion on ten slices is one. This is the figure that a reader of series meets.

A detection hits a lesion by the rule of :mod:`lung_d2.evaluation.overlaps`. A lesion is found with the highest score
that hits it; a further detection of it is neither right nor wrong, as in LUNA16. The sensitivity at a rate of false
positives is the highest that is reached by keeping all detections from some score on, at no more than that rate:
nothing is interpolated. Where all detections make fewer false positives than the rate, all count.

Sources: Bunch et al., A free-response approach to the measurement and characterization of radiographic-observer
performance, SPIE 127, 1977; Setio et al., Validation, comparison, and combination of algorithms for automatic detection
of pulmonary nodules: the LUNA16 challenge, Medical Image Analysis 42, 2017 (its rates, and ``mean``, the mean
sensitivity over them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.evaluation.chains import chain_regions, chain_scores
from lung_d2.evaluation.figures import ALL, NAMES, Key, Weights
from lung_d2.evaluation.overlaps import HIT_IOU, Floats, Overlap
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

IMAGE_RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SERIES_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RATES = {"slice_per_image": IMAGE_RATES, "slice_per_series": SERIES_RATES, "series_per_series": SERIES_RATES}
MEAN = "mean"
_MOST_POINTS = 200  # of a curve that is drawn
_BELOW_ALL = -0.5  # below any score
_NOT_FOUND = -1.0
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Responses:
    """Lesions and false positives with their scores.

    Attributes:
        lesion_scores: float64 ``(L,)``, the highest score that hits each, -1 where none does; falling.
        lesion_patients: int64 ``(L,)``, the number of its patient.
        false_scores: float64 ``(F,)``, falling.
        false_patients: int64 ``(F,)``.
        units: float64 ``(patients,)``, how many images or series each patient has.
    """

    lesion_scores: Floats
    lesion_patients: Ints
    false_scores: Floats
    false_patients: Ints
    units: Floats

    def sensitivities(self, rates: Sequence[float], weights: Weights) -> Floats:
        """Return the sensitivity at each rate of false positives per unit, NaN without lesions."""
        return self._found_above(self._cutoffs(rates, weights), weights)

    def threshold(self, rate: float) -> float | None:
        """Return the score from which detections can be kept at this rate: 0 where all can, None where none can."""
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
        scores = np.concatenate([self.lesion_scores, self.false_scores])
        return float(scores[scores > cutoff].min()) if (scores > cutoff).any() else None

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


class Froc:
    """Sensitivity at rates of false positives, by curve and category; see the module."""

    group = "froc"
    definition = (
        f"Share of lesions found against false positives. A detection hits a lesion of its category and slice where "
        f"the IoU of the masks is at least {HIT_IOU}; a second hit counts neither way. On slices, a lesion is one "
        f"region of one slice; of a series, regions chained over neighbouring slices, and so are false positives. "
        f"'Mean' is the mean over the rates. The threshold is the score from which detections are kept at that rate."
    )

    def __init__(self, truth: Truth, detections: Detections, overlaps: Sequence[Overlap]) -> None:
        """Collect the responses of all slices and series."""
        images = np.bincount(truth.patient_of_slice, minlength=len(truth.patients)).astype(np.float64)
        series = np.bincount(truth.patient_of_series, minlength=len(truth.patients)).astype(np.float64)
        self._truth = truth
        self.responses: dict[tuple[str, str], Responses] = {}
        for name in (ALL, *NAMES):
            own = [one for one in overlaps if name in (ALL, NAMES[one.category])]
            on_slices = _collect_slices(own, truth)
            self.responses["slice_per_image", name] = _respond(*on_slices, units=images)
            self.responses["slice_per_series", name] = _respond(*on_slices, units=series)
            of_series = _collect_series(own, truth, detections)
            self.responses["series_per_series", name] = _respond(*of_series, units=series)

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the sensitivities, 0..1, keyed by curve, category and rate."""
        figures: dict[Key, float] = {}
        for (curve, name), responses in self.responses.items():
            found = responses.sensitivities(RATES[curve], weights)
            figures |= {(curve, name, f"{rate:g}"): float(one) for rate, one in zip(RATES[curve], found, strict=True)}
            figures[curve, name, MEAN] = float(found.mean())
        return figures

    def patients_of(self, key: Key) -> int:
        """Return how many patients have lesions of the category."""
        return len(np.unique(self.responses[key[0], key[1]].lesion_patients))

    def curves(self) -> dict[str, Any]:
        """Return each curve of a category that has lesions, and the score threshold that each rate needs."""
        drawn: dict[str, Any] = {}
        for (curve, name), responses in self.responses.items():
            if len(responses.lesion_scores):
                thresholds = {f"{rate:g}": responses.threshold(rate) for rate in RATES[curve]}
                own = responses.curve() | {"thresholds": thresholds, "lesions": len(responses.lesion_scores)}
                drawn.setdefault(curve, {})[name] = own
        return drawn


Scored = list[tuple[float, int]]
"""Score and number of the patient."""


def _respond(lesions: Scored, false: Scored, units: Floats) -> Responses:
    lesion_scores, lesion_patients = _split(lesions)
    false_scores, false_patients = _split(false)
    return Responses(lesion_scores, lesion_patients, false_scores, false_patients, units)


def _split(scored: Scored) -> tuple[Floats, Ints]:
    falling = sorted(scored, key=lambda pair: -pair[0])
    return np.array([score for score, _ in falling], np.float64), np.array([one for _, one in falling], np.int64)


def _collect_slices(overlaps: Sequence[Overlap], truth: Truth) -> tuple[Scored, Scored]:
    lesions: Scored = []
    false: Scored = []
    for one in overlaps:
        patient = int(truth.patient_of_slice[one.slice_number])
        lesions += ((score, patient) for score in _best_scores(one).tolist())
        false += ((score, patient) for score in one.scores[one.false].tolist())
    return lesions, false


def _best_scores(one: Overlap) -> Floats:
    """Return the highest score that hits each lesion, float64 ``(L,)``."""
    if not len(one.scores):
        return np.full(one.iou.shape[1], _NOT_FOUND)
    best: npt.NDArray[np.float64] = np.where(one.hits, one.scores[:, None], _NOT_FOUND).max(axis=0)
    return best


def _collect_series(overlaps: Sequence[Overlap], truth: Truth, detections: Detections) -> tuple[Scored, Scored]:
    lesions: Scored = []
    false: Scored = []
    groups: dict[tuple[int, int], list[Overlap]] = defaultdict(list)
    for one in overlaps:
        groups[int(truth.series_of_slice[one.slice_number]), one.category].append(one)
    for (series, category), members in groups.items():
        patient = int(truth.patient_of_series[series])
        best = [score for one in members for score in _best_scores(one).tolist()]
        regions = [(one, region) for one in members for region in truth.lesions.get((one.slice_number, category), ())]
        chains = chain_regions(
            [truth.slices[one.slice_number].slice_index for one, _ in regions], [region.mask for _, region in regions]
        )
        for chain in range(int(chains.max(initial=-1)) + 1):
            lesions.append((max(best[place] for place in np.flatnonzero(chains == chain)), patient))
        alarms = [(one, int(index)) for one in members for index in one.indices[one.false]]
        rises = chain_scores(
            [truth.slices[one.slice_number].slice_index for one, _ in alarms],
            [detections.masks[index] for _, index in alarms],
            [float(detections.scores[index]) for _, index in alarms],
        )
        false += ((score, patient) for score in rises)
    return lesions, false
