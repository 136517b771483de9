"""Figures by name, and means of what is defined."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import Slice, make_truth
from lung_d2.evaluation.figures import ALL, category_numbers, nest, ones, weighted_mean

NAN = float("nan")


def test_names_become_dictionaries_in_dictionaries():
    assert nest({("a", "b"): 1, ("a", "c"): 2, ("d",): 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [([1, 2, 6], [1, 1, 1], 3), ([1, NAN, 6], [1, 5, 4], 5), ([NAN], [1], NAN), ([1, NAN], [0, 1], NAN), ([], [], NAN)],
)
def test_mean_is_of_what_is_known_and_has_weight(values, weights, mean):
    assert weighted_mean(np.array(values, float), np.array(weights, float)) == pytest.approx(mean, nan_ok=True)


def test_categories_go_by_their_place():
    truth = make_truth([Slice()])
    assert [category_numbers(truth, name) for name in (ALL, *truth.categories.names)] == [[0, 1], [0], [1]]


def test_every_patient_counts_once():
    assert ones(make_truth([Slice(patient="a"), Slice(patient="a"), Slice(patient="b")])).tolist() == [1, 1]
