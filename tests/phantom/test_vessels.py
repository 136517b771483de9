"""Tracing vessels."""

from __future__ import annotations

import numpy as np
import pytest

from lung_d2.phantom.vessels import STEP_MM, Vessels

MIDDLE = np.array([0.0, 0.0, 0.0])


def rod(radius_mm: float = 2.0) -> Vessels:
    """A vessel along x from 20 to 80 mm at y = 10, z = 5, sampled every 0.5 mm."""
    x, y, z = np.meshgrid(np.arange(20, 80.1, 0.5), np.arange(-4, 4.1, 0.5), np.arange(-4, 4.1, 0.5), indexing="ij")
    away = np.hypot(y, z)
    inside = away <= radius_mm
    points = np.stack([x[inside], y[inside] + 10, z[inside] + 5], axis=1)
    return Vessels(points, radius_mm - away[inside], MIDDLE)


def test_a_straight_vessel_gives_its_axis_and_radius() -> None:
    path = rod().trace(np.array([50.0, 10.5, 5.0]), 30.0)
    assert path is not None
    assert np.abs(path.points[:, 1:] - (10.0, 5.0)).max() < 0.5
    assert np.ptp(path.points[:, 0]) == pytest.approx(30.0, abs=2 * STEP_MM)
    assert path.radius_mm == pytest.approx(2.0, abs=0.3)


def test_a_path_leads_outwards() -> None:
    path = rod().trace(np.array([40.0, 10.0, 5.0]), 20.0)
    assert path is not None
    assert path.points[-1, 0] > path.points[0, 0]


def test_a_path_stops_where_the_vessel_ends() -> None:
    path = rod().trace(np.array([70.0, 10.0, 5.0]), 40.0)
    assert path is not None
    assert path.points[:, 0].max() < 82.0


def test_a_ball_is_no_vessel() -> None:
    points = np.random.default_rng(0).normal(0, 1.5, (500, 3))
    assert Vessels(points, np.ones(500), MIDDLE).trace(np.zeros(3), 20.0) is None


def test_no_vessels_no_path() -> None:
    assert Vessels(np.zeros((0, 3)), np.zeros(0), MIDDLE).trace(np.zeros(3), 20.0) is None
