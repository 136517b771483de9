"""Small bar charts as SVG, for pages that stand alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lung_d2.drawing.svg_chart import DARK, open_chart

_SIZE_INCHES = (4.4, 2.5)
_NEUTRAL = (91, 107, 123)
_MOST_TICKS = 8


def draw_histogram(
    histograms: Sequence[Mapping[str, Any]], label: str, count_of: str, colors: Sequence[tuple[int, int, int]] = ()
) -> str:
    """Draw histograms of the same bins side by side.

    Args:
        histograms: One or more, see :func:`lung_d2.data.quality.summary.build_histogram`; their splits are added up.
        label: Of the values, with their unit.
        count_of: What is counted, e.g. ``"lesions"``.
        colors: RGB of each histogram, 0..255; grey by default.

    Returns:
        An SVG document.
    """
    edges = histograms[0]["edges"]
    with open_chart(_SIZE_INCHES, grid="y") as (axes, svg):
        width = 0.86 / len(histograms)
        for number, histogram in enumerate(histograms):
            heights = bar_heights(histogram)
            left = np.arange(len(heights)) - 0.43 + (number + 0.5) * width
            color = np.array(colors[number] if colors else _NEUTRAL) / 255
            axes.bar(left, heights, width, color=color, edgecolor=DARK, linewidth=0.5)
        axes.set_xlabel(label)
        axes.set_ylabel(count_of)
        first, last = _shown_bars(histograms)
        # Bar 0 is what lies below the first edge, so that edge k is the left side of bar k + 1.
        ticks = np.arange(max(first - 1, 0), min(last + 1, len(edges)))
        ticks = ticks[:: -(-len(ticks) // _MOST_TICKS)]
        axes.set_xticks(ticks + 0.5, [_show(edges[tick]) for tick in ticks])
        axes.set_xlim(first - 0.5, last + 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg.getvalue()


def bar_heights(histogram: Mapping[str, Any]) -> list[int]:
    """Return the counts of all splits together: below the first edge, in each bin, and above the last edge."""
    together = np.sum([[0] * (len(histogram["edges"]) - 1), *histogram["counts"].values()], axis=0)
    return [int(histogram["below"]), *together.tolist(), int(histogram["above"])]


def _shown_bars(histograms: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the first and last bar to show: those that are not empty, with one of room on both sides."""
    filled = np.flatnonzero(np.sum([bar_heights(histogram) for histogram in histograms], axis=0))
    last = len(bar_heights(histograms[0])) - 1
    first, end = (int(filled[0]), int(filled[-1])) if len(filled) else (0, last)
    return max(first - 1, 0), min(end + 1, last)


def _show(value: float) -> str:
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"
