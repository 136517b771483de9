from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS
from lung_d2.errors import DatasetError
from lung_d2.masks import (
    build_annotation,
    connected_components,
    decode_mask,
    encode_mask,
    fill_polygon,
    fill_polygons,
    mask_box,
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


def test_box_of_a_mask_is_tight():
    assert mask_box(ring(12, top=2, left=3, side=5, wall=1)) == (3, 2, 8, 7)


SHAPE = (9, 11)
SQUARE = [(2, 1), (6, 1), (6, 4), (2, 4)]


def box(rows, columns):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def random_mask(seed, smoothness):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((96, 96)), (0, 0), smoothness)
    inside = np.pad(noise[1:-1, 1:-1] > np.quantile(noise, 0.4), 1).astype(np.uint8)
    return cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))  # lines of one pixel have no area


def test_contour_through_centres_holds_its_pixels():
    assert np.array_equal(fill_polygon(SQUARE, SHAPE), box((1, 5), (2, 7)))


def test_contour_between_centres_holds_what_it_surrounds():
    corners = np.add(SQUARE, 0.5)
    assert np.array_equal(fill_polygon(corners, SHAPE), box((2, 5), (3, 7)))


def test_triangle_is_cut_exactly():
    """x + y <= 6.25 in the quadrant from (0.5, 0.5): 1..5 pixels a row."""
    mask = fill_polygon([(0.5, 0.5), (5.75, 0.5), (0.5, 5.75)], SHAPE)
    assert mask.sum(axis=1).tolist() == [0, 5, 4, 3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("points", [SQUARE[::-1], [*SQUARE, SQUARE[0]], [*SQUARE[2:], *SQUARE[:2]]])
def test_direction_start_and_closing_point_change_nothing(points):
    assert np.array_equal(fill_polygon(points, SHAPE), fill_polygon(SQUARE, SHAPE))


def test_points_of_lost_decimals_are_on_their_pixels():
    blurred = np.array(SQUARE) + np.array([[4e-7, -4e-7], [-4e-7, 4e-7], [-3e-7, -3e-7], [4e-7, 4e-7]])
    assert np.array_equal(fill_polygon(blurred, SHAPE), fill_polygon(SQUARE, SHAPE))


def test_what_is_surrounded_twice_is_outside():
    """Twice around the square on the way: the even-odd rule, not the non-zero one."""
    inner = [(3.5, 1.5), (5.5, 1.5), (5.5, 3.5), (3.5, 3.5)]
    mask = fill_polygon([(1.5, 0.5), (7.5, 0.5), (7.5, 5.5), (1.5, 5.5), (1.5, 0.5), *inner, inner[0]], SHAPE)
    assert np.array_equal(mask, box((1, 6), (2, 8)) & ~box((2, 4), (4, 6)))


def test_bow_tie_is_two_triangles():
    mask = fill_polygon([(0.5, 0.5), (6.5, 6.5), (6.5, 0.5), (0.5, 6.5)], SHAPE)
    assert mask[:, 1].sum() == mask[:, 6].sum() == 6
    assert not mask[1, 3]
    assert not mask[6, 3]


def test_ring_in_a_ring_is_a_hole_with_its_rim_inside():
    hole = [(3, 2), (5, 2), (5, 3), (3, 3)]
    thick = [(3, 1), (7, 1), (7, 6), (3, 6)], [(4, 2), (6, 2), (6, 5), (4, 5)]
    assert np.array_equal(fill_polygons([SQUARE, hole], SHAPE), fill_polygon(SQUARE, SHAPE))
    assert np.array_equal(fill_polygons(thick, SHAPE), box((1, 7), (3, 8)) & ~box((3, 5), (5, 6)))


def test_no_ring_fills_nothing():
    assert not fill_polygons([], SHAPE).any()


def test_what_lies_outside_the_picture_is_clipped():
    assert fill_polygon([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)], SHAPE).all()
    assert np.array_equal(fill_polygon([(-5, -5), (3, -5), (3, 2), (-5, 2)], SHAPE), box((0, 3), (0, 4)))
    assert not fill_polygon([(20, 1), (30, 1), (30, 5)], SHAPE).any()


def test_contour_between_four_centres_holds_no_pixel():
    assert not fill_polygon([(2.2, 2.2), (2.8, 2.2), (2.5, 2.8)], SHAPE).any()


@pytest.mark.parametrize("approximation", [cv2.CHAIN_APPROX_NONE, cv2.CHAIN_APPROX_SIMPLE])
@pytest.mark.parametrize("smoothness", [1.0, 1.5, 2.5])
def test_contours_of_a_mask_give_that_mask(smoothness, approximation):
    mask = random_mask(0, smoothness)
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, approximation)
    assert (hierarchy[0, :, 3] >= 0).any(), "no hole: it tests nothing"
    assert np.array_equal(fill_polygons([contour[:, 0] for contour in contours], mask.shape), mask > 0)


def test_random_contours_agree_with_the_rule_by_definition():
    for seed in range(100, 140):
        points = np.random.default_rng(seed).uniform(-3, 12, (3 + seed % 7, 2))
        wanted = [[_is_inside(points, x, y) for x in range(SHAPE[1])] for y in range(SHAPE[0])]
        assert np.array_equal(fill_polygon(points, SHAPE), wanted)


def _is_inside(points, x, y):
    crossed = 0
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, 1, axis=0), strict=True):
        crossed += (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return crossed % 2 == 1


def test_thousands_of_points_take_milliseconds():
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    points = 256 + 200 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    begin = time.perf_counter()
    mask = fill_polygon(points, (512, 512))
    assert time.perf_counter() - begin < 0.2
    assert mask.sum() == pytest.approx(np.pi * 200**2, rel=1e-3)


@pytest.mark.parametrize(
    ("points", "found"),
    [
        ([], "shape"),
        ([(1, 1), (5, 5)], "2 point"),
        ([1, 2, 3, 4, 5, 6], "shape"),
        ([(1, 1), (5, 5), (3, 3)], "no area"),
        ([(1, 1), (1, 1), (1, 1)], "no area"),
        ([(1, 1), (5, float("nan")), (3, 2)], "not finite"),
        ([(1, 1), (float("inf"), 5), (3, 2)], "not finite"),
        ([(1, 1), (1e305, 5), (3, 2)], r"a coordinate of 1e\+305; expected at most 1,000,000,000"),
        ([(1, 1), (-1e10, 5), (3, 2)], "a coordinate of 1e"),
    ],
)
def test_what_is_no_contour_is_refused(points, found):
    with pytest.raises(DatasetError, match=found):
        fill_polygon(points, SHAPE)
