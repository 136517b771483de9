"""The image-mean AP of COVID-CT-Mask-Net, by hand from its definition."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import (
    BRONCHIECTASIS,
    GGO,
    Slice,
    block,
    make_case,
    make_detections,
    make_truth,
    perfect,
    square,
    weigh,
)
from lung_d2.evaluation.image_mean_ap import ImageMeanAP
from lung_d2.evaluation.overlaps import measure_overlaps

LESION, OTHER, AWAY = square(5, 5, 12), square(5, 40, 12), square(40, 5, 12)


def measure(slices, found, variant="two_classes", metric="AP", weights=None):
    truth, detections = make_case(slices, found)
    built = ImageMeanAP(truth, detections, measure_overlaps(truth, detections))
    return built.at(weigh(truth, weights))[variant, metric]


@pytest.mark.parametrize("variant", ["two_classes", "merged"])
def test_truth_scores_100(variant):
    slices = [Slice([(GGO, LESION), (BRONCHIECTASIS, OTHER)]), Slice()]
    assert measure(slices, perfect(slices), variant) == pytest.approx(100)


@pytest.mark.parametrize(
    ("slices", "found", "expected"),
    [
        ([Slice()], [], 100),
        ([Slice()], [(0, GGO, 0.5, LESION)], 0),
        ([Slice([(GGO, LESION)])], [], 0),
        ([Slice(), Slice([(GGO, LESION)])], [], 50),
        ([Slice([(GGO, LESION)])], [(0, GGO, 0.05, LESION)], 0),  # a score that does not count
        ([Slice()], [(0, GGO, 0.05, LESION)], 100),
        ([Slice([(GGO, square(5, 5, 10))])], [], 100),  # 100 pixels are dropped
        ([Slice([(GGO, block(5, 5, 1, 50) | block(5, 5, 52, 1))])], [], 0),  # 101 pixels are not
        ([Slice([(GGO, square(5, 5, 10))])], [(0, GGO, 0.9, square(5, 5, 10))], 0),  # nor is what was found there
    ],
)
def test_empty_slices_and_small_regions(slices, found, expected):
    assert measure(slices, found) == pytest.approx(expected)


@pytest.mark.parametrize("category", [GGO, BRONCHIECTASIS])
def test_of_equal_scores_the_first_of_the_file_goes_first(category):
    found = [(0, category, 0.9, LESION), (0, 1 - category, 0.9, OTHER)]
    assert measure([Slice([(category, LESION)])], found) == pytest.approx(100)
    assert measure([Slice([(category, LESION)])], found[::-1]) == pytest.approx(50)


def test_precision_of_a_slice_is_its_area_under_recall():
    """Right, wrong, right of two: precision 1 up to recall 1/2, then 2/3."""
    slices = [Slice([(GGO, LESION), (GGO, OTHER)])]
    found = [(0, GGO, 0.9, LESION), (0, GGO, 0.8, AWAY), (0, GGO, 0.7, OTHER)]
    assert measure(slices, found) == pytest.approx(100 * (1 / 2 * 1 + 1 / 2 * 2 / 3))
    assert measure(slices, found[:2]) == pytest.approx(50)


def test_categories_are_ranked_together_and_matched_apart():
    slices = [Slice([(GGO, LESION)])]
    found = [(0, BRONCHIECTASIS, 0.9, LESION), (0, GGO, 0.8, LESION)]
    assert measure(slices, found) == pytest.approx(50)
    assert measure(slices, found, "merged") == pytest.approx(100)


def test_region_takes_the_detection_of_the_highest_iou():
    """The one that matches best is second by score: right at rank 2 alone."""
    near = np.roll(LESION, 1, axis=0)
    slices = [Slice([(GGO, LESION)])]
    assert measure(slices, [(0, GGO, 0.9, near), (0, GGO, 0.8, LESION)]) == pytest.approx(50)


def test_one_detection_may_be_taken_twice():
    """Both regions are three fifths of it: one of two counts as found, at IoU 0.50 and 0.55."""
    slices = [Slice([(GGO, block(0, 0, 10, 30)), (GGO, block(0, 20, 10, 30))])]
    assert measure(slices, [(0, GGO, 0.9, block(0, 0, 10, 50))], metric="AP50") == pytest.approx(50)
    assert measure(slices, [(0, GGO, 0.9, block(0, 0, 10, 50))]) == pytest.approx(50 * 2 / 10)


def test_iou_has_to_be_above_the_threshold():
    """Half of the region found is an IoU of 0.5, which is not above 0.50."""
    slices = [Slice([(GGO, block(0, 0, 10, 20))])]
    assert measure(slices, [(0, GGO, 0.9, block(0, 0, 10, 10))], metric="AP50") == 0


def test_touching_regions_of_two_categories_merge_into_one():
    slices = [Slice([(GGO, block(0, 0, 10, 20)), (BRONCHIECTASIS, block(0, 20, 10, 20))])]
    found = [(0, GGO, 0.9, block(0, 0, 10, 40))]
    assert measure(slices, found, "merged") == pytest.approx(100)
    assert measure(slices, found) == 0


def test_small_regions_merge_into_one_that_counts():
    slices = [Slice([(GGO, square(0, 0, 10)), (BRONCHIECTASIS, block(0, 10, 10, 10))])]
    assert measure(slices, [], "merged") == 0
    assert measure(slices, []) == pytest.approx(100)


def test_detection_in_undecided_tissue_does_not_count():
    slices = [Slice(undecided=[(GGO, square(0, 0, 40))])]
    assert measure(slices, [(0, GGO, 0.9, LESION)]) == pytest.approx(100)


def test_mean_is_over_slices_of_weighted_patients():
    slices = [Slice(patient="a"), Slice([(GGO, LESION)], patient="b")]
    assert measure(slices, [], weights=[3, 1]) == pytest.approx(75)


def test_published_figures_are_named_with_their_slices():
    truth, nothing = make_truth([Slice()]), make_detections([])
    metric = ImageMeanAP(truth, nothing, [])
    assert metric.curves() == {"published_on_its_own_100_slices": {"two_classes": 38.71, "merged": 44.68}}
    assert "own 100 slices only" in metric.definition
    assert metric.patients_of(("merged", "AP")).tolist() == [0]
