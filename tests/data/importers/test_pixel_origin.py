from __future__ import annotations

import cv2
import numpy as np
import pytest

from lung_d2.data.importers.pixel_origin import AUTO, CENTRE, CORNER, choose_origin
from tiny import square

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
