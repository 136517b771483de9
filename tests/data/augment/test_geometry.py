from __future__ import annotations

import math

import numpy as np
import pytest
from detectron2.data import transforms as T

from lung_d2.data.augment.geometry import (
    GRID_SHARE,
    MAX_ELASTIC,
    DeformTransform,
    GeometryRanges,
    LesionCrop,
    RandomDeformation,
    centered_affine,
)
from lung_d2.errors import ConfigError
from tiny import square

IMAGE = np.zeros((80, 120), np.uint8)
LESION = (70.0, 10.0, 82.0, 30.0)


def crops(boxes, share=1.0, size=(40, 50), count=200):
    """Return draws as boxes, ``(count, 4)``: left, top, right, bottom."""
    np.random.seed(0)
    crop = LesionCrop("absolute", size, share)
    found = [crop.get_transform(IMAGE, np.array(boxes, float).reshape(-1, 4)) for _ in range(count)]
    return np.array([(one.x0, one.y0, one.x0 + one.w, one.y0 + one.h) for one in found])


def holds(found, box):
    return (found[:, :2] <= box[:2]).all(axis=1) & (found[:, 2:] >= box[2:]).all(axis=1)


def test_every_crop_holds_the_whole_lesion_and_lies_in_the_picture():
    found = crops([LESION])
    assert holds(found, LESION).all()
    assert (found.min(), found[:, 2].max() <= 120, found[:, 3].max() <= 80) == (0, True, True)
    assert np.array_equal(found[:, 2:] - found[:, :2], np.tile((50, 40), (200, 1)))


def test_lesion_lies_anywhere_in_its_crop():
    # From left 82 - 50 = 32 to 70, from top 0 to 10.
    found = crops([LESION], count=2000)
    assert (found[:, 0].min(), found[:, 0].max()) == (32, 70)
    assert (found[:, 1].min(), found[:, 1].max()) == (0, 10)


def test_crop_lies_within_a_lesion_that_is_larger():
    found = crops([(10, 5, 110, 75)])
    assert (found[:, :2] >= (10, 5)).all()
    assert (found[:, 2:] <= (110, 75)).all()


@pytest.mark.parametrize("box", [(0, 0, 6, 5), (115, 74, 120, 80), (-8.5, -3.2, 4.1, 2.0)])
def test_lesion_at_the_rim_moves_no_crop_out_of_the_picture(box):
    found = crops([box])
    assert holds(found, np.clip(box, 0, (120, 80, 120, 80))).all()
    assert found.min() >= 0
    assert (found[:, 2:] <= (120, 80)).all()


def test_lesions_take_turns():
    far = (2.0, 60.0, 8.0, 70.0)
    found = crops([LESION, far], count=400)
    assert 150 < holds(found, LESION).sum() < 250
    assert (holds(found, LESION) | holds(found, far)).all()


def test_share_says_how_many_crops_hold_a_lesion():
    anywhere = holds(crops([LESION], share=0.0, count=2000), LESION).mean()
    half = holds(crops([LESION], share=0.5, count=2000), LESION).mean()
    assert anywhere < 0.2
    assert half == pytest.approx(0.5 + 0.5 * anywhere, abs=0.04)


@pytest.mark.parametrize(("boxes", "share"), [([], 1.0), ([(-30, -20, -5, -2)], 1.0), ([LESION], 0.0)])
def test_without_lesion_or_share_it_is_detectron2s_own_crop(boxes, share):
    found = crops(boxes, share)
    left = np.random.get_state()[1].tolist(), np.random.get_state()[2]
    np.random.seed(0)
    own = [T.RandomCrop("absolute", (40, 50)).get_transform(IMAGE) for _ in range(200)]
    assert [(one.x0, one.y0) for one in own] == list(map(tuple, found[:, :2].tolist()))
    assert left == (np.random.get_state()[1].tolist(), np.random.get_state()[2])


def test_lesion_outside_the_picture_is_not_drawn():
    assert holds(crops([LESION, (130, 90, 140, 95)]), LESION).all()


def test_lesion_longer_than_the_crop_along_one_axis_is_whole_along_the_other():
    found = crops([(10, 30, 110, 36)])
    assert (found[:, [0, 2]] >= 10).all()
    assert (found[:, [0, 2]] <= 110).all()
    assert (found[:, 1] <= 30).all()
    assert (found[:, 3] >= 36).all()


SIZE = (40, 60)


def moved(angle=0.0, scale=1.0, shift=(0.0, 0.0), fill=0.0):
    return DeformTransform(SIZE, centered_affine(SIZE, angle, scale, shift), fill=fill)


def picture(row, column, value=200):
    image = np.zeros(SIZE, np.uint8)
    image[row, column] = value
    return image


def elastic(share, seed=0, size=(96, 128)):
    np.random.seed(seed)
    return RandomDeformation(GeometryRanges(elastic=share)).get_transform(np.zeros(size, np.uint8))


def smooth_picture(size=(96, 128)):
    y, x = np.indices(size)
    return np.rint(100 + 60 * np.sin(x / 9.0) + 60 * np.cos(y / 7.0)).astype(np.uint8)


def test_shift_moves_image_and_mask_right_and_down():
    transform = moved(shift=(7.0, 3.0))
    assert np.array_equal(transform.apply_image(picture(10, 20)), picture(13, 27))
    mask = picture(10, 20, 1) > 0
    found = transform.apply_segmentation(mask)
    assert found.dtype == bool
    assert np.array_equal(found, picture(13, 27, 1) > 0)


def test_shift_uncovers_the_fill_in_the_image_and_0_in_the_mask():
    transform = moved(shift=(7.0, 0.0), fill=30.0)
    image = transform.apply_image(np.full((*SIZE, 3), 90, np.uint8))
    assert (np.unique(image[:, :7]).tolist(), np.unique(image[:, 7:]).tolist()) == ([30], [90])
    assert not transform.apply_segmentation(np.ones(SIZE, np.uint8))[:, :7].any()


def test_quarter_turn_is_clockwise_about_the_middle():
    size = (41, 41)
    transform = DeformTransform(size, centered_affine(size, math.pi / 2, 1.0, (0, 0)))
    image = np.zeros(size, np.uint8)
    image[5, 20] = 200  # above the middle
    expected = np.zeros(size, np.uint8)
    expected[20, 35] = 200  # right of it
    assert np.array_equal(transform.apply_image(image), expected)


def test_growth_doubles_sides_about_the_middle():
    mask = np.zeros(SIZE, np.uint8)
    mask[15:25, 25:35] = 1
    rows, columns = np.nonzero(moved(scale=2.0).apply_segmentation(mask))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (10, 30, 20, 40)


@pytest.mark.parametrize(
    "transform",
    [moved(angle=0.3, scale=1.1, shift=(4.0, -2.0)), elastic(0.04, 1), elastic(MAX_ELASTIC, 2)],
    ids=["affine", "elastic", "largest elastic"],
)
def test_points_go_where_the_picture_goes(transform):
    height, width = transform.size
    for row, column in ((height // 2, width // 2), (height // 3, width // 3), (height // 2, 2 * width // 3)):
        image = np.zeros(transform.size, np.float32)
        image[row - 1 : row + 2, column - 1 : column + 2] = 1.0
        seen = transform.apply_image(image)
        y, x = np.indices(seen.shape)
        center = [(seen * x).sum() / seen.sum() + 0.5, (seen * y).sum() / seen.sum() + 0.5]
        point = transform.apply_coords(np.array([[column + 0.5, row + 0.5]]))[0]
        assert np.abs(point - center).max() < 0.5


def test_no_points_stay_no_points():
    assert elastic(0.04).apply_coords(np.zeros((0, 2))).shape == (0, 2)


def test_elastic_field_stays_within_its_reach_and_is_used():
    for seed in range(5):
        bend = elastic(0.05, seed).bend
        assert 0.01 * 128 < np.abs(bend).max() <= 0.05 * 128
        assert np.abs(bend[..., 0] - bend[..., 1]).max() > 1  # each direction has its own


def test_elastic_field_is_smooth():
    bend = elastic(MAX_ELASTIC).bend
    steps = max(np.abs(np.diff(bend, axis=axis)).max() for axis in (0, 1))
    assert steps < 2 * MAX_ELASTIC / GRID_SHARE  # what neighbouring control points at both ends of the range allow


def test_largest_elastic_field_does_not_fold():
    for seed in range(20):
        x, y = elastic(MAX_ELASTIC, seed)._maps
        jacobian = np.gradient(x, axis=1) * np.gradient(y, axis=0) - np.gradient(x, axis=0) * np.gradient(y, axis=1)
        assert jacobian.min() > 0


def test_mask_follows_the_image():
    image = np.full((96, 128), 40, np.uint8)
    mask = np.zeros(image.shape, bool)
    mask[30:70, 40:90] = True
    image[mask] = 220
    transform = elastic(0.05, 3)
    bright = transform.apply_image(image) > 130
    found = transform.apply_segmentation(mask)
    assert np.count_nonzero(bright ^ found) < 0.1 * np.count_nonzero(found)
    assert np.count_nonzero(found ^ mask) > 0.03 * np.count_nonzero(mask)


def test_masks_hold_no_new_values():
    labels = np.zeros((96, 128), np.uint8)
    labels[20:50, 20:60], labels[50:80, 60:100] = 2, 7
    assert np.unique(elastic(0.08).apply_segmentation(labels)).tolist() == [0, 2, 7]


def test_changes_stay_in_their_ranges_and_reach_them():
    ranges = GeometryRanges(rotation=10.0, scale=0.2, translation=0.1)
    image = np.zeros((80, 100), np.uint8)
    np.random.seed(0)
    angles, scales, shifts = [], [], []
    for _ in range(400):
        affine = RandomDeformation(ranges).get_transform(image).affine
        scales.append(1 / math.hypot(affine[0, 0], affine[0, 1]))
        angles.append(math.degrees(math.atan2(affine[0, 1], affine[0, 0])))
        middle = np.array([49.5, 39.5])
        shifts.append(np.linalg.solve(affine[:, :2], middle - affine[:, 2]) - middle)
    assert 9.5 < max(np.abs(angles)) <= 10.0
    assert (0.8 <= min(scales) < 0.81, 1.19 < max(scales) <= 1.2) == (True, True)
    assert 9.5 < np.abs(shifts).max() <= 10.0


def test_air_of_the_picture_goes_on_beyond_its_edge():
    image = np.full((64, 64, 3), 180, np.uint8)
    image[:, 40:] = 35  # a body that reaches the left edge, and air
    np.random.seed(1)
    transform = RandomDeformation(GeometryRanges(translation=0.4)).get_transform(image)
    assert transform.fill == 35.0
    assert np.unique(transform.apply_image(image)).tolist()[0] == 35


def test_draws_come_from_numpys_global_generator_alone():
    image = smooth_picture()
    seen = []
    for seed in (4, 4, 5):
        np.random.seed(seed)
        data = T.AugInput(image)
        ranges = GeometryRanges(10.0, 0.1, 0.05, 0.04)
        T.AugmentationList([RandomDeformation(ranges)])(data)
        seen.append(data.image)
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_field_that_could_fold_is_refused():
    with pytest.raises(ConfigError, match=r"ELASTIC: 0\.1; expected 0 to 0\.08"):
        GeometryRanges(elastic=0.1)


def test_only_ranges_above_0_change_anything():
    assert not GeometryRanges().any
    assert all(GeometryRanges(**{name: 0.01}).any for name in ("rotation", "scale", "translation", "elastic"))


def test_nothing_asked_of_the_map_leaves_the_image_as_it_is():
    image = smooth_picture(SIZE)
    assert np.array_equal(moved().apply_image(image), image)
    assert np.array_equal(moved().apply_segmentation(square(60, 3, 4, 9)[:40]), square(60, 3, 4, 9)[:40])
