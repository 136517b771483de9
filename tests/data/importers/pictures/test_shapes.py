from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from data.importers.drawn import make_request
from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.data.importers.pictures.coco import find_cases
from lung_d2.data.importers.pictures.shapes import (
    AUTO,
    CENTRE,
    CORNER,
    Canvas,
    choose_origin,
    cut_background,
    parse_spacing,
)
from lung_d2.data.importers.registry import PatientRule, list_importers
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label
from lung_d2.errors import ConfigError, DatasetError
from tiny import square

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


BORDERS = [[(2, 2), (6, 2), (6, 4), (8, 4), (8, 9), (2, 9)]]  # along the borders of pixels, whole and never slanted
DRAWN = [[(2.5, 2.0), (6.25, 3.0), (4.0, 9.0)]]
OF_PIXELS = [[(2, 2), (6, 3), (4, 9)]]


@pytest.mark.parametrize(
    ("rings", "origin"),
    [
        (DRAWN, CORNER),
        (BORDERS, CORNER),
        (OF_PIXELS, CENTRE),
        (BORDERS + OF_PIXELS, CENTRE),
        (OF_PIXELS + DRAWN, CORNER),
        ([], CORNER),
        ([None, "x", [(1, 2), (3,)], *OF_PIXELS], CENTRE),
    ],
)
def test_contours_tell_where_they_run(rings, origin, tmp_path):
    assert choose_origin(AUTO, rings, tmp_path) == origin


@pytest.mark.parametrize("origin", [CORNER, CENTRE])
def test_the_user_knows_better(origin, tmp_path):
    assert choose_origin(origin, DRAWN + OF_PIXELS, tmp_path) == origin


def test_contours_of_opencv_are_known(tmp_path):
    disc = cv2.circle(square(32, 0, 0, 0).astype(np.uint8), (15, 15), 7, 1, -1)
    contours, _ = cv2.findContours(disc, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    assert choose_origin(AUTO, [contour[:, 0] for contour in contours], tmp_path) == CENTRE


OUTLINE = [[2, 3, 8, 3, 8, 7, 2, 7]]  # 6 x 4 pixels


@pytest.mark.parametrize(("text", "spacing"), [(None, None), ("0.7", (0.7, 0.7)), ("0.7,0.65", (0.7, 0.65))])
def test_spacing_is_one_number_or_two(text, spacing):
    assert parse_spacing(text) == spacing


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "11", "1,2,3"])
def test_spacing_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=f"--spacing-mm {text}"):
        parse_spacing(text)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat"])
def test_tools_that_draw_have_the_same_options(name):
    own = set(list_importers()[name].find_cases.__kwdefaults__)
    assert {"images", "spacing_mm", "pixel_origin", "skip_shapes"} <= own


def write_coco(folder, *segmentations):
    """Write a picture with a lesion for each segmentation."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 20), np.uint8))
    records = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [2, 3, 6, 4], "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": records,
        "categories": [{"id": 1, "name": "ggo"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return make_request(folder, patients=PatientRule("(a)"))


def test_boxes_of_coco_are_refused_with_the_option_that_leaves_them_out(tmp_path):
    with pytest.raises(DatasetError, match=r"annotation 1: a shape of kind 'box'; .*--skip-shapes"):
        find_cases(write_coco(tmp_path, OUTLINE, []))


def test_boxes_of_coco_are_left_out_with_a_count(tmp_path, caplog):
    (case,) = find_cases(write_coco(tmp_path, OUTLINE, [], None), skip_shapes=True)
    (item,) = case.load()
    assert [int(mask.sum()) for _, mask in item.instances] == [24]
    assert "coco.json" not in caplog.text
    assert f"{tmp_path}: left out shapes that give no mask: 2 box" in caplog.text


def test_coco_of_boxes_alone_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no shape that gives a mask; expected one or more"):
        find_cases(write_coco(tmp_path, []), skip_shapes=True)
