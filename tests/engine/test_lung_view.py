from __future__ import annotations

import numpy as np
import pytest

from lung_d2.engine.lung_view import BOX_MARGIN_MM, NEAR_MM, LungUse, LungView
from lung_d2.lungs.field import LungField
from tiny import volume_of

SHAPE = (20, 100, 120)  # 2 mm slices, 0.7 x 0.8 mm pixels
LUNGS = np.zeros(SHAPE, np.uint8)
LUNGS[8:11, 40:50, 50:70] = 1


def view(lungs=LUNGS, **use):
    volume = volume_of(np.zeros(SHAPE, np.int16))
    field = LungField(lungs.copy(), volume.spacing_mm)
    return LungView.of(volume, field, LungUse(**{"crop": True, **use}))


def test_slices_near_the_lungs_are_run():
    assert view().slices == list(range(8 - 5, 11 + 5))  # 10 mm
    assert NEAR_MM == 10


def test_slices_between_lungs_are_run_where_they_are_near():
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[[0, 19]] = 1
    assert view(lungs).slices == [*range(6), *range(14, 20)]


def test_all_slices_are_run_on_request():
    assert view(skip_slices=False).slices == list(range(20))


def test_window_is_the_box_with_a_margin_in_mm():
    rows, columns = view().window
    assert (rows.start, rows.stop) == (0, 50 + 43)  # 30 mm of 0.7 mm, as far as the slice goes
    assert (columns.start, columns.stop) == (50 - 38, 70 + 38)  # of 0.8 mm
    assert view().margin_mm == BOX_MARGIN_MM == 30


@pytest.mark.parametrize("crop", [False, None])
def test_window_is_the_whole_slice_without_a_crop(crop):
    seen = view(crop=crop)
    assert seen.window == (slice(0, 100), slice(0, 120))
    assert seen.margin_mm is None


@pytest.mark.parametrize("lungs", [None, np.zeros(SHAPE, np.uint8)], ids=["unknown", "empty"])
def test_everything_is_seen_and_counts_without_lungs(lungs):
    volume = volume_of(np.zeros(SHAPE, np.int16))
    field = None if lungs is None else LungField(lungs, volume.spacing_mm)
    seen = LungView.of(volume, field)
    assert seen.slices == list(range(20))
    assert seen.window == (slice(0, 100), slice(0, 120))
    assert seen.inside(0, np.ones((1, 100, 120), bool)).tolist() == [True]


def test_detections_count_of_which_half_lies_near_the_lungs():
    masks = np.zeros((4, *SHAPE[1:]), bool)
    masks[0, 42:48, 55:65] = True  # in the lungs
    masks[1, 52:62, 55:65] = True  # within 10 mm of them
    masks[2, 55:75, 0:30] = True  # beyond
    assert view().inside(9, masks).tolist() == [True, True, False, False]  # the last is empty
    assert view(drop_outside=False).inside(9, masks).tolist() == [True] * 4
    assert view().inside(2, masks).tolist() == [False] * 4  # of a slice without lungs
