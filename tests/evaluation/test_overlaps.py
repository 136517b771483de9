"""Hits, false positives and excused detections."""

from __future__ import annotations

import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, block, make_case, square
from lung_d2.evaluation.overlaps import measure_overlaps


def measure(slices, found):
    return measure_overlaps(*make_case(slices, found))


def test_iou_is_that_of_masks():
    (one,) = measure([Slice([(GGO, block(0, 0, 10, 10))])], [(0, GGO, 0.5, block(0, 5, 10, 10))])
    assert one.iou.tolist() == [[pytest.approx(50 / 150)]]
    assert one.hits.tolist() == [[True]]


@pytest.mark.parametrize(("shared", "is_hit"), [(1, False), (2, True)])
def test_hit_begins_at_an_iou_of_a_tenth(shared, is_hit):
    """Of 11 columns each, 2 shared of 20 together are a tenth, 1 of 21 is less."""
    (one,) = measure([Slice([(GGO, block(0, 0, 8, 11))])], [(0, GGO, 0.5, block(0, 11 - shared, 8, 11))])
    assert one.hits.tolist() == [[is_hit]]
    assert one.false.tolist() == [not is_hit]


def test_one_detection_may_hit_two_lesions():
    slices = [Slice([(GGO, block(0, 0, 10, 10)), (GGO, block(0, 20, 10, 10))])]
    (one,) = measure(slices, [(0, GGO, 0.5, block(0, 0, 10, 30))])
    assert one.hits.tolist() == [[True, True]]


def test_other_category_is_no_hit():
    mask = square(5, 5, 10)
    lesion, alarm = measure([Slice([(GGO, mask)])], [(0, BRONCHIECTASIS, 0.5, mask)])
    assert (lesion.category, lesion.iou.shape) == (GGO, (0, 1))
    assert (alarm.category, alarm.false.tolist()) == (BRONCHIECTASIS, [True])


@pytest.mark.parametrize(("columns", "is_excused"), [(4, False), (5, True)])
def test_half_of_it_undecided_is_an_excuse(columns, is_excused):
    """The undecided columns are those of two regions together."""
    regions = [(GGO, block(0, 0, 64, 2)), (GGO, block(0, 2, 64, columns - 2))]
    (one,) = measure([Slice(undecided=regions)], [(0, GGO, 0.5, block(5, 0, 10, 10))])
    assert one.undecided_share.tolist() == [pytest.approx(columns / 10)]
    assert (one.excused.tolist(), one.false.tolist()) == ([is_excused], [not is_excused])


def test_hit_needs_no_excuse():
    mask = square(5, 5, 10)
    (one,) = measure([Slice([(GGO, mask)], undecided=[(GGO, square(0, 0, 40))])], [(0, GGO, 0.5, mask)])
    assert (one.excused.tolist(), one.false.tolist()) == ([False], [False])


def test_undecided_of_another_category_is_no_excuse():
    (one,) = measure([Slice(undecided=[(BRONCHIECTASIS, square(0, 0, 40))])], [(0, GGO, 0.5, square(5, 5, 10))])
    assert one.false.tolist() == [True]


def test_lesion_without_detection_and_empty_mask_are_there():
    empty = square(0, 0, 0)
    missed, alarm = measure([Slice([(GGO, square(5, 5, 9))]), Slice()], [(1, GGO, 0.5, empty)])
    assert missed.hits.shape == (0, 1)
    assert alarm.false.tolist() == [True]
