"""What every metric is: figures by name that can be measured again on any weighting of the patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lung_d2.evaluation.truth import Ints, Truth

Key = tuple[str, ...]
"""The name of a figure from the outside in, as ``("segm", "AP50", "bronchiectasis")``."""
Weights = npt.NDArray[np.float64]
"""float64 ``(patients,)``: how often each patient counts; 1 everywhere for the figure itself."""

ALL = "all"
"""Stands where a category could: all of them together."""


class Metric(Protocol):
    """A metric whose matching is done once, and whose figures then follow from any weights of the patients.

    Attributes:
        group: Its name in ``evaluation.json``.
        definition: What it is, in a few sentences for the reader of the report.
    """

    group: str
    definition: str

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, each as if a patient of weight 2 were there twice; NaN where it is not defined."""

    def patients_of(self, key: Key) -> Ints:
        """Return the numbers of the patients that a figure rests on, each once."""

    def curves(self) -> dict[str, Any]:
        """Return what is drawn, ready for JSON."""


def ones(truth: Truth) -> Weights:
    """Return the weights with which every patient counts once."""
    return np.ones(len(truth.patients))


def category_numbers(truth: Truth, name: str) -> list[int]:
    """Return the number of a category's name; those of every category for :data:`ALL`."""
    names = truth.categories.names
    return list(range(len(names))) if name == ALL else [names.index(name)]


def weighted_mean(values: npt.NDArray[np.float64], weights: Weights) -> float:
    """Return the mean of those values that are not NaN; NaN if there is none, or none with a weight."""
    known = ~np.isnan(values)
    total = float(weights[known].sum())
    return float(values[known] @ weights[known]) / total if total > 0 else float("nan")


def nest(figures: Mapping[Key, Any]) -> dict[str, Any]:
    """Return figures by name as dictionaries in dictionaries."""
    nested: dict[str, Any] = {}
    for key, value in figures.items():
        inner = nested
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = value
    return nested
