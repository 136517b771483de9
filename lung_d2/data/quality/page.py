"""The page of a data set: what it holds, drawn and counted, and its warnings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lung_d2.categories import Categories
from lung_d2.data.quality.pictures import DatasetPictures
from lung_d2.data.quality.summary import SCHEMA_VERSION
from lung_d2.drawing.pages import describe_category, embed_svg, render_page
from lung_d2.drawing.svg_chart import DARK, open_chart
from lung_d2.errors import DatasetError
from lung_d2.files import write_text

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


PAGE_NAME = "report.html"
_REPORT_NAME = "report.json"
_TEMPLATE = "dataset_page.html"
_EXAMPLES = 6  # of each category
_SUSPICIOUS_PICTURES = 4  # of each kind
_LESION_CHARTS = {
    "area_mm2": ("Lesion area in a slice", "mm²"),
    "area_px": ("Lesion area in a slice, in pixels", "pixels"),
    "mean_hu": ("Mean density of a lesion", "HU"),
    "contrast_hu": ("Contrast of a lesion to the lung around it", "HU"),
}
# The charts take some 100 kB: the page stays below 5 MB.
_PICTURE_BYTES = 4_000_000


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    Attributes:
        title: What it shows.
        source: Data URI of its SVG.
        note: What it leaves out, or nothing.
    """

    title: str
    source: str
    note: str


def write_dataset_page(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a prepared data set, from what lies there.

    Args:
        folder: The data set, see :mod:`lung_d2.data.dataset`.

    Returns:
        The page.

    Raises:
        DatasetError: The report, an annotation file or a picture is missing or broken.
    """
    summary = _read_summary(folder / _REPORT_NAME)
    pictures = DatasetPictures(folder, _PICTURE_BYTES)
    suspicions = [_with_pictures(suspicion, pictures) for suspicion in summary["suspicions"]]
    content = {
        "summary": summary,
        "categories": [describe_category(category) for category in pictures.categories],
        "totals": _add_up(summary["splits"], pictures.categories),
        "lesion_charts": list(_lesion_charts(summary["lesions"], pictures.categories)),
        "geometry_charts": list(_geometry_charts(summary)),
        "examples": [(describe_category(one), list(pictures.examples(one, _EXAMPLES))) for one in pictures.categories],
        "suspicions": suspicions,
    }
    write_text(render_page("lung_d2.data.quality", _TEMPLATE, content), folder / PAGE_NAME)
    return folder / PAGE_NAME


def _read_summary(path: Path) -> dict[str, Any]:
    remedy = "prepare the data set again"
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = summary["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(path, found=f"no report ({type(error).__name__})", remedy=remedy) from error
    if version != SCHEMA_VERSION:
        raise DatasetError(path, found=f"version {version}", expected=str(SCHEMA_VERSION), remedy=remedy)
    return summary


def _with_pictures(suspicion: Mapping[str, Any], pictures: DatasetPictures) -> dict[str, Any]:
    shown = suspicion["examples"][:_SUSPICIOUS_PICTURES]
    return {**suspicion, "pictures": [picture for one in shown for picture in pictures.slice_of(one)]}


def _add_up(splits: Mapping[str, Mapping[str, Any]], categories: Categories) -> dict[str, Any]:
    """Add up the numbers of the splits; a patient is in one only."""
    keys = [key for key in next(iter(splits.values()), {}) if key != "categories"]
    totals: dict[str, Any] = {key: sum(split[key] for split in splits.values()) for key in keys}
    totals["lesions"] = {
        category.name: sum(split["categories"][category.name]["lesions"] for split in splits.values())
        for category in categories
    }
    return totals


def _lesion_charts(lesions: Mapping[str, Mapping[str, Any]], categories: Categories) -> Iterator[Chart]:
    histograms = {fact: [lesions[category.name][fact] for category in categories] for fact in _LESION_CHARTS}
    for fact, (title, label) in _LESION_CHARTS.items():
        if fact == "area_px" and not any(one["unknown"] for one in histograms["area_mm2"]):
            continue  # where every area is known in mm2, nobody needs it in pixels
        shown = [
            (one, category.color) for one, category in zip(histograms[fact], categories, strict=True) if _known(one)
        ]
        yield from _draw([one for one, _ in shown], title, label, "lesions", [color for _, color in shown])


def _geometry_charts(summary: Mapping[str, Any]) -> Iterator[Chart]:
    geometry = summary["geometry"]
    yield from _draw([geometry["pixel_mm"]], "Pixel spacing", "mm", "series")
    yield from _draw([geometry["slice_mm"]], "Distance of slices", "mm", "series")
    yield from _draw([summary["slices_per_patient"]], "Slices of a patient", "slices", "patients")


def _draw(
    histograms: list[Mapping[str, Any]], title: str, label: str, count_of: str, colors: Sequence[Any] = ()
) -> Iterator[Chart]:
    """Draw a chart; none of histograms that hold nothing."""
    if not any(map(_known, histograms)):
        return
    unknown = sum(one["unknown"] for one in histograms)
    note = f"Unknown of {unknown:,} {count_of}, which are not in it." if unknown else ""
    yield Chart(title, embed_svg(draw_histogram(histograms, label, count_of, colors)), note)


def _known(histogram: Mapping[str, Any]) -> bool:
    return histogram["quantiles"] is not None
