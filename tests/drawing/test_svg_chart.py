"""The look that charts share."""

from __future__ import annotations

import matplotlib as mpl
import pytest

from lung_d2.drawing.svg_chart import FAINT, open_chart


def draw(grid="both"):
    with open_chart((4, 3), grid) as (axes, svg):
        axes.plot([0, 1], [0, 1])
        axes.set_xlabel("recall")
    return svg.getvalue()


def test_chart_is_an_svg_document_of_its_size_without_a_date():
    svg = draw()
    assert svg.startswith("<?xml")
    assert 'width="288pt" height="216pt"' in svg
    assert "date" not in svg


def test_text_stays_text():
    assert ">recall</text>" in draw()


def test_same_chart_same_bytes():
    assert draw() == draw()


@pytest.mark.parametrize(("grid", "lines"), [("both", 12), ("y", 6)])
def test_ticks_of_the_axis_that_is_named_have_lines(grid, lines):
    assert draw(grid).count("#dfe4ea") == lines  # 0, 0.2 .. 1 on each axis


def test_style_ends_with_the_chart():
    draw()
    assert mpl.rcParams["axes.edgecolor"] != FAINT
