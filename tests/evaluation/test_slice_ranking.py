"""The best and worst slices."""

from __future__ import annotations

from evaluation.samples import GGO, Slice, block, make_detections, make_truth
from lung_d2.evaluation.pixels import count_pixels
from lung_d2.evaluation.slice_ranking import rank_slices

LESION = block(0, 0, 10, 10)


def rank(slices, found, count=6):
    truth = make_truth(slices)
    return rank_slices(truth, count_pixels(truth, make_detections(found), 0.5), count)


def numbers(ranked):
    return {kind: [one["slice"] for one in listed] for kind, listed in ranked.items()}


def test_most_extreme_come_first():
    slices = [Slice([(GGO, LESION)]) for _ in range(4)]
    found = [(number, GGO, 0.9, block(0, shift, 10, 10)) for number, shift in enumerate((4, 0, 8, 2))]
    assert numbers(rank(slices, found)) == {"best": [1, 3], "worst": [2, 0]}
    assert numbers(rank(slices, found, 1)) == {"best": [1], "worst": [2]}


def test_of_the_same_dice_most_wrong_pixels_are_worst():
    slices = [Slice([(GGO, block(0, 0, 5, 5))]), Slice([(GGO, LESION)]), Slice(), Slice([(GGO, LESION)])]
    found = [(2, GGO, 0.9, block(0, 0, 9, 9)), (3, GGO, 0.9, LESION)]
    assert numbers(rank(slices, found)) == {"best": [3], "worst": [1, 2, 0]}


def test_slice_with_neither_is_not_ranked():
    assert numbers(rank([Slice(), Slice([(GGO, LESION)])], [])) == {"best": [], "worst": [1]}
    assert numbers(rank([Slice()], [])) == {"best": [], "worst": []}


def test_entry_says_what_was_missed():
    (one,) = rank([Slice([(GGO, LESION)], series="s", slice_index=7)], [(0, GGO, 0.9, block(0, 6, 10, 10))])["best"]
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
