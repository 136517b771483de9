"""Dealing patients to splits so that each split gets its share of every kind of patient; arrays only.

A greedy deal after Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data": patients come in
random order, those with the rarest category first, and each goes where he is missed most. The lesion load is one more
trait beside the categories.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# The best of a few deals is a third more even than the first one, where patients are few; more deals bring little.
_DEALS = 16


def deal_evenly(areas: npt.NDArray[np.float64], places: Sequence[int], rng: random.Random) -> npt.NDArray[np.intp]:
    """Deal patients to splits: the most even of a few random deals.

    A category that as many patients carry as there are splits comes to each split, where its places allow it.

    Args:
        areas: ``(patients, categories)``, lesion area of any unit, 0 or more; only the order of the areas counts.
        places: Patients of each split, 1 or more; they sum to the number of patients.
        rng: Source of the random orders.

    Returns:
        ``(patients,)``, number of the split of each.
    """
    carries, features = areas > 0, _features(areas)
    orders = (np.array(rng.sample(range(len(areas)), len(areas))) for _ in range(_DEALS))
    deals = [_deal(carries, features, places, order) for order in orders]
    return min(deals, key=_Deal.unevenness).split_of


def _features(areas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what is shared out: of each patient 1 or 0 for a trait, or a rank from 0 to 1.

    Returns:
        ``(patients, traits)``: being a patient at all, and being without lesions; for each category having it, and
        the rank of its area among those who have it; the same rank of all lesions together, and its upper half.
    """
    total = areas.sum(1)
    ranks = [_rank(column) for column in (*areas.T, total)]
    return np.column_stack([np.ones(len(areas)), total == 0, areas > 0, *ranks, ranks[-1] > 0.5])


def _rank(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the place of each value among those above 0, from 0 (least) to 1; 0 for a value of 0."""
    among = np.sort(values[values > 0])
    below, up_to = np.searchsorted(among, values, "left"), np.searchsorted(among, values, "right")
    return np.where(values > 0, (below + up_to) / max(2 * len(among), 1), 0.0)


def _deal(
    carries: npt.NDArray[np.bool_],
    features: npt.NDArray[np.float64],
    places: Sequence[int],
    order: npt.NDArray[np.intp],
) -> _Deal:
    """Deal patients in an order, but for the rarest categories, whose carriers come first."""
    deal = _Deal(features, places)
    for category in np.argsort(carries.sum(0), kind="stable"):
        if np.count_nonzero(carries[:, category]) >= len(places):
            deal.give_each_split_one_of(carries, int(category), order)
    commonness = np.where(carries, carries.sum(0), len(carries) + 1).min(1)
    for patient in order[np.argsort(commonness[order], kind="stable")].tolist():
        if deal.split_of[patient] < 0:
            deal.give_where_missed(patient)
    return deal


class _Deal:
    """Patients, by number, that are dealt to splits with so many places each.

    Attributes:
        split_of: ``(patients,)``, number of the split; -1 while the patient waits.
    """

    def __init__(self, features: npt.NDArray[np.float64], places: Sequence[int]) -> None:
        self.split_of = np.full(len(features), -1)
        self._features = features
        self._free = np.array(places)
        self._shares = self._free / len(features)
        totals = features.sum(0)
        # A patient too many or too few matters the more, the rarer the trait.
        self._weights = 1 / np.where(totals > 0, totals, 1.0)
        self._missing = np.outer(self._shares, totals)

    def give_each_split_one_of(
        self, carries: npt.NDArray[np.bool_], category: int, order: npt.NDArray[np.intp]
    ) -> None:
        """Give each split without a carrier of a category one of them, the one who carries most of what it lacks."""
        for split, free in enumerate(self._free):
            held = carries[self.split_of == split].any(0)
            waiting = order[(self.split_of[order] < 0) & carries[order, category]]
            if free and not held[category] and len(waiting):
                self._give(int(waiting[(carries[waiting] & ~held).sum(1).argmax()]), split)

    def give_where_missed(self, patient: int) -> None:
        """Give a patient to the split that misses most of what he has, in proportion to its share."""
        own = self._features[patient]
        growth = (own * (own - 2 * self._missing)) @ self._weights / self._shares  # of unevenness, if he goes there
        self._give(patient, int(np.where(self._free > 0, growth, np.inf).argmin()))

    def unevenness(self) -> float:
        """Return the squared distance of what the splits hold from their shares, summed over splits and traits."""
        return float(((self._missing**2) @ self._weights / self._shares).sum())

    def _give(self, patient: int, split: int) -> None:
        self.split_of[patient] = split
        self._free[split] -= 1
        self._missing[split] -= self._features[patient]
