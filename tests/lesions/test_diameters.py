from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.lesions import LinkSettings, link_lesions
from lung_d2.lesions.size_and_density import measure_diameters

SHAPE = (4, 80, 80)


def diameters_of(mask, spacing_mm=(5.0, 1.0, 1.0)):
    (lesion,) = link_lesions(detect((mask, 0.9)), axial_volume(SHAPE, spacing_mm), LinkSettings(min_volume_mm3=0))
    return measure_diameters(lesion, spacing_mm)


def test_a_line_is_as_long_as_its_pixels_and_one_wide():
    found = diameters_of(block(SHAPE, slice(1, 2), slice(5, 6), slice(10, 30)), (5.0, 0.8, 0.5))
    assert (found.slice_index, found.long_axis_mm, found.short_axis_mm) == (1, pytest.approx(10.0), pytest.approx(0.8))


def test_a_pixel_is_one_pixel_long():
    found = diameters_of(block(SHAPE, slice(1, 2), slice(5, 6), slice(10, 11)))
    assert (found.long_axis_mm, found.short_axis_mm) == (1.0, 1.0)


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90])
def test_an_ellipse_has_its_own_axes(degrees):
    angle = np.deg2rad(degrees)
    y, x = (np.mgrid[:80, :80] - 39.6) * np.array([0.5, 0.8])[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = np.zeros(SHAPE, bool)
    mask[2] = (along / 18) ** 2 + (across / 7) ** 2 <= 1
    found = diameters_of(mask, (5.0, 0.5, 0.8))
    assert found.long_axis_mm == pytest.approx(36, abs=0.8)
    assert found.short_axis_mm == pytest.approx(14, abs=0.8)


def test_the_longest_slice_counts_though_another_is_larger():
    long_one = block(SHAPE, slice(0, 1), slice(20, 23), slice(10, 50))
    large_one = block(SHAPE, slice(1, 2), slice(10, 30), slice(10, 30))
    found = diameters_of(long_one | large_one)
    assert found.slice_index == 0
    assert found.long_axis_mm == pytest.approx(np.hypot(40, 2), abs=0.1)  # by the middles of the short edges
    # Perpendicular to that slanting axis: from the lower left to the upper right corner, (100 + 98) / 40.05.
    assert found.short_axis_mm == pytest.approx(4.94, abs=0.01)


def test_parts_that_do_not_touch_are_not_spanned():
    arch = block(SHAPE, slice(1, 2), slice(10, 14), slice(10, 40))
    legs = block(SHAPE, slice(2, 3), slice(10, 14), slice(10, 14)) | block(
        SHAPE, slice(2, 3), slice(10, 14), slice(36, 40)
    )
    found = diameters_of(arch | legs)
    assert found.slice_index == 1
    assert found.long_axis_mm == pytest.approx(np.hypot(30, 3), abs=0.1)
