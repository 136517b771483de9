from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, tilted_affine, volume_in
from lung_d2.ct.geometry import normal_of
from lung_d2.lesions.lesion import (
    slice_bounds_mm,
    slice_origins_lps,
    slice_shifts,
    slice_thickness_mm,
    voxel_volumes_ml,
)

UNEVEN = (0.0, 2.0, 3.0, 7.0)


def test_a_slice_stands_for_half_the_gap_to_each_neighbour():
    volume = axial_volume((4, 2, 2), positions_mm=UNEVEN)
    assert slice_bounds_mm(volume).tolist() == [-1.0, 1.0, 2.5, 5.0, 9.0]
    assert slice_thickness_mm(volume).tolist() == [2.0, 1.5, 2.5, 4.0]


def test_a_single_slice_stands_for_its_spacing():
    assert slice_bounds_mm(axial_volume((1, 2, 2), (5.0, 1.0, 1.0), positions_mm=[10.0])).tolist() == [7.5, 12.5]


def test_a_voxel_is_as_large_as_its_pixel_and_its_slice():
    volume = axial_volume((4, 2, 2), (2.0, 0.5, 0.8), positions_mm=UNEVEN)
    assert voxel_volumes_ml(volume) == pytest.approx([0.0008, 0.0006, 0.001, 0.0016])


def test_slices_lie_where_their_positions_say():
    volume = axial_volume((4, 2, 2), positions_mm=UNEVEN)
    assert slice_origins_lps(volume).tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 3], [0, 0, 7]]


def test_untilted_slices_are_not_shifted():
    assert not slice_shifts(axial_volume((4, 2, 2), positions_mm=UNEVEN)).any()


def test_a_tilted_gantry_shifts_rows():
    volume = volume_in(tilted_affine((5.0, 0.5, 0.5), 12.0), (5, 8, 8))
    # 5 mm x tan 12 degrees / 0.5 mm = 2.126 rows a slice
    assert slice_shifts(volume).tolist() == [[0, 0], [2, 0], [4, 0], [6, 0], [9, 0]]


@pytest.mark.parametrize("shear", [(0.0, 0.0), (3.0, -7.0), (-4.0, 2.0)])
def test_what_lies_on_one_normal_has_the_same_shifted_row_and_column(shear):
    affine = np.diag([0.7, 0.8, 5.0, 1.0])
    affine[:2, 2] = shear
    volume = volume_in(affine, (6, 8, 8), positions_mm=[0, 5, 9, 15, 30, 31])
    normal = normal_of(affine)
    for origin, (rows, columns) in zip(slice_origins_lps(volume), slice_shifts(volume), strict=True):
        point = origin - rows * affine[:3, 1] - columns * affine[:3, 0] - affine[:3, 3]
        aside = point - (point @ normal) * normal
        assert (np.abs(aside[:2]) <= np.array([0.35, 0.4]) + 1e-9).all()
