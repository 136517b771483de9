"""Bar charts as SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from lung_d2.categories import CATEGORIES
from lung_d2.data.quality.charts import bar_heights, draw_histogram
from lung_d2.data.quality.summary import build_histogram

COLORS = [category.color for category in CATEGORIES]


def texts_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_are_of_all_splits_with_what_lies_beyond_the_edges() -> None:
    histogram = build_histogram({"train": [-5, 3, 12], "val": [4, 99]}, (0, 10, 20))
    assert bar_heights(histogram) == [1, 2, 1, 1]


def test_chart_is_svg_with_its_labels_as_text() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    texts = texts_of(draw_histogram([histogram], "mm²", "lesions"))
    assert {"mm²", "lesions", "0", "10", "20"} <= set(texts)


def test_colors_are_those_of_the_categories() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    svg = draw_histogram([histogram, histogram], "HU", "lesions", COLORS)
    for color in COLORS:
        assert re.search("#{:02x}{:02x}{:02x}".format(*color), svg)


def test_axis_shows_only_where_something_is() -> None:
    histogram = build_histogram({"train": [41, 44]}, tuple(range(0, 100, 10)))
    texts = texts_of(draw_histogram([histogram], "mm", "series"))
    assert {"30", "40", "50", "60"} <= set(texts)
    assert not {"20", "70", "90"} & set(texts)


def test_same_histogram_same_bytes() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    assert draw_histogram([histogram], "mm", "series") == draw_histogram([histogram], "mm", "series")


def test_empty_histogram_is_drawn() -> None:
    assert texts_of(draw_histogram([build_histogram({}, (0, 10, 20))], "mm", "series"))
