from __future__ import annotations

import numpy as np
import pytest

from lung_d2.ct.grey import GreyLevels
from lung_d2.data.augment.grey_levels import AnyGrey

OURS = GreyLevels("any", -400.0, 1200.0)
HU = np.random.default_rng(0).integers(-1000, 200, (64, 64)).astype(np.int16)
GREY = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)


def vary(plane, seed, share=1.0):
    np.random.seed(seed)
    (varied,), grey = AnyGrey(share)([plane], OURS, [0.7, 0.7])
    return varied, grey


def test_slices_outside_the_share_keep_the_grey_levels_of_the_model():
    varied, grey = vary(HU, 0, share=0.0)
    assert varied is HU
    assert grey is OURS


@pytest.mark.parametrize("plane", [HU, GREY])
def test_whatever_is_drawn_makes_a_picture_and_the_seed_decides_it(plane):
    pictures = []
    for seed in range(12):
        varied, grey = vary(plane, seed)
        again, same = vary(plane, seed)
        assert np.array_equal(varied, again)
        assert grey == same
        pictures.append(grey.apply(varied))
    assert all(one.dtype == np.uint8 for one in pictures)
    assert len({one.tobytes() for one in pictures}) == 12


def test_hu_become_windows_and_pictures():
    assert {vary(HU, seed)[1].kind for seed in range(20)} == {"window", "any"}


def test_a_brighter_pixel_stays_brighter_in_every_window():
    ramp = np.repeat(np.arange(-1000, 200, 20, dtype=np.int16)[None], 8, axis=0)
    for seed in range(20):
        varied, grey = vary(ramp, seed)
        if grey.kind == "window" and np.array_equal(varied, ramp):
            assert (np.diff(grey.apply(varied).astype(int), axis=1) >= 0).all()
