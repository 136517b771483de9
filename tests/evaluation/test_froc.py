"""FROC of slices and of series, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_case, perfect, random_case, square, weigh
from lung_d2.evaluation.froc import IMAGE_RATES, SERIES_RATES, Froc
from lung_d2.evaluation.overlaps import measure_overlaps

LEFT, RIGHT, LOW = square(5, 5, 12), square(5, 40, 12), square(40, 5, 12)
# Patient a: a lesion on both slices; patient b: a lesion on the first alone.
SLICES = [
    Slice([(GGO, LEFT)], patient="a", slice_index=0),
    Slice([(GGO, LEFT)], patient="a", slice_index=1),
    Slice([(GGO, RIGHT)], patient="b", slice_index=0),
    Slice(patient="b", slice_index=1),
]
# The lesion of a on one slice; a vessel of b on both slices, and one more false positive.
FOUND = [
    (0, GGO, 0.9, LEFT),
    (2, GGO, 0.8, LOW),
    (3, GGO, 0.7, LOW),
    (2, GGO, 0.6, RIGHT),
    (0, GGO, 0.5, RIGHT),
]


def build(slices=SLICES, found=FOUND):
    truth, detections = make_case(slices, found)
    return Froc(truth, detections, measure_overlaps(truth, detections)), weigh(truth)


def at(curve, name="ground_glass_opacity", **case):
    froc, weights = build(**case)
    figures = froc.at(weights)
    return [figures[key] for key in figures if key[:2] == (curve, name) and key[2] != "mean"]


def test_rates_are_those_of_the_fields():
    assert SERIES_RATES == (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
    assert IMAGE_RATES == (0.5, 1, 2, 4, 8, 16)


def test_lesions_of_slices_per_image():
    """Three lesions, four slices, false positives at 0.8, 0.7, 0.5: at 1/2, two of them, 0.9 and 0.6 are kept."""
    assert at("slice_per_image") == pytest.approx([2 / 3] * 6)


def test_lesions_of_slices_per_series():
    """Two series: up to 1/4 no false positive, at 1/2 one, at 1 two, at 2 all."""
    assert at("slice_per_series") == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_lesions_of_series_per_series():
    """Two lesions, both found, by 0.9 and 0.6; the vessel is one false positive, so that one is enough for 0.6."""
    assert at("series_per_series") == pytest.approx([1 / 2, 1 / 2, 1, 1, 1, 1, 1])


def test_mean_is_over_the_rates():
    froc, weights = build()
    assert froc.at(weights)["slice_per_series", "ground_glass_opacity", "mean"] == pytest.approx((3 / 3 + 8 / 3) / 7)


def test_thresholds_are_those_that_the_rates_need():
    own = build()[0].curves()["series_per_series"]["ground_glass_opacity"]
    assert own["thresholds"] == {"0.125": 0.9, "0.25": 0.9, "0.5": 0.6, "1": 0.0, "2": 0.0, "4": 0.0, "8": 0.0}
    assert own["lesions"] == 2


def test_second_detection_of_a_lesion_counts_neither_way():
    again = [*FOUND, *((0, GGO, score, LEFT) for score in (0.99, 0.95, 0.85))]
    assert at("slice_per_series", found=again) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_detection_in_undecided_tissue_counts_neither_way():
    slices = [*SLICES[:2], Slice([(GGO, RIGHT)], [(GGO, square(35, 0, 29))], "b", slice_index=0), SLICES[3]]
    found = [one for one in FOUND if one[2] != 0.7]
    assert at("slice_per_series", slices=slices, found=found) == pytest.approx([1 / 3 + 1 / 3] * 7)


def test_categories_are_apart_and_together():
    slices = [Slice([(GGO, LEFT), (BRONCHIECTASIS, RIGHT)])]
    found = [(0, GGO, 0.9, LEFT), (0, GGO, 0.8, LOW), (0, BRONCHIECTASIS, 0.7, RIGHT)]
    assert at("slice_per_image", "bronchiectasis", slices=slices, found=found)[0] == 1
    assert at("slice_per_image", "all", slices=slices, found=found)[:2] == [0.5, 1.0]


def test_truth_is_all_found_without_false_positives():
    assert at("slice_per_series", found=perfect(SLICES)) == [1.0] * 7
    assert at("series_per_series", found=perfect(SLICES)) == [1.0] * 7


def test_nothing_found_is_0_and_nothing_there_is_not_defined():
    assert at("slice_per_image", found=[]) == [0.0] * 6
    assert np.isnan(at("slice_per_image", "bronchiectasis")).all()
    assert "bronchiectasis" not in build()[0].curves()["slice_per_image"]


def test_without_lesions_there_is_no_sensitivity_but_a_threshold():
    """Four false positives on two slices: the best is kept at 1/2 per image, both of 0.7 or none at 1."""
    found = [(0, GGO, 0.9, LEFT), (0, GGO, 0.7, RIGHT), (1, GGO, 0.7, LOW), (1, GGO, 0.2, LEFT)]
    own = build([Slice(), Slice()], found)[0].curves()["slice_per_image"]["ground_glass_opacity"]
    assert own["lesions"] == 0
    assert {rate: own["thresholds"][rate] for rate in ("0.5", "1", "2")} == {"0.5": 0.9, "1": 0.9, "2": 0.0}
    assert np.isnan(own["sensitivity"]).all()


def test_threshold_is_the_least_score_that_may_be_kept():
    """The second hit of the lesion at 0.6 adds no false positive, so that its score will do."""
    found = [(0, GGO, 0.9, LEFT), (0, GGO, 0.6, LEFT), (0, GGO, 0.5, LOW), (0, GGO, 0.4, RIGHT)]
    own = build([Slice([(GGO, LEFT)])], found)[0].curves()["slice_per_image"]["ground_glass_opacity"]
    assert own["thresholds"]["0.5"] == 0.6


def test_further_rates_are_read_beside_the_usual_ones_and_stay_out_of_the_mean():
    truth, detections = make_case(SLICES, FOUND)
    froc = Froc(truth, detections, measure_overlaps(truth, detections), (3.0,))
    figures, usual = froc.at(weigh(truth)), build()[0].at(weigh(truth))
    assert {key: value for key, value in figures.items() if key[2] != "3"} == pytest.approx(usual, nan_ok=True)
    assert figures["slice_per_series", "ground_glass_opacity", "3"] == pytest.approx(2 / 3)
    assert froc.curves()["slice_per_series"]["ground_glass_opacity"]["thresholds"]["3"] == 0.0


def test_patients_are_those_with_lesions():
    froc, _ = build()
    names = ("all", "ground_glass_opacity", "bronchiectasis")
    assert [len(froc.patients_of(("series_per_series", name, "1"))) for name in names] == [2, 2, 0]


def sweep(slices, found, category):
    """Try every score as the threshold, on pixels: the best sensitivity at each rate of false positives per image."""

    def count(threshold):
        hit, false = set(), 0
        for number, own, score, mask in found:
            if own != category or score < threshold:
                continue
            lesions = [index for index, (kind, _) in enumerate(slices[number].lesions) if kind == category]
            overlaps = {index: slices[number].lesions[index][1] for index in lesions}
            hits = {(number, i) for i, other in overlaps.items() if (mask & other).sum() >= 0.1 * (mask | other).sum()}
            unknown = np.any([np.zeros_like(mask), *(m for k, m in slices[number].undecided if k == category)], axis=0)
            hit |= hits
            false += not hits and (mask & unknown).sum() < 0.5 * mask.sum()
        return false / len(slices), len(hit)

    lesions = sum(kind == category for one in slices for kind, _ in one.lesions)
    points = [count(threshold) for threshold in [2.0, *(score for _, _, score, _ in found)]]
    return [max(found for rate, found in points if rate <= most) / lesions for most in IMAGE_RATES]


@pytest.mark.parametrize("seed", range(4))
def test_sweep_over_all_thresholds_says_the_same(seed):
    slices, found = random_case(seed)
    for category, name in enumerate(("ground_glass_opacity", "bronchiectasis")):
        own = at("slice_per_image", name, slices=slices, found=found)
        assert own == pytest.approx(sweep(slices, found, category))
        assert 0 < own[0] < 1
