"""A lesion, and the tissue that each slice represents."""

from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, tilted_affine, volume_in
from lung_d2.categories import BRONCHIECTASIS
from lung_d2.ct.geometry import normal_of
from lung_d2.lesions import Lesion
from lung_d2.lesions.lesion import (
    shared_voxels,
    slice_bounds_mm,
    slice_origins_lps,
    slice_shifts,
    slice_thickness_mm,
    voxel_volumes_ml,
)

SHAPE = (6, 8, 9)
WHOLE = block(SHAPE, slice(1, 2), slice(2, 4), slice(3, 7)) | block(SHAPE, slice(3, 5), slice(3, 5), slice(3, 6))
UNEVEN = (0.0, 2.0, 3.0, 7.0)


def lesion_of(mask, scores, offset=(0, 0, 0)):
    indices = tuple((np.flatnonzero(mask.any(axis=(1, 2))) + offset[0]).tolist())
    return Lesion(1, BRONCHIECTASIS, max(scores), mask, offset, indices, tuple(scores))


@pytest.fixture
def lesion():
    """Give a lesion of 8, 0, 6 and 6 pixels on slices 1 to 4, cropped."""
    return lesion_of(WHOLE[1:5, 2:5, 3:7].copy(), [0.6, 0.7, 0.9], (1, 2, 3))


def test_the_full_mask_puts_it_back(lesion):
    assert (lesion.full_mask(SHAPE) == WHOLE).all()


@pytest.mark.parametrize("index", range(6))
def test_the_mask_of_a_slice_is_that_of_the_full_mask(lesion, index):
    assert (lesion.slice_mask(index, SHAPE[1:]) == WHOLE[index]).all()


def test_the_box_cuts_the_mask_out_of_a_volume(lesion):
    assert (WHOLE[lesion.box] == lesion.mask).all()
    for index, window, mask in lesion.patches():
        assert (WHOLE[index][window] == mask).all()


def test_voxels_and_areas_are_counted(lesion):
    assert (lesion.voxel_count, lesion.slice_areas_px, lesion.slice_indices) == (20, (8, 6, 6), (1, 3, 4))


def test_the_key_slice_is_the_largest(lesion):
    assert lesion.key_slice_index == 1


@pytest.mark.parametrize(("scores", "key"), [([0.6, 0.7, 0.9], 2), ([0.9, 0.7, 0.9], 0)])
def test_of_equal_areas_the_surer_slice_is_key_then_the_lower(scores, key):
    assert lesion_of(np.ones((3, 2, 2), bool), scores).key_slice_index == key


def test_the_mask_cannot_be_changed(lesion):
    with pytest.raises(ValueError, match="read-only"):
        lesion.mask[0, 0, 0] = True


def test_shared_voxels_are_those_of_the_full_masks(lesion):
    other = lesion_of(np.ones((2, 4, 4), bool), [0.5, 0.5], (4, 4, 2))
    expected = (lesion.full_mask(SHAPE) & other.full_mask(SHAPE)).sum()
    assert shared_voxels(lesion, other) == shared_voxels(other, lesion) == expected == 3
    assert shared_voxels(lesion, lesion_of(np.ones((1, 1, 1), bool), [0.5], (5, 0, 0))) == 0


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
