from __future__ import annotations

import numpy as np
import pytest

from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.data.importers.shapes import Canvas, cut_background
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError

SHAPE = (6, 8)
SQUARE = [(1, 2), (4, 2), (4, 5), (1, 5)]


def box(rows, columns):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.mark.parametrize(("origin", "expected"), [("corner", ((2, 5), (1, 4))), ("centre", ((2, 6), (1, 5)))])
def test_origin_says_where_pixels_are(origin, expected):
    assert np.array_equal(Canvas(SHAPE, origin).fill(SQUARE, "x"), box(*expected))


def test_whole_picture_can_be_drawn_around():
    assert Canvas(SHAPE).fill([(0, 0), (8, 0), (8, 6), (0, 6)], "x").all()


@pytest.mark.parametrize("shift", [(-9, 0), (8, 0), (0, -9), (0, 6)])
def test_contour_outside_is_refused(shift):
    with pytest.raises(DatasetError, match="place: a polygon outside the picture; expected one inside 6 x 8 pixels"):
        Canvas(SHAPE).fill(np.add(SQUARE, shift), "place")


def test_contour_that_reaches_into_the_picture_is_clipped():
    assert np.array_equal(Canvas(SHAPE).fill(np.add(SQUARE, (-3, 0)), "x"), box((2, 5), (0, 1)))


def test_circle_holds_the_centres_on_it():
    assert Canvas(SHAPE, "centre").fill_circle((3, 3), 1, "x").sum() == 5
    assert not Canvas(SHAPE, "corner").fill_circle((3, 3), 0.5, "x").any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("far", [1e305, -1e30, 1e10])
def test_coordinate_that_would_overflow_is_refused_at_its_place(far):
    for draw in (
        lambda: Canvas(SHAPE).fill([*SQUARE, (far, 3)], "place"),
        lambda: Canvas(SHAPE).fill_circle((far, 3), 1, "place"),
        lambda: Canvas(SHAPE).fill_circle((3, 3), abs(far), "place"),
    ):
        with pytest.raises(DatasetError, match=r"^place: a coordinate of 1e\+"):
            draw()


@pytest.mark.parametrize(
    ("radius", "found"),
    [(0, "without area"), (-1, "without area"), (float("nan"), "not finite"), (float("inf"), "not finite")],
)
def test_circle_without_area_is_refused(radius, found):
    with pytest.raises(DatasetError, match=f"^place: .*{found}"):
        Canvas(SHAPE).fill_circle((3, 3), radius, "place")


@pytest.mark.parametrize(
    ("left", "top", "expected"),
    [(1, 2, ((2, 4), (1, 4))), (-1, -1, ((0, 1), (0, 2))), (6, 5, ((5, 6), (6, 8)))],
)
def test_part_is_put_in_its_place_and_cut_off(left, top, expected):
    assert np.array_equal(Canvas(SHAPE).paste(np.ones((2, 3), bool), left, top, "x"), box(*expected))


@pytest.mark.parametrize(("left", "top"), [(8, 0), (0, 6), (-3, 0), (0, -2), (-99, -99)])
def test_part_outside_is_refused(left, top):
    with pytest.raises(DatasetError, match="place: a mask outside the picture"):
        Canvas(SHAPE).paste(np.ones((2, 3), bool), left, top, "place")


@pytest.mark.parametrize("label", ["background", "_background_", "Background"])
def test_background_cuts_what_lies_below_it_alone(label):
    below, above = (Region(GROUND_GLASS_OPACITY, box((0, 4), (0, 4)), name) for name in "ab")
    hole = Region(Label.BACKGROUND, box((1, 2), (1, 2)))
    found = cut_background([("ggo", below), (label, hole), ("ggo", above)])
    assert [(one.lesion, int(one.mask.sum())) for one in found] == [("a", 15), (None, 1), ("b", 16)]
