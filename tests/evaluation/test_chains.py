"""Regions chained over the slices of a series."""

from __future__ import annotations

from evaluation.samples import block, square
from lung_d2.evaluation.chains import chain_regions, chain_scores
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
