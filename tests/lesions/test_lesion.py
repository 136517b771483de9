from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import block
from lung_d2.categories import BRONCHIECTASIS
from lung_d2.lesions import Lesion
from lung_d2.lesions.lesion import shared_voxels

SHAPE = (6, 8, 9)
WHOLE = block(SHAPE, slice(1, 2), slice(2, 4), slice(3, 7)) | block(SHAPE, slice(3, 5), slice(3, 5), slice(3, 6))


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
