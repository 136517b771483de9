"""The look of every chart, and their way into SVG, for pages that stand alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAINT = "#8a94a0"
"""Of the axes, and of lines that only guide the eye."""
DARK = "#2b333c"
"""Edges, and whatever does not belong to a category."""
_TEXT = "#3c4652"
_GRID = "#dfe4ea"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and in the reader's font
    "svg.hashsalt": "lung_d2",  # the same chart has the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


@contextmanager
def open_chart(
    size_inches: tuple[float, float], grid: Literal["both", "y"] = "both"
) -> Iterator[tuple[Axes, io.StringIO]]:
    """Open an empty chart to draw in.

    Args:
        size_inches: Width and height.
        grid: The axis whose ticks have lines across.

    Yields:
        The axes, and a stream that holds the SVG document once the chart is closed.
    """
    svg = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_inches, layout="constrained")
        axes = figure.add_subplot()
        yield axes, svg
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
