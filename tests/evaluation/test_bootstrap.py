"""Draws of patients, intervals, and differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lung_d2.errors import ConfigError
from lung_d2.evaluation.bootstrap import draw_patients, find_difference, find_interval, measure_draws


class Mean:
    """The mean of a number of each patient: the simplest metric there is."""

    group, definition = "mean", "mean"

    def __init__(self, values):
        self.values = np.array(values, float)

    def at(self, weights):
        return {("mean",): float(weights @ self.values / weights.sum())}

    def patients_of(self, key):
        return len(self.values)

    def curves(self):
        return {}


def draws_of(values, draws=2000, seed=0):
    return measure_draws(Mean(values), draw_patients(len(values), draws, seed))["mean",]


def interval_of(values, draws=2000, seed=0):
    found = find_interval(draws_of(values, draws, seed), len(values))
    return found.low, found.high


def test_draw_holds_as_many_patients_as_there_are():
    draws = draw_patients(7, 500)
    assert draws.shape == (500, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert draws.mean(axis=0) == pytest.approx([1] * 7, abs=0.15)


def test_seed_repeats_the_draws():
    assert np.array_equal(draw_patients(5, 10, 3), draw_patients(5, 10, 3))
    assert not np.array_equal(draw_patients(5, 10, 3), draw_patients(5, 10, 4))


def test_two_patients_have_three_means():
    """0 and 1 give 0 in a quarter of the draws, 1 in a quarter, 1/2 in half."""
    values = draws_of([0, 1], 4000)
    assert [(values == mean).mean() for mean in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert interval_of([0, 1]) == (0, 1)


def test_scipy_says_the_same():
    values = np.random.default_rng(1).gamma(2, size=30)
    expected = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    assert interval_of(values, 5000) == pytest.approx((expected.low, expected.high), rel=0.03)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (interval_of(rng.normal(size=25), 400) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.98


def test_one_patient_has_no_interval():
    assert interval_of([0.7]) == (None, None)


def test_draws_without_a_figure_are_left_out_and_most_are_needed():
    nan = float("nan")
    assert find_interval(np.array([1.0, nan, 2.0, 3.0]), 5).low == pytest.approx(1.05)
    assert find_interval(np.array([1.0, nan, nan]), 5).low is None
    assert find_interval(np.empty(0), 5).low is None


def test_no_draws_are_no_figures():
    assert measure_draws(Mean([1, 2]), draw_patients(2, 0)) == {}


@pytest.mark.parametrize(("draws", "seed"), [(-1, 0), (10, -1)])
def test_numbers_below_0_are_refused(draws, seed):
    with pytest.raises(ConfigError, match="expected 0 or more"):
        draw_patients(3, draws, seed)


def compare(ours, theirs):
    return find_difference(draws_of(ours), draws_of(theirs), len(ours))


def test_planted_difference_is_found_though_patients_differ_more():
    """Each patient gains 0.02 to 0.06, while patients lie between 0 and 1: only the pairing shows it."""
    rng = np.random.default_rng(0)
    theirs = rng.random(20)
    found = compare(theirs + rng.uniform(0.02, 0.06, 20), theirs)
    assert found.p < 0.01
    assert 0.02 < found.interval.low < 0.04 < found.interval.high < 0.06


def test_no_difference_is_not_found():
    rng = np.random.default_rng(1)
    base = rng.random(20)
    wrongly = [compare(base + rng.normal(0, 0.05, 20), base + rng.normal(0, 0.05, 20)).p < 0.05 for _ in range(60)]
    assert sum(wrongly) <= 8


def test_equal_results_have_p_1():
    found = compare([0.1, 0.5, 0.9], [0.1, 0.5, 0.9])
    assert (found.interval.low, found.interval.high, found.p) == (0, 0, 1)


@pytest.mark.parametrize(("patients", "least"), [(2, 0.5), (4, 0.125), (6, 1 / 32)])
def test_few_patients_that_agree_are_no_proof(patients, least):
    assert compare([0.9] * patients, [0.1] * patients).p == least


def test_p_is_of_both_sides():
    ours, theirs = [0.3, 0.4, 0.8, 0.7, 0.2, 0.9], [0.2, 0.5, 0.6, 0.6, 0.3, 0.7]
    assert compare(ours, theirs).p == compare(theirs, ours).p


def test_one_patient_says_nothing_of_a_difference():
    assert compare([0.9], [0.1]).p is None
