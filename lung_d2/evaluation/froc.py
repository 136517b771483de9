"""FROC: the share of lesions found against the number of false positives, on slices and on series.

Three curves for each category, and for all together:

``slice_per_image``
    Lesions of slices (2-D), false positives per slice, at 1/2 to 16.
``slice_per_series``
    Lesions of slices (2-D), false positives per series, at 1/8 to 8. Each detection on each slice counts, which is hard
    on a long series.
``series_per_series``
    Lesions of series: regions chained over neighbouring slices, found if any of their slices is hit. Two regions of
    one slice, or of neighbouring slices, belong together if they share a pixel and at least
    :data:`lung_d2.lesions.link.LinkSettings.min_overlap` of the smaller, as when detections become lesions. False
    positives per series, at 1/8 to 8, are chained in the same way, so that a vessel taken for a lesion on ten slices is
    one. This is the figure that a reader of series meets.

A detection hits a lesion by the rule of :mod:`lung_d2.evaluation.overlaps`. A lesion is found with the highest score
that hits it; a further detection of it is neither right nor wrong, as in LUNA16. The sensitivity at a rate of false
positives is the highest that is reached by keeping all detections from some score on, at no more than that rate:
nothing is interpolated. If all detections make fewer false positives than the rate, all count.

Sources: Bunch et al., A free-response approach to the measurement and characterization of radiographic-observer
performance, SPIE 127, 1977; Setio et al., Validation, comparison, and combination of algorithms for automatic detection
of pulmonary nodules: the LUNA16 challenge, Medical Image Analysis 42, 2017 (its rates, and ``mean``, the mean
sensitivity over them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.evaluation.figures import ALL, Key, Weights
from lung_d2.evaluation.overlaps import HIT_IOU, Floats, Overlap
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth
from lung_d2.lesions.link import LinkSettings

_MIN_OVERLAP = LinkSettings.min_overlap


def chain_regions(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]]) -> Ints:
    """Return the chain of each region of a series, int64 ``(N,)``, numbered from 0.

    Args:
        slice_indices: Of each region, along the normal.
        masks: Its compressed RLE.
    """
    chains = _Chains(len(masks))
    for one, other in _links(slice_indices, masks):
        chains.join(one, other)
    roots = [chains.root(region) for region in range(len(masks))]
    return np.unique(np.array(roots, np.int64), return_inverse=True)[1].reshape(-1).astype(np.int64)


def chain_scores(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[float]:
    """Return the scores at which the number of chains of a series rises, falling.

    With the score lowered from 1, regions appear one by one and form chains; so many of the scores returned as are at
    or above a threshold is how many chains there were at that threshold, or at a higher one if there they were more:
    regions of low scores that bridge all others make no false alarm undone.
    """
    chains, shown = _Chains(len(masks)), np.zeros(len(masks), bool)
    neighbours: dict[int, list[int]] = defaultdict(list)
    for one, other in _links(slice_indices, masks):
        neighbours[one].append(other)
        neighbours[other].append(one)
    count, most, rises = 0, 0, []
    order = sorted(range(len(masks)), key=lambda region: -scores[region])
    for place, region in enumerate(order):
        shown[region] = True
        count += 1 - sum(chains.join(region, other) for other in neighbours[region] if shown[other])
        is_last_of_score = place + 1 == len(order) or scores[order[place + 1]] < scores[region]
        if is_last_of_score and count > most:
            rises += [float(scores[region])] * (count - most)
            most = count
    return rises


def _links(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    on_slice: dict[int, list[int]] = defaultdict(list)
    for region, index in enumerate(slice_indices):
        on_slice[index].append(region)
    areas = [int(coco_mask.area(mask)) for mask in masks]  # of a list, pycocotools fails from 256 masks on
    for index, own in on_slice.items():
        for others in (own, on_slice.get(index + 1, [])):
            if not others:
                continue
            # For a crowd, pycocotools gives the share of the first that is inside the second.
            shares = coco_mask.iou([masks[one] for one in own], [masks[one] for one in others], [1] * len(others))
            for row, column in zip(*np.nonzero(shares), strict=True):
                one, other = own[row], others[column]
                shared = float(shares[row, column]) * areas[one]
                if one != other and shared >= _MIN_OVERLAP * min(areas[one], areas[other]) - 1e-6:
                    yield one, other


class _Chains:
    """Sets of regions that grow together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, region: int) -> int:
        while self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return region

    def join(self, one: int, other: int) -> bool:
        """Join two sets; return whether they were apart."""
        first, second = self.root(one), self.root(other)
        self._parents[second] = first
        return first != second


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
        """Return the score of the first false positive that is too many for each rate, -1/2 if there is none.

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


IMAGE_RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SERIES_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RATES = {"slice_per_image": IMAGE_RATES, "slice_per_series": SERIES_RATES, "series_per_series": SERIES_RATES}
MEAN = "mean"


class Froc:
    """Sensitivity at rates of false positives, by curve and category; see the module."""

    group = "froc"
    definition = (
        f"Share of lesions found against false positives. A detection hits a lesion of its category and slice where "
        f"the IoU of the masks is at least {HIT_IOU}; a second hit counts neither way. On slices, a lesion is one "
        f"region of one slice; of a series, regions chained over neighbouring slices, and so are false positives. "
        f"'Mean' is the mean over the usual rates. The threshold is the least score from which detections can be kept "
        f"at a rate, and is there without lesions too."
    )

    def __init__(
        self, truth: Truth, detections: Detections, overlaps: Sequence[Overlap], rates: Sequence[float] = ()
    ) -> None:
        """Collect the responses of all slices and series; ``rates`` are read beside :data:`RATES`, on every curve."""
        self.rates = {curve: tuple(sorted({*own, *rates})) for curve, own in RATES.items()}
        images = np.bincount(truth.patient_of_slice, minlength=len(truth.patients)).astype(np.float64)
        series = np.bincount(truth.patient_of_series, minlength=len(truth.patients)).astype(np.float64)
        self.responses: dict[tuple[str, str], Responses] = {}
        names = truth.categories.names
        for name in (ALL, *names):
            own = [one for one in overlaps if name in (ALL, names[one.category])]
            self.responses["slice_per_image", name] = respond_on_slices(own, truth, images)
            self.responses["slice_per_series", name] = respond_on_slices(own, truth, series)
            self.responses["series_per_series", name] = respond_in_series(own, truth, detections, series)

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the sensitivities, 0..1, keyed by curve, category and rate."""
        figures: dict[Key, float] = {}
        for (curve, name), responses in self.responses.items():
            found = dict(zip(self.rates[curve], responses.sensitivities(self.rates[curve], weights), strict=True))
            figures |= {(curve, name, f"{rate:g}"): float(one) for rate, one in found.items()}
            figures[curve, name, MEAN] = float(np.mean([found[rate] for rate in RATES[curve]]))
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have lesions of the category."""
        return np.unique(self.responses[key[0], key[1]].lesion_patients)

    def curves(self) -> dict[str, Any]:
        """Return each curve of a category that has lesions or detections, and the threshold that each rate needs.

        Without lesions there is no sensitivity, but still a threshold.
        """
        drawn: dict[str, Any] = {}
        for (curve, name), responses in self.responses.items():
            if len(responses.lesion_scores) or len(responses.scores):
                thresholds = {f"{rate:g}": responses.threshold(rate) for rate in self.rates[curve]}
                own = responses.curve() | {"thresholds": thresholds, "lesions": len(responses.lesion_scores)}
                drawn.setdefault(curve, {})[name] = own
        return drawn
