"""Calibration: the share of detections that keep what their score promises."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_detections, make_truth, random_case, square
from lung_d2.evaluation.calibration import Calibration
from lung_d2.evaluation.matching import STRICT_ROWS, match

LESION, AWAY = square(5, 5, 12), square(40, 40, 12)
NAME = "ground_glass_opacity"


def build(slices, found):
    truth = make_truth(slices)
    matches = match(truth, make_detections(found), "segm")
    return Calibration(truth, matches), matches


def measure(slices, found, name=NAME, weights=(1.0,)):
    return build(slices, found)[0].at(np.array(weights))["ece", name]


def test_error_is_the_mean_distance_over_bins_by_detections():
    """Bin 0.9 to 1: two of score 0.95, one right; bin 0.2 to 0.3: one of score 0.25, wrong."""
    slices = [Slice([(GGO, LESION)])]
    found = [(0, GGO, 0.95, LESION), (0, GGO, 0.95, AWAY), (0, GGO, 0.25, AWAY)]
    assert measure(slices, found) == pytest.approx((2 * abs(0.5 - 0.95) + 1 * 0.25) / 3)


def test_sure_and_right_has_no_error():
    assert measure([Slice([(GGO, LESION)])], [(0, GGO, 1.0, LESION)]) == 0
    assert measure([Slice([(GGO, LESION)])], [(0, GGO, 0.0, AWAY)]) == 0


def test_second_detection_of_a_lesion_is_wrong():
    assert measure([Slice([(GGO, LESION)])], [(0, GGO, 1.0, LESION), (0, GGO, 0.99, LESION)]) == pytest.approx(0.495)


def test_detection_in_undecided_tissue_is_left_out():
    slices = [Slice([(GGO, LESION)], [(GGO, square(30, 30, 34))])]
    assert measure(slices, [(0, GGO, 1.0, LESION), (0, GGO, 0.9, AWAY)]) == 0


def test_without_detections_nothing_is_defined():
    metric, _ = build([Slice([(GGO, LESION)])], [])
    assert np.isnan(metric.at(np.ones(1))["ece", NAME])
    assert metric.curves() == {}
    assert not len(metric.patients_of(("ece", NAME)))


def test_categories_are_apart_and_together():
    slices = [Slice([(GGO, LESION)])]
    found = [(0, GGO, 1.0, LESION), (0, BRONCHIECTASIS, 0.6, LESION)]
    assert [measure(slices, found, name) for name in (NAME, "bronchiectasis", "all")] == pytest.approx([0, 0.6, 0.3])


def test_weight_is_the_number_of_times_a_patient_is_there():
    slices = [Slice([(GGO, LESION)], patient="a"), Slice(patient="b")]
    found = [(0, GGO, 0.95, LESION), (1, GGO, 0.95, AWAY)]
    assert measure(slices, found, weights=(3.0, 1.0)) == pytest.approx(0.95 - 3 / 4)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_draws_the_same_diagram(seed):
    metric, matches = build(*random_case(seed))
    own = matches[GGO, "all"]
    counted = ~own.ignored[STRICT_ROWS[0]]
    right, score = calibration_curve(own.matched[STRICT_ROWS[0]][counted], own.scores[counted], n_bins=10)
    diagram = metric.curves()[NAME]
    assert diagram["share_correct"] == pytest.approx(right)
    assert diagram["mean_score"] == pytest.approx(score)
    assert sum(diagram["detections"]) == counted.sum()
