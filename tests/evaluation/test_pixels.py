"""Pixels of lesions, of detections, and of both."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, block, make_case, random_case
from lung_d2.evaluation.pixels import count_pixels, dice_of


def count(slices, found, threshold=0.5):
    return count_pixels(*make_case(slices, found), threshold)


def rows(pixels, place):
    return [int(one[place]) for one in (pixels.lesion, pixels.found, pixels.both)]


def test_regions_of_a_category_count_once_together():
    slices = [Slice([(GGO, block(0, 0, 10, 10)), (GGO, block(0, 5, 10, 10))])]
    found = [(0, GGO, 0.9, block(0, 10, 10, 10)), (0, GGO, 0.6, block(0, 12, 10, 10))]
    assert rows(count(slices, found), (0, GGO)) == [150, 120, 50]


def test_detections_below_the_threshold_do_not_count():
    found = [(0, GGO, 0.5, block(0, 0, 5, 5)), (0, GGO, 0.49, block(20, 20, 5, 5))]
    assert rows(count([Slice()], found), (0, GGO)) == [0, 25, 0]


def test_undecided_pixels_count_in_neither():
    """Columns 5 to 15 are undecided; lesion, found and both lose what they have there."""
    slices = [Slice([(GGO, block(0, 0, 10, 10))], [(GGO, block(0, 5, 64, 5)), (GGO, block(0, 8, 64, 7))])]
    assert rows(count(slices, [(0, GGO, 0.9, block(0, 3, 10, 20))]), (0, GGO)) == [50, 100, 20]


def test_categories_are_apart():
    pixels = count([Slice([(GGO, block(0, 0, 5, 5))])], [(0, BRONCHIECTASIS, 0.9, block(0, 0, 5, 5))])
    assert rows(pixels, (0, GGO)) == [25, 0, 0]
    assert rows(pixels, (0, BRONCHIECTASIS)) == [0, 25, 0]


def test_dice_is_by_slice_and_not_defined_of_nothing():
    slices = [Slice([(GGO, block(0, 0, 10, 10))]), Slice(), Slice()]
    found = [(0, GGO, 0.9, block(0, 5, 10, 10)), (1, GGO, 0.9, block(0, 0, 3, 3))]
    assert count(slices, found).dice().tolist() == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_scipy_says_the_same(seed):
    slices, found = random_case(seed)
    slices = [Slice(one.lesions, (), one.patient) for one in slices]
    pixels = count(slices, found, 0.3)
    dice = dice_of(pixels.lesion, pixels.found, pixels.both)
    nothing = np.zeros((64, 64), bool)
    for number, one in enumerate(slices):
        for category in (GGO, BRONCHIECTASIS):
            there = np.any([nothing, *(mask for kind, mask in one.lesions if kind == category)], axis=0)
            own = [mask for place, kind, score, mask in found if (place, kind) == (number, category) and score >= 0.3]
            seen = np.any([nothing, *own], axis=0)
            if there.any() or seen.any():
                expected = 1 - distance.dice(there.ravel(), seen.ravel())
                assert dice[number, category] == pytest.approx(expected)
            else:
                assert np.isnan(dice[number, category])
