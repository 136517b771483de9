"""What all pictures share."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lesions.solids import volume_in
from lung_d2.drawing.marks import draw_outline, draw_scale_bar, draw_text, overlap, sides_of, text_width, tint
from tiny import ring, square

GREEN = (0, 255, 0)


def sheet(width: int = 400, height: int = 200) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    return picture, ImageDraw.Draw(picture)


def test_text_stays_in_the_place_it_tells() -> None:
    picture, pen = sheet()
    left, top, right, bottom = draw_text(pen, (30, 40), "slice 7", GREEN, 20)
    rows, columns = np.nonzero((np.asarray(picture) == GREEN).all(axis=-1))
    assert left <= columns.min() <= columns.max() < right
    assert top <= rows.min() <= rows.max() < bottom
    assert right - left == text_width(pen, "slice 7", 20)


@pytest.mark.parametrize(("mm_per_pixel", "text_px"), [(0.5, 12), (0.05, 24), (0.012, 30)])
def test_scale_bar_and_its_text_stay_in_the_place_it_tells(mm_per_pixel: float, text_px: int) -> None:
    picture, pen = sheet()
    left, top, right, bottom = draw_scale_bar(pen, picture.size, mm_per_pixel, text_px)
    rows, columns = np.nonzero((np.asarray(picture) != 128).any(axis=-1))
    assert (left - 3, top - 3) <= (columns.min(), rows.min())
    assert columns.max() <= max(right, 398) < 400
    assert rows.max() <= bottom + 4


def test_outline_runs_around_holes_too() -> None:
    canvas = np.zeros((40, 40, 3), np.uint8)
    draw_outline(canvas, ring(40, 5, 5, 30, wall=8), GREEN, 1)
    assert canvas[20, 5, 1] > 150  # lines are smoothed
    assert canvas[20, 12, 1] > 150
    assert canvas[20, 9].tolist() == canvas[20, 20].tolist() == [0, 0, 0]


def test_tint_mixes_by_its_opacity() -> None:
    canvas = np.full((10, 10, 3), 100, np.uint8)
    tint(canvas, square(10, 2, 2, 4), (200, 0, 100), 0.25)
    assert canvas[3, 3].tolist() == [125, 75, 100]
    assert canvas[8, 8].tolist() == [100, 100, 100]


@pytest.mark.parametrize(
    ("other", "expected"), [((10, 0, 20, 10), False), ((9, 9, 20, 20), True), ((2, 2, 3, 3), True)]
)
def test_places_that_touch_do_not_overlap(other: tuple[float, float, float, float], expected: bool) -> None:
    assert overlap((0, 0, 10, 10), other) == overlap(other, (0, 0, 10, 10)) == expected


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "RL"),
        ((-1, 0, 0), "LR"),
        ((0, 1, 0), "AP"),
        ((0, -0.9, 0.4), "PA"),
        ((0, 0, 1), "FH"),
        ((0, 0, -1), "HF"),
    ],
)
def test_sides_are_those_of_the_row_direction(direction: tuple[float, float, float], letters: str) -> None:
    first = np.array(direction) / np.linalg.norm(direction)
    second = np.cross(first, (0.3, 0.5, 0.8))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first, second / np.linalg.norm(second)
    affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
    assert sides_of(volume_in(affine, (2, 4, 4))) == letters
