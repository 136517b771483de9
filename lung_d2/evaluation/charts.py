"""The curves of an evaluation as SVG: FROC, precision against recall, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator

from lung_d2.categories import CATEGORIES
from lung_d2.drawing.svg_chart import DARK, FAINT, open_chart
from lung_d2.evaluation.figures import ALL

_SIZE_INCHES = (4.4, 3.3)
_COLORS = {category.name: "#{:02x}{:02x}{:02x}".format(*category.color) for category in CATEGORIES} | {ALL: DARK}


def draw_froc(
    curves: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Any], rates: Sequence[float], unit: str
) -> str:
    """Draw sensitivity against false positives, with the interval at each rate.

    Args:
        curves: Of each category, as in ``evaluation.json``.
        figures: Of each category and rate, as there.
        rates: False positives for each unit.
        unit: ``"image"`` or ``"series"``.

    Returns:
        An SVG document.
    """
    with open_chart(_SIZE_INCHES) as (axes, svg):
        least = rates[0] / 2
        for name, curve in _drawn(curves):
            false = [max(value, least) for value in curve["false_positives"]]
            end = [max(false[-1], rates[-1])] if false else []
            axes.step(
                [least, *false, *end],
                [0, *curve["sensitivity"], *curve["sensitivity"][-1:]],
                where="post",
                color=_COLORS[name],
                linewidth=1.6,
            )
            own = {rate: figures[name][f"{rate:g}"] for rate in rates}
            for rate, figure in own.items():
                if figure["low"] is not None:
                    axes.plot([rate, rate], [figure["low"], figure["high"]], color=_COLORS[name], linewidth=0.8)
            axes.plot(list(own), [one["value"] for one in own.values()], "o", color=_COLORS[name], markersize=3.5)
        axes.set_xscale("log", base=2)
        axes.set_xlim(least, rates[-1] * 1.15)
        axes.xaxis.set_major_locator(FixedLocator(list(rates)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([_show_rate(rate) for rate in rates])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"false positives per {unit}")
        axes.set_ylabel("lesions found")
    return svg.getvalue()


def draw_precision_recall(recall: Sequence[float], precisions: Mapping[str, Sequence[float]]) -> str:
    """Draw the best precision at each recall or beyond, of each category."""
    with open_chart(_SIZE_INCHES) as (axes, svg):
        for name, precision in _drawn(precisions):
            axes.plot(recall, precision, color=_COLORS[name], linewidth=1.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
    return svg.getvalue()


def draw_reliability(diagrams: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw the share of correct detections against their mean score; a dot is the larger the more detections it has."""
    with open_chart(_SIZE_INCHES) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--")
        for name, diagram in _drawn(diagrams):
            most = max(diagram["detections"])
            sizes = [12 + 110 * count / most for count in diagram["detections"]]
            axes.plot(diagram["mean_score"], diagram["share_correct"], color=_COLORS[name], linewidth=1.2)
            axes.scatter(diagram["mean_score"], diagram["share_correct"], sizes, color=_COLORS[name], alpha=0.8)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("score")
        axes.set_ylabel("share correct")
    return svg.getvalue()


def _drawn(by_category: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what is drawn: all together only where there is more than one category."""
    own = [(category.name, by_category[category.name]) for category in CATEGORIES if category.name in by_category]
    return [(ALL, by_category[ALL]), *own] if len(own) > 1 and ALL in by_category else own


def _show_rate(rate: float) -> str:
    return f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}"
