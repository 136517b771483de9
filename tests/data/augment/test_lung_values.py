from __future__ import annotations

import numpy as np
import pytest

from lung_d2.data.augment.lung_values import lung_level, lung_noise
from tiny import square

WINDOW = slice(20, 30), slice(20, 30)


def test_level_is_that_of_the_lung_near_the_lesion():
    plane = np.full((64, 64), 90, np.uint8)
    plane[:, 45:] = 40
    healthy = ~square(64, 20, 20, 10)
    plane[20:30, 20:30] = 200
    assert lung_level(plane, healthy, WINDOW) == 90
    assert lung_level(plane, healthy, (slice(20, 30), slice(54, 64))) == 40


def test_level_of_little_lung_nearby_is_that_of_all_the_lung():
    plane = np.full((64, 64), 90, np.uint8)
    plane[:5] = 60
    assert lung_level(plane, np.arange(64)[:, None].repeat(64, 1) < 5, WINDOW) == 60


def test_level_without_lung_is_that_of_the_window():
    plane = np.full((64, 64), -700, np.int16)
    plane[20:30, 20:30] = -300
    assert lung_level(plane, np.zeros((64, 64), bool), WINDOW) == -300


def test_noise_is_measured_in_the_values_of_the_plane():
    rng = np.random.default_rng(0)
    y, x = np.indices((96, 96))
    plane = np.rint(-800 + 0.7 * x + 0.4 * y + rng.normal(0, 30, (96, 96))).astype(np.int16)  # on a slope
    plane[::24, ::24] = 0  # vessels
    assert lung_noise(plane, np.ones((96, 96), bool)) == pytest.approx(30, rel=0.1)


def test_noise_of_too_little_lung_is_unknown():
    assert lung_noise(np.zeros((64, 64), np.int16), square(64, 3, 3, 4)) is None
