"""Ground glass fills parenchyma, and neither vessels nor airways."""

from __future__ import annotations

import numpy as np
import pytest

from lung_d2.phantom.insert_blend import air_share, costal_depth, local_parenchyma

SHAPE = (120, 120)


def lung_with_vessel_and_airway() -> np.ndarray:
    """A lung that rises from -900 HU above to -820 below, a vessel of 40 HU, an airway of -990 HU."""
    image = np.broadcast_to(np.linspace(-900, -820, SHAPE[0], dtype=np.float32)[:, None], SHAPE).copy()
    image[50:60, 20:30] = 40.0
    image[50:60, 80:90] = -990.0
    return image


def test_parenchyma_is_estimated_without_vessels_and_airways() -> None:
    image = lung_with_vessel_and_airway()
    ground = local_parenchyma(image, np.ones(SHAPE, bool), -860.0, 1.0)
    assert ground[55, 25] == pytest.approx(-863, abs=6)
    assert ground[55, 85] == pytest.approx(-863, abs=6)
    assert ground[100, 60] - ground[20, 60] == pytest.approx(54, abs=6)


def test_parenchyma_of_nothing_is_the_median() -> None:
    ground = local_parenchyma(np.full(SHAPE, 40.0, np.float32), np.zeros(SHAPE, bool), -860.0, 1.0)
    assert (ground == -860.0).all()


def test_vessels_and_airways_have_no_share() -> None:
    image = lung_with_vessel_and_airway()
    ground = local_parenchyma(image, np.ones(SHAPE, bool), -860.0, 1.0)
    share = air_share(image, ground, 1.0)
    assert share[55, 25] == pytest.approx(0.0, abs=0.01)
    assert share[55, 85] == pytest.approx(0.0, abs=0.01)
    assert share[20, 60] > 0.98


def test_a_pixel_half_of_blood_is_filled_by_half() -> None:
    image = np.full(SHAPE, -860.0, np.float32)
    image[40:80, 40:80] = -410.0  # halfway between -860 and the blood's 42 HU, but for 1 HU
    share = air_share(image, np.full(SHAPE, -860.0, np.float32), 1.0)
    assert share[60, 60] == pytest.approx(0.5, abs=0.01)


def test_noise_of_parenchyma_changes_no_share_much() -> None:
    image = np.random.default_rng(0).normal(-860, 20, SHAPE).astype(np.float32)
    share = air_share(image, np.full(SHAPE, -860.0, np.float32), 0.75)
    assert share.min() > 0.93


def test_depth_counts_from_the_chest_wall_not_from_the_heart() -> None:
    lungs = np.zeros(SHAPE, bool)
    lungs[10:110, 10:50] = lungs[10:110, 70:110] = True
    depth = costal_depth(lungs, 2.0)
    assert depth[60, 10] == pytest.approx(2.0, abs=0.2)
    assert depth[60, 49] == pytest.approx(80.0, abs=3)
    assert depth[5, 5] == 0.0
