"""Sensitivity at a rate of false positives, of scores known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lung_d2.evaluation.responses import Responses


def respond(lesions, false, units=(2.0, 2.0), lesion_patients=None, false_patients=None):
    """Make responses of two patients with two slices each, all of patient 0 unless said otherwise."""
    return Responses(
        lesion_scores=np.array(lesions, float),
        lesion_patients=np.array(lesion_patients or [0] * len(lesions), np.int64),
        false_scores=np.array(false, float),
        false_patients=np.array(false_patients or [0] * len(false), np.int64),
        units=np.array(units),
        scores=np.sort(np.array([*(score for score in lesions if score >= 0), *false], float)),
    )


# Four slices, five lesions of which one is missed, four false positives.
FIVE = respond([0.9, 0.8, 0.5, 0.2, -1.0], [0.85, 0.6, 0.4, 0.1])


@pytest.mark.parametrize(
    ("rate", "found", "threshold"),
    [
        (0.0, 1 / 5, 0.9),  # no false positive: above 0.85
        (0.24, 1 / 5, 0.9),
        (0.25, 2 / 5, 0.8),  # one on four slices: above 0.6
        (0.5, 3 / 5, 0.5),  # two: above 0.4
        (0.75, 4 / 5, 0.2),  # three: above 0.1
        (1.0, 4 / 5, 0.0),  # all
        (16.0, 4 / 5, 0.0),
    ],
)
def test_sensitivity_is_that_of_the_lowest_score_allowed(rate, found, threshold):
    assert FIVE.sensitivities([rate], np.ones(2)).tolist() == [pytest.approx(found)]
    assert FIVE.threshold(rate) == threshold


def test_lesion_of_the_score_of_a_false_positive_too_many_is_not_found():
    assert respond([0.5, 0.5], [0.5, 0.1]).sensitivities([0.2, 0.25], np.ones(2)).tolist() == [0.0, 1.0]


def test_false_positives_of_one_score_are_all_kept_or_none():
    responses = respond([0.7, 0.5, 0.3], [0.6, 0.4, 0.4])
    assert responses.sensitivities([0.25, 0.5, 0.75], np.ones(2)).tolist() == pytest.approx([2 / 3, 2 / 3, 1.0])


def test_no_threshold_where_the_highest_score_is_a_false_positive():
    responses = respond([0.5], [0.9, 0.8])
    assert responses.threshold(0.1) is None
    assert responses.sensitivities([0.1], np.ones(2)).tolist() == [0.0]


def test_without_lesions_nothing_is_defined():
    assert np.isnan(respond([], [0.5]).sensitivities([1.0], np.ones(2))).all()


def test_without_detections_nothing_is_found():
    responses = respond([-1.0], [])
    assert responses.sensitivities([1.0], np.ones(2)).tolist() == [0.0]
    assert responses.curve() == {"false_positives": [0.0], "sensitivity": [0.0], "threshold": [0.0]}


def test_curve_rises_with_each_false_positive():
    curve = FIVE.curve()
    assert curve["false_positives"] == [0, 0.25, 0.5, 0.75, 1.0]
    assert curve["sensitivity"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert curve["threshold"] == [0.9, 0.8, 0.5, 0.2, 0.0]


def test_long_curve_is_thinned():
    curve = respond([0.5], np.linspace(1, 0, 5000)).curve()
    assert len(curve["false_positives"]) <= 200
    assert curve["false_positives"][0] == 0
    assert curve["false_positives"][-1] == 5000 / 4


def test_weight_is_the_number_of_times_a_patient_is_there():
    """Patient 0 twice, patient 1 not at all: twice the lesions, false positives and slices of patient 0."""
    both = respond([0.9, 0.5, 0.3], [0.8, 0.7, 0.2], (2.0, 2.0), [0, 1, 0], [1, 0, 0])
    doubled = respond([0.9, 0.9, 0.3, 0.3], [0.7, 0.7, 0.2, 0.2], (4.0, 0.0))
    rates = [0.1, 0.5, 1.0, 2.0]
    weighted = both.sensitivities(rates, np.array([2.0, 0.0]))
    assert weighted.tolist() == doubled.sensitivities(rates, np.ones(2)).tolist() == [0.5, 1.0, 1.0, 1.0]
