"""Regions chained over the slices of a series."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, block, make_case, perfect, random_case, square, weigh
from lung_d2.evaluation.froc import IMAGE_RATES, SERIES_RATES, Froc, Responses, chain_regions, chain_scores
from lung_d2.evaluation.overlaps import measure_overlaps
from lung_d2.masks import encode_mask


def encode(*masks):
    return [encode_mask(mask) for mask in masks]


def test_overlap_on_neighbouring_slices_makes_a_chain():
    masks = encode(square(0, 0, 10), square(2, 2, 10), square(40, 40, 10), square(4, 4, 10))
    assert chain_regions([3, 4, 4, 5], masks).tolist() == [0, 0, 1, 0]


def test_slice_between_parts_a_chain():
    masks = encode(square(0, 0, 10), square(0, 0, 10))
    assert chain_regions([3, 5], masks).tolist() == [0, 1]


def test_a_tenth_of_the_smaller_is_enough():
    """A block of 10 columns shares one with its neighbour, or none."""
    masks = encode(block(0, 0, 4, 30), block(0, 29, 4, 10), block(10, 0, 4, 30), block(10, 30, 4, 10))
    assert chain_regions([0, 1, 0, 1], masks).tolist() == [0, 0, 1, 2]


def test_less_than_a_tenth_is_not():
    masks = encode(block(0, 0, 4, 30), block(0, 29, 4, 11))
    assert chain_regions([0, 1], masks).tolist() == [0, 1]


def test_regions_of_one_slice_are_chained_through_another():
    masks = encode(block(0, 0, 4, 10), block(0, 20, 4, 10), block(0, 0, 4, 30))
    assert chain_regions([0, 0, 1], masks).tolist() == [0, 0, 0]


def test_many_regions_are_chained():
    """More than pycocotools takes at once for their areas."""
    assert chain_regions(range(300), encode(*[square(1, 1, 5)] * 300)).tolist() == [0] * 300


def test_nothing_has_no_chain():
    assert chain_regions([], []).tolist() == []
    assert chain_scores([], [], []) == []


def test_chain_has_the_highest_score_of_its_regions():
    masks = encode(square(0, 0, 10), square(0, 0, 10), square(40, 40, 10))
    assert chain_scores([0, 1, 1], masks, [0.3, 0.8, 0.5]) == [0.8, 0.5]


def test_bridge_of_low_score_undoes_no_chain():
    """Two chains at 0.9 and 0.8, joined at 0.2; another at 0.1 makes two again, which were two before."""
    masks = encode(block(0, 0, 4, 10), block(0, 20, 4, 10), block(0, 0, 4, 30), square(50, 50, 5), square(40, 0, 5))
    assert chain_scores([0, 0, 1, 1, 0], masks, [0.9, 0.8, 0.2, 0.1, 0.05]) == [0.9, 0.8, 0.05]


def test_regions_of_one_score_come_together():
    """Two apart that a third of the same score joins were never two."""
    masks = encode(block(0, 0, 4, 10), block(0, 20, 4, 10), block(0, 0, 4, 30))
    assert chain_scores([0, 0, 1], masks, [0.5, 0.5, 0.5]) == [0.5]


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
