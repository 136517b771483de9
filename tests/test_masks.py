from __future__ import annotations

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS
from lung_d2.masks import (
    build_annotation,
    connected_components,
    decode_mask,
    encode_mask,
    split_by_value,
)
from tiny import ring, square


@pytest.mark.parametrize(
    "mask",
    [ring(9, 1, 2, 6), square(5, 4, 4, 1), np.ones((3, 7), bool), np.zeros((4, 2), bool)],
    ids=["hole", "pixel in the corner", "full", "empty"],
)
def test_mask_comes_back_from_rle(mask):
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_rle_is_that_of_coco():
    """Columns first: 1 outside, 2 inside, 1 outside; COCO writes counts + 48 in its 6-bit characters."""
    assert encode_mask(np.array([[False, True], [True, False]])) == {"size": [2, 2], "counts": "121"}


def test_annotation_by_hand():
    annotation = build_annotation(ring(12, top=2, left=3, side=5, wall=1), BRONCHIECTASIS)
    assert annotation["bbox"] == [3.0, 2.0, 5.0, 5.0]  # x, y, width, height
    assert annotation["area"] == 25 - 9
    assert (annotation["category_id"], annotation["iscrowd"]) == (2, 0)


def test_parts_that_touch_by_a_corner_are_one():
    parts = connected_components(square(8, 0, 0, 3) | square(8, 3, 3, 2))
    assert [int(part.sum()) for part in parts] == [9 + 4]


def test_parts_a_pixel_apart_are_two():
    parts = connected_components(square(8, 0, 0, 3) | square(8, 4, 4, 2))
    assert [int(part.sum()) for part in parts] == [9, 4]


def test_part_keeps_its_hole():
    mask = ring(9, 1, 1, 6)
    (part,) = connected_components(mask)
    assert np.array_equal(part, mask)


def test_label_256_is_inside():
    (part,) = connected_components(square(4, 1, 1, 2).astype(np.uint16) * 256)
    assert int(part.sum()) == 4


def test_values_tell_touching_lesions_apart():
    labels = np.array([[7, 7, 3], [0, 3, 3]], np.uint16)
    assert [part.tolist() for part in split_by_value(labels)] == [
        [[False, False, True], [False, True, True]],
        [[True, True, False], [False, False, False]],
    ]
