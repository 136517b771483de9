"""Attenuation, and long and short axis."""

from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.lesions import LinkSettings, link_lesions
from lung_d2.lesions.size_and_density import measure_density, measure_diameters

SHAPE = (6, 20, 20)
LONG_SHAPE = (4, 80, 80)


def density_of(mask, hu):
    volume = axial_volume(SHAPE, hu=hu)
    (lesion,) = link_lesions(detect((mask, 0.9)), volume, LinkSettings(min_volume_mm3=0))
    return measure_density(lesion, volume)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_it_is_what_numpy_says_of_the_voxels(size):
    hu = np.random.default_rng(size).integers(-1024, 3000, SHAPE).astype(np.int16)
    mask = block(SHAPE, slice(1, 1 + size), slice(3, 3 + size), slice(4, 4 + size))
    found, voxels = density_of(mask, hu), hu[mask].astype(float)
    assert found.mean_hu == pytest.approx(voxels.mean(), abs=1e-9)
    assert found.sd_hu == pytest.approx(voxels.std(), abs=1e-9)
    expected = np.percentile(voxels, (5, 50, 95))
    assert (found.p5_hu, found.median_hu, found.p95_hu) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize("value", [-32768, -600, 32767])
def test_one_voxel_is_its_own_mean_and_percentile(value):
    found = density_of(block(SHAPE, slice(1, 2), slice(3, 4), slice(4, 5)), value)
    assert (found.mean_hu, found.sd_hu, found.p5_hu, found.median_hu, found.p95_hu) == (value, 0, value, value, value)


def diameters_of(mask, spacing_mm=(5.0, 1.0, 1.0)):
    (lesion,) = link_lesions(detect((mask, 0.9)), axial_volume(LONG_SHAPE, spacing_mm), LinkSettings(min_volume_mm3=0))
    return measure_diameters(lesion, spacing_mm)


def test_a_line_is_as_long_as_its_pixels_and_one_wide():
    found = diameters_of(block(LONG_SHAPE, slice(1, 2), slice(5, 6), slice(10, 30)), (5.0, 0.8, 0.5))
    assert (found.slice_index, found.long_axis_mm, found.short_axis_mm) == (1, pytest.approx(10.0), pytest.approx(0.8))


def test_a_pixel_is_one_pixel_long():
    found = diameters_of(block(LONG_SHAPE, slice(1, 2), slice(5, 6), slice(10, 11)))
    assert (found.long_axis_mm, found.short_axis_mm) == (1.0, 1.0)


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90])
def test_an_ellipse_has_its_own_axes(degrees):
    angle = np.deg2rad(degrees)
    y, x = (np.mgrid[:80, :80] - 39.6) * np.array([0.5, 0.8])[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = np.zeros(LONG_SHAPE, bool)
    mask[2] = (along / 18) ** 2 + (across / 7) ** 2 <= 1
    found = diameters_of(mask, (5.0, 0.5, 0.8))
    assert found.long_axis_mm == pytest.approx(36, abs=0.8)
    assert found.short_axis_mm == pytest.approx(14, abs=0.8)


def test_the_longest_slice_counts_though_another_is_larger():
    long_one = block(LONG_SHAPE, slice(0, 1), slice(20, 23), slice(10, 50))
    large_one = block(LONG_SHAPE, slice(1, 2), slice(10, 30), slice(10, 30))
    found = diameters_of(long_one | large_one)
    assert found.slice_index == 0
    assert found.long_axis_mm == pytest.approx(np.hypot(40, 2), abs=0.1)  # by the middles of the short edges
    # Perpendicular to that slanting axis: from the lower left to the upper right corner, (100 + 98) / 40.05.
    assert found.short_axis_mm == pytest.approx(4.94, abs=0.01)


def test_parts_that_do_not_touch_are_not_spanned():
    arch = block(LONG_SHAPE, slice(1, 2), slice(10, 14), slice(10, 40))
    legs = block(LONG_SHAPE, slice(2, 3), slice(10, 14), slice(10, 14)) | block(
        LONG_SHAPE, slice(2, 3), slice(10, 14), slice(36, 40)
    )
    found = diameters_of(arch | legs)
    assert found.slice_index == 1
    assert found.long_axis_mm == pytest.approx(np.hypot(30, 3), abs=0.1)
