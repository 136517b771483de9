"""Grey levels by hand, and the image made of them."""

from __future__ import annotations

import numpy as np
import pytest

from lung_d2.ct import GreyLevels, image_from_planes, slice_image
from lung_d2.ct.grey import plane_indices
from lung_d2.errors import ConfigError, InputError
from tiny import volume_of

IDENTITY = GreyLevels(window_center=127.5, window_width=255)  # grey level = HU, from 0 to 255


def plane(*values, dtype=np.int16):
    return np.array([values], dtype)


def test_lung_window_by_hand():
    """-600 / 1500 HU: from -1350 to 150, 5.88 HU a grey level; what lies outside is clipped."""
    levels = GreyLevels().apply(plane(-32768, -1350, -1000, -600, 0, 150, 32767))
    assert levels.tolist() == [[0, 0, 60, 128, 230, 255, 255]]  # 59.5, 127.5 and 229.5 round to even
    assert levels.dtype == np.uint8


def test_window_of_255_hu_is_the_identity():
    assert GreyLevels(window_center=127.5, window_width=255).apply(plane(-1, 0, 7, 255, 256)).tolist() == [
        [0, 0, 7, 255, 255]
    ]


def test_shift_is_added_to_the_hu():
    grey = GreyLevels(window_center=127.5, window_width=255)
    assert grey.apply(plane(10, 20), hu_shift=5.0).tolist() == [[15, 25]]


def test_window_of_a_source_without_hu_is_refused():
    with pytest.raises(InputError, match=r"no Hounsfield units.*minmax_clahe"):
        GreyLevels().apply(plane(1, 2, dtype=np.uint8))


def test_grey_source_passes_unchanged():
    source = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    assert np.array_equal(GreyLevels("minmax_clahe").apply(source, hu_shift=50.0), source)


def test_any_is_the_window_for_hu_and_leaves_grey_levels_as_they_are():
    hu = plane(-1000, -400, 200)
    assert np.array_equal(GreyLevels("any").apply(hu, 20.0), GreyLevels("window").apply(hu, 20.0))
    grey = plane(0, 7, 255, dtype=np.uint8)
    assert np.array_equal(GreyLevels("any").apply(grey, 20.0), grey)


def test_minmax_clahe_depends_on_the_slice_alone():
    """Neither scale nor offset of the HU matters: the slice's own minimum and maximum are the ends."""
    ramp = np.tile(np.arange(64, dtype=np.int16) * 10 - 1000, (64, 1))
    levels = GreyLevels("minmax_clahe").apply(ramp)
    assert np.array_equal(levels, GreyLevels("minmax_clahe").apply(ramp * 2 + 100))
    assert levels.max() - levels.min() > 240


def test_minmax_clahe_lifts_faint_contrast():
    """A step of 1 % of the range is 3 grey levels when scaled alone; the equalisation makes it more."""
    faint = np.where(np.indices((64, 64))[1] % 8 < 4, -800, -790).astype(np.int16)
    faint[0, 0], faint[-1, -1] = -1000, 0
    levels = GreyLevels("minmax_clahe").apply(faint)
    assert int(levels[32, 34]) + 3 < int(levels[32, 32 - 2])


def test_flat_slice_is_no_division_by_zero():
    assert len(np.unique(GreyLevels("minmax_clahe").apply(np.full((64, 64), -500, np.int16)))) == 1


def test_other_number_types_are_refused():
    with pytest.raises(InputError, match="dtype float32; expected int16 HU or uint8 grey"):
        GreyLevels().apply(plane(1, 2, dtype=np.float32))


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"INPUT.CT.GREY: 'log'; expected window or minmax_clahe"):
        GreyLevels("log")


@pytest.mark.parametrize(("center", "width"), [(0, 0), (0, -5), (float("nan"), 100), (0, float("inf"))])
def test_window_that_is_none_is_refused(center, width):
    with pytest.raises(ConfigError, match="WINDOW_CENTER/WIDTH"):
        GreyLevels(window_center=center, window_width=width)


def steps(count=3):
    """Slice k holds 10 k everywhere, in 4 rows and 6 columns."""
    return volume_of(np.broadcast_to(10 * np.arange(count, dtype=np.int16)[:, None, None], (count, 4, 6)).copy())


def test_image_is_what_a_plain_predictor_takes():
    image = slice_image(steps(), 1)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert image.flags.c_contiguous


def test_single_is_the_slice_three_times():
    assert slice_image(steps(), 1, grey=IDENTITY)[2, 3].tolist() == [10, 10, 10]


@pytest.mark.parametrize(("index", "levels"), [(0, [0, 0, 10]), (1, [0, 10, 20]), (2, [10, 20, 20])])
def test_neighbours_repeat_the_end_slices(index, levels):
    assert slice_image(steps(), index, grey=IDENTITY, channels="neighbours")[0, 0].tolist() == levels


def test_default_is_the_lung_window():
    assert slice_image(steps(1), 0)[0, 0, 0] == 230  # 0 HU, see test_grey.py


def test_volume_of_one_slice_has_no_neighbours():
    with pytest.raises(InputError, match="slice 0: no neighbouring slices"):
        slice_image(steps(1), 0, channels="neighbours")


@pytest.mark.parametrize("index", [-1, 3])
def test_index_outside_the_volume_is_refused(index):
    with pytest.raises(InputError, match=rf"slice {index}: a volume of 3 slices; take one of 0\.\.2"):
        slice_image(steps(), index)


def test_unknown_channels_are_refused():
    with pytest.raises(ConfigError, match=r"INPUT.CT.CHANNELS: 'rgb'; expected single or neighbours"):
        plane_indices(0, 3, "rgb")


def test_planes_of_two_sizes_are_refused():
    planes = [np.zeros((4, 6), np.int16), np.zeros((4, 6), np.int16), np.zeros((4, 5), np.int16)]
    with pytest.raises(InputError, match="expected one or three of one size"):
        image_from_planes(planes, grey=IDENTITY)
