from __future__ import annotations

import numpy as np
import pytest

from lung_d2.ct import GreyLevels, image_from_planes, slice_image
from lung_d2.ct.slices import plane_indices
from lung_d2.errors import ConfigError, InputError
from tiny import volume_of

IDENTITY = GreyLevels(window_center=127.5, window_width=255)  # grey level = HU, from 0 to 255


def volume(count=3):
    """Slice k holds 10 k everywhere, in 4 rows and 6 columns."""
    return volume_of(np.broadcast_to(10 * np.arange(count, dtype=np.int16)[:, None, None], (count, 4, 6)).copy())


def test_image_is_what_a_plain_predictor_takes():
    image = slice_image(volume(), 1)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert image.flags.c_contiguous


def test_single_is_the_slice_three_times():
    assert slice_image(volume(), 1, grey=IDENTITY)[2, 3].tolist() == [10, 10, 10]


@pytest.mark.parametrize(("index", "levels"), [(0, [0, 0, 10]), (1, [0, 10, 20]), (2, [10, 20, 20])])
def test_neighbours_repeat_the_end_slices(index, levels):
    assert slice_image(volume(), index, grey=IDENTITY, channels="neighbours")[0, 0].tolist() == levels


def test_default_is_the_lung_window():
    assert slice_image(volume(1), 0)[0, 0, 0] == 230  # 0 HU, see test_grey.py


def test_volume_of_one_slice_has_no_neighbours():
    with pytest.raises(InputError, match="slice 0: no neighbouring slices"):
        slice_image(volume(1), 0, channels="neighbours")


@pytest.mark.parametrize("index", [-1, 3])
def test_index_outside_the_volume_is_refused(index):
    with pytest.raises(InputError, match=rf"slice {index}: a volume of 3 slices; take one of 0\.\.2"):
        slice_image(volume(), index)


def test_unknown_channels_are_refused():
    with pytest.raises(ConfigError, match=r"INPUT.CT.CHANNELS: 'rgb'; expected single or neighbours"):
        plane_indices(0, 3, "rgb")


def test_planes_of_two_sizes_are_refused():
    planes = [np.zeros((4, 6), np.int16), np.zeros((4, 6), np.int16), np.zeros((4, 5), np.int16)]
    with pytest.raises(InputError, match="expected one or three of one size"):
        image_from_planes(planes, grey=IDENTITY)
