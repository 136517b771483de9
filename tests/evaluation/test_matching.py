"""COCO's matching: one detection for a lesion, undecided regions ignored."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import GGO, Slice, block, make_case, make_detections, make_truth, perfect, square
from lung_d2.evaluation.matching import LENIENT_ROWS, STRICT_ROWS, TASKS, THRESHOLDS, match

AT_50 = STRICT_ROWS[0]


def match_all(slices, found, task="segm", area="all"):
    return match(*make_case(slices, found), task)[GGO, area]


def test_thresholds_are_where_their_rows_say():
    assert THRESHOLDS[LENIENT_ROWS] == pytest.approx(np.arange(0.1, 0.51, 0.05))
    assert THRESHOLDS[STRICT_ROWS] == pytest.approx(np.arange(0.5, 0.96, 0.05))
    assert THRESHOLDS[AT_50] == 0.5


@pytest.mark.parametrize("task", TASKS)
def test_second_detection_of_a_lesion_is_wrong(task):
    mask = square(10, 10, 12)
    matches = match_all([Slice([(GGO, mask)])], [(0, GGO, 0.6, mask), (0, GGO, 0.8, mask)], task)
    assert matches.scores.tolist() == [0.8, 0.6]
    assert matches.matched[AT_50].tolist() == [True, False]
    assert not matches.ignored.any()


def test_lesion_of_id_0_would_be_found_too():
    """The ids of a data set may begin at 0, which means no match to pycocotools."""
    mask = square(10, 10, 12)
    assert match_all([Slice([(GGO, mask)])], [(0, GGO, 0.5, mask)]).matched.all()


def test_other_category_does_not_match():
    mask = square(10, 10, 12)
    matches = match(make_truth([Slice([(1, mask)])]), make_detections([(0, GGO, 0.5, mask)]), "segm")
    assert not matches[GGO, "all"].matched.any()
    assert matches[GGO, "all"].lesion_slices.tolist() == []
    assert matches[1, "all"].lesion_slices.tolist() == [0]


def test_detection_in_an_undecided_region_is_ignored_at_its_share():
    """Of 10 columns 6 are undecided: ignored up to IoU 0.60."""
    matches = match_all([Slice(undecided=[(GGO, block(0, 0, 64, 16))])], [(0, GGO, 0.5, block(5, 10, 10, 10))])
    assert matches.ignored[:, 0].tolist() == (THRESHOLDS <= 0.6 + 1e-9).tolist()
    assert matches.lesion_slices.tolist() == []


def test_sizes_are_those_of_masks_and_not_of_boxes():
    ring = square(4, 4, 40) & ~square(6, 6, 36)  # a box of 1600 pixels, a mask of 304
    slices = [Slice([(GGO, ring)])]
    assert match_all(slices, perfect(slices), area="small").matched.all()
    assert not match_all(slices, perfect(slices), area="medium").lesion_slices.size


def test_many_detections_are_cut_at_100():
    found = [(0, GGO, (index + 1) / 1000, square(0, 0, 5)) for index in range(300)]
    matches = match_all([Slice()], found)
    assert len(matches.scores) == 100
    assert matches.scores.min() == 0.201


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found_is_nothing_matched(task):
    matches = match_all([Slice([(GGO, square(0, 0, 9))])], [], task)
    assert matches.matched.shape == (len(THRESHOLDS), 0)
    assert matches.lesion_slices.tolist() == [0]
