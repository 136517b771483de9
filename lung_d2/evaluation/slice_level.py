"""Slices as cases: sensitivity, specificity and false positives at a score threshold, and AUC; the best and the worst.

A slice is positive for a category if it has a lesion of it, and negative if it has none; a slice of which only
undecided regions are known is left out. Its score is the highest of its detections of that category, whether they lie
on the lesion or not, and below all others without any; excused detections (:mod:`lung_d2.evaluation.overlaps`) do not
count. ``all`` takes a slice with any lesion as positive. The AUC is the probability that a positive slice scores higher
than a negative one, ties counting half (Hanley and McNeil, Radiology 143, 1982); it is not defined without negatives.

``false_positives`` is the mean number of false positives of a slice, by the rule of
:mod:`lung_d2.evaluation.overlaps`; it needs no lesions, so that it is the figure of a scan without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.evaluation.dice import PixelCounts
from lung_d2.evaluation.figures import ALL, Key, Weights, weighted_mean
from lung_d2.evaluation.overlaps import Floats, Overlap
from lung_d2.evaluation.truth import Ints, Truth

Flags = npt.NDArray[np.bool_]


class SliceLevel:
    """Sensitivity, specificity, AUC and false positives of slices; see the module."""

    group = "slices"
    definition = (
        "A slice with a lesion is positive, without one negative; its score is the highest of its detections. "
        "Sensitivity, specificity and the mean number of false positives at the score threshold, and AUC. Slices that "
        "are only undecided are left out of all but false positives."
    )

    def __init__(self, truth: Truth, overlaps: Sequence[Overlap], score_threshold: float) -> None:
        """Score every slice for every category."""
        self._truth, self._threshold = truth, score_threshold
        scores = np.full((len(truth.slices), len(truth.categories)), -np.inf)
        has_lesion, is_undecided = np.zeros(scores.shape, bool), np.zeros(scores.shape, bool)
        false = np.zeros(scores.shape)
        for one in overlaps:
            place = one.slice_number, one.category
            scores[place] = one.scores[~one.excused].max(initial=-np.inf)
            false[place] = np.count_nonzero(one.scores[one.false] >= score_threshold)
        self._false = {ALL: false.sum(axis=1)} | {
            name: false[:, number] for number, name in enumerate(truth.categories.names)
        }
        for kind, flags in ((truth.lesions, has_lesion), (truth.undecided, is_undecided)):
            for place in kind:
                flags[place] = True
        in_any, in_doubt = np.asarray(has_lesion.any(axis=1)), np.asarray(is_undecided.any(axis=1))
        self._cases = {ALL: _cases(scores.max(axis=1), in_any, in_doubt)} | {
            name: _cases(scores[:, number], has_lesion[:, number], is_undecided[:, number])
            for number, name in enumerate(truth.categories.names)
        }

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by metric and category; all but the false positives are 0..1."""
        own = weights[self._truth.patient_of_slice]
        figures: dict[Key, float] = {}
        for name, (scores, positive) in self._cases.items():
            called = (scores >= self._threshold).astype(np.float64)
            figures["sensitivity", name] = weighted_mean(np.where(positive == 1, called, np.nan), own)
            figures["specificity", name] = weighted_mean(np.where(positive == 0, 1 - called, np.nan), own)
            figures["auc", name] = measure_auc(scores, positive, own)
            figures["false_positives", name] = weighted_mean(self._false[name], own)
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have positive slices, negative ones, for the AUC the fewer of both, or any."""
        metric, name = key
        if metric == "false_positives":
            return np.arange(len(self._truth.patients))
        positive = self._cases[name][1]
        with_lesion, without = (np.unique(self._truth.patient_of_slice[positive == kind]) for kind in (1, 0))
        fewer = min(with_lesion, without, key=len)
        return {"sensitivity": with_lesion, "specificity": without, "auc": fewer}[metric]

    def curves(self) -> dict[str, Any]:
        """Return how many slices are positive, negative and left out."""
        counts = {}
        for name, (_, positive) in self._cases.items():
            counts[name] = {
                "positive": int((positive == 1).sum()),
                "negative": int((positive == 0).sum()),
                "left_out": int(np.isnan(positive).sum()),
            }
        return {"counts": counts}


def _cases(scores: Floats, has_lesion: Flags, is_undecided: Flags) -> tuple[Floats, Floats]:
    """Return the scores of slices, and 1 for positive ones, 0 for negative ones, NaN for those left out."""
    return scores, np.where(has_lesion, 1.0, np.where(is_undecided, np.nan, 0.0))


def measure_auc(scores: Floats, positive: Floats, weights: Floats) -> float:
    """Return the area under the ROC curve.

    Args:
        scores: float64 ``(N,)``; minus infinity is below all.
        positive: float64 ``(N,)``: 1, 0, or NaN for what is left out.
        weights: float64 ``(N,)``.

    Returns:
        0..1, NaN where one kind has no weight.
    """
    ranks = np.unique(scores, return_inverse=True)[1].reshape(-1)
    size = int(ranks.max(initial=-1)) + 1
    with_lesion, without = (
        np.bincount(ranks, weights=np.where(positive == kind, weights, 0.0), minlength=size) for kind in (1, 0)
    )
    pairs = with_lesion.sum() * without.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(without) - without
    return float(with_lesion @ (below + without / 2) / pairs)


MOST_SLICES = 6
"""Of each kind."""


def rank_slices(truth: Truth, pixels: PixelCounts, count: int = MOST_SLICES) -> dict[str, list[dict[str, Any]]]:
    """Choose the best and the worst slices by Dice, all categories of a slice together.

    Slices with neither lesion nor detection are not ranked. Of the same Dice, those with more lesion pixels are better,
    and those with more wrong pixels worse. No slice is in both lists, and none of Dice 0 among the best.

    Args:
        truth: What is there.
        pixels: At the score threshold.
        count: Most slices in each list.

    Returns:
        ``best`` and ``worst``, the most extreme first: ``slice`` (its number), ``dataset``, ``file_name``, ``series``,
        ``slice_index``, ``dice``, and in pixels ``lesion``, ``missed`` and ``false``.
    """
    dice = pixels.dice()
    lesion, both = pixels.lesion.sum(axis=1), pixels.both.sum(axis=1)
    missed, false = lesion - both, pixels.found.sum(axis=1) - both
    ranked = np.flatnonzero(~np.isnan(dice))
    best = sorted(ranked[dice[ranked] > 0], key=lambda place: (-dice[place], -lesion[place]))
    worst = sorted(ranked, key=lambda place: (dice[place], -(missed[place] + false[place])))
    chosen = best[: min(count, (len(ranked) + 1) // 2)]
    others = [place for place in worst if place not in chosen][:count]

    def describe(place: Any) -> dict[str, Any]:
        """Return the entry of a slice in a list."""
        one = truth.slices[place]
        return {
            "slice": int(place),
            "dataset": one.dataset,
            "file_name": one.file_name,
            "series": one.series,
            "slice_index": one.slice_index,
            "dice": float(dice[place]),
            "lesion": int(lesion[place]),
            "missed": int(missed[place]),
            "false": int(false[place]),
        }

    return {"best": [describe(place) for place in chosen], "worst": [describe(place) for place in others]}
