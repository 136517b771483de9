from __future__ import annotations

import numpy as np
import pytest

from lung_d2.data.augment.intensity import IntensityRanges, _add_noise, vary_planes

HU = np.full((128, 128), -800, np.int16)
GREY = np.full((128, 128), 100, np.uint8)


def spread(planes):
    return [float(plane.astype(np.float64).std()) for plane in planes]


def test_noise_has_the_standard_deviation_that_is_asked_for():
    np.random.seed(0)
    (noisy,) = _add_noise([np.zeros((128, 128), np.float32)], 25.0, 0.7)
    assert noisy.std() == pytest.approx(25.0, rel=1e-3)
    assert abs(noisy.mean()) < 1.0


def test_noise_of_slices_is_drawn_evenly_up_to_the_most():
    np.random.seed(0)
    stds = [spread(vary_planes([HU], IntensityRanges(hu_noise=40.0)))[0] for _ in range(150)]
    assert 38.0 < max(stds) < 40.5
    assert min(stds) < 2.0
    assert 17.0 < np.mean(stds) < 23.0


def test_noise_has_the_texture_of_a_kernel():
    """Neighbouring pixels of white noise have nothing in common (0.00 to 0.03 here); those of a soft kernel much."""
    np.random.seed(1)
    noises = [_add_noise([np.zeros((128, 128), np.float32)], 10.0, 0.7)[0] for _ in range(9)]
    shared = [np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1] for noise in noises]
    assert min(shared) > 0.04
    assert max(shared) > 0.4


def test_noise_leaves_the_mean_alone():
    np.random.seed(2)
    (noisy,) = vary_planes([HU], IntensityRanges(hu_noise=40.0))
    assert noisy.dtype == np.int16
    assert noisy.mean() == pytest.approx(-800, abs=0.5)


def test_each_neighbour_has_its_own_noise_of_one_strength():
    np.random.seed(3)
    planes = vary_planes([HU, HU, HU], IntensityRanges(hu_noise=40.0))
    assert not np.array_equal(planes[0], planes[1])
    assert np.ptp(spread(planes)) < 0.1


def test_hu_have_no_contrast_to_change_and_grey_levels_no_hu():
    np.random.seed(4)
    (hu,) = vary_planes([HU], IntensityRanges(grey_contrast=0.5, grey_brightness=50.0, grey_noise=20.0))
    (grey,) = vary_planes([GREY], IntensityRanges(hu_noise=500.0))
    assert hu is HU
    assert grey is GREY


def test_nothing_asked_for_draws_nothing():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    vary_planes([HU], IntensityRanges())
    assert np.random.random() == expected


def test_brightness_is_one_shift_within_its_range():
    np.random.seed(6)
    shifts = [vary_planes([GREY], IntensityRanges(grey_brightness=20.0))[0].astype(int) - 100 for _ in range(200)]
    assert all(np.ptp(shift) == 0 for shift in shifts)
    ends = min(shift[0, 0] for shift in shifts), max(shift[0, 0] for shift in shifts)
    assert (-20 <= ends[0] < -18, 18 < ends[1] <= 20) == (True, True)


def test_contrast_stretches_about_the_mean():
    plane = np.repeat(np.array([[60, 140]], np.uint8), 64, axis=1).repeat(64, axis=0)
    np.random.seed(7)
    for _ in range(50):
        (varied,) = vary_planes([plane], IntensityRanges(grey_contrast=0.25))
        low, high = np.unique(varied).tolist()
        assert low + high == 200
        assert 60 <= high - low <= 100


def test_grey_levels_are_clipped_not_wrapped():
    np.random.seed(8)
    white = np.full((32, 32), 250, np.uint8)
    for _ in range(20):
        (varied,) = vary_planes([white], IntensityRanges(grey_brightness=60.0))
        assert varied.dtype == np.uint8
        assert varied.min() >= 190


def test_noise_of_grey_levels_is_in_grey_levels():
    np.random.seed(9)
    stds = [spread(vary_planes([GREY], IntensityRanges(grey_noise=12.0)))[0] for _ in range(60)]
    assert 11.0 < max(stds) < 12.2


def test_same_seed_gives_the_same_planes():
    seen = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        seen.append(vary_planes([GREY], IntensityRanges(grey_contrast=0.2, grey_brightness=9.0, grey_noise=9.0))[0])
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
