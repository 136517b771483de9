from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T

from lung_d2.data.augment.lesion_crop import LesionCrop

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
