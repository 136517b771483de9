"""Slices as cases: calls and AUC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

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
from lung_d2.evaluation.dice import count_pixels
from lung_d2.evaluation.overlaps import measure_overlaps
from lung_d2.evaluation.slice_level import SliceLevel, measure_auc, rank_slices

LESION, AWAY = square(5, 5, 12), square(40, 40, 12)
NAME = "ground_glass_opacity"


def build(slices, found, threshold=0.5):
    truth, detections = make_case(slices, found)
    return SliceLevel(truth, measure_overlaps(truth, detections), threshold)


def measure(slices, found, name=NAME, weights=None, threshold=0.5):
    metric = build(slices, found, threshold)
    figures = metric.at(weigh(make_truth(slices), weights))
    return [figures[kind, name] for kind in ("sensitivity", "specificity", "auc")]


def test_calls_are_by_the_highest_score_wherever_it_lies():
    slices = [Slice([(GGO, LESION)]), Slice([(GGO, LESION)]), Slice(), Slice(), Slice()]
    found = [(0, GGO, 0.5, AWAY), (0, GGO, 0.1, LESION), (1, GGO, 0.4, LESION), (2, GGO, 0.45, AWAY)]
    # Positive 0.5 and 0.4, negative 0.45 and two without: five of six pairs are right.
    assert measure(slices, found) == pytest.approx([1 / 2, 1.0, 5 / 6])


def test_truth_is_all_right():
    slices = [Slice([(GGO, LESION)]), Slice([(BRONCHIECTASIS, LESION)]), Slice()]
    for name in (NAME, "bronchiectasis", "all"):
        assert measure(slices, perfect(slices), name) == [1, 1, 1]


def test_nothing_found_is_chance():
    assert measure([Slice([(GGO, LESION)]), Slice()], []) == [0, 1, 0.5]


def test_without_negatives_there_is_sensitivity_alone():
    assert measure([Slice([(GGO, LESION)])], [(0, GGO, 0.9, LESION)]) == pytest.approx([1, np.nan, np.nan], nan_ok=True)


def test_slice_with_another_category_is_negative_and_positive_for_all():
    slices = [Slice([(BRONCHIECTASIS, LESION)])]
    assert measure(slices, [])[1] == 1
    assert measure(slices, [], "all")[0] == 0


def test_undecided_slice_is_left_out_and_excused_detections_do_not_count():
    unknown = [(GGO, square(30, 30, 34))]
    slices = [Slice(undecided=unknown), Slice([(GGO, LESION)], unknown), Slice()]
    found = [(0, GGO, 0.9, LESION), (1, GGO, 0.9, AWAY)]
    assert measure(slices, found) == [0, 1, 0.5]
    counts = build(slices, found).curves()["counts"]
    assert counts[NAME] == counts["all"] == {"positive": 1, "negative": 1, "left_out": 1}
    assert counts["bronchiectasis"] == {"positive": 0, "negative": 3, "left_out": 0}


def test_false_positives_are_those_of_a_slice_at_the_threshold():
    """Slice 0: a hit, a false one, a low one, an excused one; slice 1: two false ones of two categories."""
    slices = [Slice([(GGO, LESION)], [(GGO, square(0, 30, 30))], "a"), Slice(patient="b")]
    found = [(0, GGO, 0.9, LESION), (0, GGO, 0.5, AWAY), (0, GGO, 0.49, AWAY), (0, GGO, 0.9, square(5, 35, 12))]
    found += [(1, GGO, 0.9, LESION), (1, BRONCHIECTASIS, 0.9, LESION)]
    metric = build(slices, found)
    figures = metric.at(np.array([1.0, 3.0]))
    names = (NAME, "bronchiectasis", "all")
    assert [figures["false_positives", name] for name in names] == [1.0, 0.75, 1.75]
    assert metric.patients_of(("false_positives", NAME)).tolist() == [0, 1]


def test_weight_is_the_number_of_times_a_patient_is_there():
    slices = [Slice([(GGO, LESION)], patient="a"), Slice([(GGO, LESION)], patient="b"), Slice(patient="b")]
    found = [(0, GGO, 0.9, LESION), (2, GGO, 0.95, AWAY)]
    assert measure(slices, found, weights=[3, 1]) == pytest.approx([3 / 4, 0, 0])


def test_figures_rest_on_patients_with_such_slices():
    metric = build([Slice([(GGO, LESION)], patient="a"), Slice(patient="a"), Slice(patient="b")], [])
    kinds = ("sensitivity", "specificity", "auc")
    assert [len(metric.patients_of((kind, NAME))) for kind in kinds] == [1, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_says_the_same(seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 12, 80) / 12, rng.integers(0, 2, 80).astype(float)
    weights = rng.integers(0, 4, 80).astype(float)
    expected = roc_auc_score(positive, scores, sample_weight=weights)
    assert measure_auc(scores, positive, weights) == pytest.approx(expected)
    assert 0.2 < expected < 0.8


SMALL = block(0, 0, 10, 10)


def rank(slices, found, count=6):
    truth = make_truth(slices)
    return rank_slices(truth, count_pixels(truth, make_detections(found), 0.5), count)


def numbers(ranked):
    return {kind: [one["slice"] for one in listed] for kind, listed in ranked.items()}


def test_most_extreme_come_first():
    slices = [Slice([(GGO, SMALL)]) for _ in range(4)]
    found = [(number, GGO, 0.9, block(0, shift, 10, 10)) for number, shift in enumerate((4, 0, 8, 2))]
    assert numbers(rank(slices, found)) == {"best": [1, 3], "worst": [2, 0]}
    assert numbers(rank(slices, found, 1)) == {"best": [1], "worst": [2]}


def test_of_the_same_dice_most_wrong_pixels_are_worst():
    slices = [
        Slice([(GGO, block(0, 0, 5, 5))]),
        Slice([(GGO, SMALL)]),
        Slice(),
        Slice([(GGO, SMALL)]),
    ]
    found = [(2, GGO, 0.9, block(0, 0, 9, 9)), (3, GGO, 0.9, SMALL)]
    assert numbers(rank(slices, found)) == {"best": [3], "worst": [1, 2, 0]}


def test_slice_with_neither_is_not_ranked():
    assert numbers(rank([Slice(), Slice([(GGO, SMALL)])], [])) == {"best": [], "worst": [1]}
    assert numbers(rank([Slice()], [])) == {"best": [], "worst": []}


def test_entry_says_what_was_missed():
    (one,) = rank([Slice([(GGO, SMALL)], series="s", slice_index=7)], [(0, GGO, 0.9, block(0, 6, 10, 10))])["best"]
    assert one == {
        "slice": 0,
        "dataset": "made_val",
        "file_name": "0.png",
        "series": "s",
        "slice_index": 7,
        "dice": 0.4,
        "lesion": 100,
        "missed": 60,
        "false": 60,
    }
