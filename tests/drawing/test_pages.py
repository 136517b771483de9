"""What the report pages share."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest
from jinja2 import UndefinedError

from lung_d2.categories import CATEGORIES
from lung_d2.drawing.pages import describe_category, embed_jpeg, embed_svg, render_page, show_ml, show_number


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(None, 1, "–"), (0, 1, "0.0"), (0.04, 1, "< 0.1"), (0.06, 1, "0.1"), (-0.5, 2, "-0.50"), (12345.6, 0, "12,346")],
)
def test_numbers_are_shown_as_people_read_them(value: float | None, digits: int, shown: str) -> None:
    assert show_number(value, digits) == shown


@pytest.mark.parametrize(
    ("ml", "shown"),
    [(None, "–"), (0, "0.00"), (0.001, "< 0.01"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100")],
)
def test_volumes_have_three_digits_that_count(ml: float | None, shown: str) -> None:
    assert show_ml(ml) == shown


def test_categories_differ_in_colour() -> None:
    described = [describe_category(category) for category in CATEGORIES]
    assert described[0] == {"key": "ground_glass_opacity", "name": "ground glass opacity", "color": "#e69f00"}
    assert len({one["color"] for one in described}) == len(CATEGORIES)


def test_jpeg_keeps_the_colour_of_a_line_of_one_pixel() -> None:
    picture = np.full((32, 32, 3), 128, np.uint8)
    picture[16] = 230, 159, 0
    head, _, data = embed_jpeg(picture, 90).partition(",")
    assert head == "data:image/jpeg;base64"
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert np.abs(shown[16] - (230, 159, 0)).max() < 25


def test_svg_is_embedded_as_it_is() -> None:
    head, _, data = embed_svg("<svg/>").partition(",")
    assert (head, base64.b64decode(data)) == ("data:image/svg+xml;base64", b"<svg/>")


def test_page_that_lacks_a_value_is_no_page() -> None:
    with pytest.raises(UndefinedError):
        render_page("lung_d2.data.quality", "dataset_page.html", {})
