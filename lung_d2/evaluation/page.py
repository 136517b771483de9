"""An evaluation as one HTML page that stands alone, and its headline as lines of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lung_d2.drawing.pages import UNKNOWN, describe_category, embed_svg, render_page
from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.froc import MEAN, RATES
from lung_d2.evaluation.pictures import chart_colors, draw_froc, draw_precision_recall, draw_reliability, draw_slices
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth

_HERE = "CATEGORY"


@dataclass(frozen=True)
class Row:
    """A figure of each category.

    Attributes:
        label: What it is.
        group: Where it stands in ``metrics``.
        path: Where it stands in the group's ``figures``, with ``CATEGORY`` for the category.
        digits: Shown after the point.
    """

    label: str
    group: str
    path: tuple[str, ...]
    digits: int

    def find(self, metrics: Mapping[str, Any], category: str) -> Mapping[str, Any] | None:
        """Return the figure of a category, or None where the group has none for it."""
        found: Any = metrics[self.group]["figures"]
        for part in self.path:
            found = found.get(category if part == _HERE else part)
            if found is None:
                return None
        return dict(found)


ROWS = (
    Row("Mask AP, %", "coco", ("segm", "AP", _HERE), 1),
    Row("Mask AP50, %", "coco", ("segm", "AP50", _HERE), 1),
    Row("Mask AP75, %", "coco", ("segm", "AP75", _HERE), 1),
    Row("Mask AP at IoU 0.10, %", "lenient", ("segm", "AP10", _HERE), 1),
    Row("Mask AP, mean of IoU 0.10 to 0.50, %", "lenient", ("segm", "AP10:50", _HERE), 1),
    Row("Box AP, %", "coco", ("bbox", "AP", _HERE), 1),
    Row("Box AP50, %", "coco", ("bbox", "AP50", _HERE), 1),
    Row("Found on slices at 1 false positive per image", "froc", ("slice_per_image", _HERE, "1"), 2),
    Row("Found in series at 1 false positive per series", "froc", ("series_per_series", _HERE, "1"), 2),
    Row("False positives per slice", "slices", ("false_positives", _HERE), 2),
    Row("Dice per series", "series", ("dice", _HERE), 2),
    Row("Volume error per series, share of the true volume", "series", ("absolute_relative_volume_error", _HERE), 2),
    Row("Slices: sensitivity", "slices", ("sensitivity", _HERE), 2),
    Row("Slices: specificity", "slices", ("specificity", _HERE), 2),
    Row("Slices: AUC", "slices", ("auc", _HERE), 2),
    Row("Expected calibration error", "calibration", ("ece", _HERE), 3),
)

HEADLINE = tuple(row for row in ROWS if row.label.startswith(("Mask AP50", "Found on slices")))
"""What a training says of its evaluation; the page holds the rest."""


def shown_categories(content: Mapping[str, Any]) -> list[str]:
    """Return the categories that have lesions or detections, after :data:`ALL` where there is not exactly one."""
    names, found = content["data"]["lesions"], content["results"]["detections"]
    own = [name for name in names if names[name] or found[name]]
    return own if len(own) == 1 else [ALL, *(own or names)]


def say_headline(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each figure of :data:`HEADLINE` that is defined, and one for the warnings.

    Args:
        content: What :func:`lung_d2.evaluation.evaluate.evaluate` returns.
    """
    yield from _say_rows(content, HEADLINE)
    if content["warnings"]:
        yield f"{len(content['warnings'])} warnings: see the page"


def say_figures(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each figure that is defined, each difference of a comparison, and each warning.

    Args:
        content: What :func:`lung_d2.evaluation.evaluate.evaluate` returns.
    """
    yield from _say_rows(content, ROWS)
    for warning in content["warnings"]:
        yield f"warning: {warning}"


def _say_rows(content: Mapping[str, Any], rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        for category in shown_categories(content):
            name = "" if category == ALL else f", {category.replace('_', ' ')}"
            figure = row.find(content["metrics"], category)
            if figure is None or figure["value"] is None:
                continue
            line = f"{row.label}{name}: {say_figure(figure, row.digits)}"
            if content["comparison"]:
                line += _say_difference(row.find(content["comparison"]["metrics"], category), row.digits)
            yield line


def say_figure(figure: Mapping[str, Any], digits: int) -> str:
    """Return a figure with its interval and its number of patients, marked where they are few."""
    interval = say_interval(figure, digits)
    few = " (few)" if interval and figure["patients"] < FEW_PATIENTS else ""
    patients = f"{figure['patients']} patient{'s' if figure['patients'] != 1 else ''}"
    return f"{figure['value']:.{digits}f}{interval}, {patients}{few}"


def _say_difference(figure: Mapping[str, Any] | None, digits: int) -> str:
    if figure is None or figure["difference"] is None:
        return ""
    against, difference = (f"{figure[key]:{sign}.{digits}f}" for key, sign in (("against", ""), ("difference", "+")))
    p = "" if figure["p"] is None else f", p {figure['p']:.3f}"
    return f"; against {against}: {difference}{say_interval(figure, digits)}{p}"


def say_interval(figure: Mapping[str, Any], digits: int) -> str:
    """Return the interval of a figure in brackets, after a space; empty where there is none."""
    return "" if figure["low"] is None else f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


PAGE_NAME = "evaluation.html"
_TEMPLATE = "evaluation_page.html"
_MOST_SERIES = 60
_FROC_TITLES = {
    "slice_per_image": "Lesions of slices, per image",
    "slice_per_series": "Lesions of slices, per series",
    "series_per_series": "Lesions of series, per series",
}
_COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_TASKS = {"segm": "mask", "bbox": "box"}


@dataclass(frozen=True)
class Cell:
    """A figure in a table.

    Attributes:
        value: As text, a dash where it is not defined.
        interval: As text; empty where there is none.
        patients: On how many it rests; None where it is not defined.
        is_few: Whether they are too few for the interval to be trusted.
    """

    value: str
    interval: str = ""
    patients: int | None = None
    is_few: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table: its label, then its cells."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its title, and the data URI of its SVG."""

    title: str
    source: str


def render_evaluation_page(content: Mapping[str, Any], truth: Truth, detections: Detections) -> str:
    """Make the page.

    Args:
        content: What :func:`lung_d2.evaluation.evaluate.evaluate` returns.
        truth: For the pictures.
        detections: For the pictures.

    Returns:
        HTML that needs no other file.

    Raises:
        DatasetError: A picture of the data set is broken.
    """
    metrics, threshold = content["metrics"], content["settings"]["score_threshold"]
    columns, colors = shown_categories(content), chart_colors(truth.categories)
    slices = {
        kind: list(draw_slices(truth, detections, content["slices"][kind], threshold)) for kind in content["slices"]
    }
    return render_page(
        "lung_d2.evaluation",
        _TEMPLATE,
        {
            "content": content,
            "metrics": metrics,
            "categories": {category.name: describe_category(category) for category in truth.categories},
            "columns": columns,
            "few": FEW_PATIENTS,
            "headline": [_line(row.label, (row.find(metrics, one) for one in columns), row.digits) for row in ROWS],
            "coco": list(_coco_lines(metrics, columns)),
            "froc": list(_froc_tables(metrics["froc"], columns)),
            "curves": list(_draw_curves(metrics, colors)),
            "reliability": list(_draw_reliability(metrics, colors)),
            "series_rows": sorted(metrics["series"]["curves"]["rows"], key=lambda row: row["dice"])[:_MOST_SERIES],
            "series_lines": list(_series_lines(metrics["series"]["figures"], columns)),
            "comparison": list(_comparison_lines(content["comparison"], columns)),
            "slices": slices,
        },
    )


def show_cell(figure: Mapping[str, Any] | None, digits: int) -> Cell:
    """Return a figure of ``evaluation.json`` as a cell."""
    if figure is None or figure["value"] is None:
        return Cell(UNKNOWN)
    interval = "" if figure["low"] is None else f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"
    is_few = bool(interval) and figure["patients"] < FEW_PATIENTS
    return Cell(f"{figure['value']:.{digits}f}", interval, figure["patients"], is_few)


def _line(label: str, figures: Iterator[Mapping[str, Any] | None], digits: int) -> Line:
    return Line(label, tuple(show_cell(figure, digits) for figure in figures))


def _coco_lines(metrics: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Line]:
    for task, word in _TASKS.items():
        for metric in _COCO_METRICS:
            figures = metrics["coco"]["figures"][task][metric]
            yield _line(f"{word} {metric}", (figures[name] for name in columns), 1)


def _froc_tables(froc: Mapping[str, Any], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield for each curve its title, rates, and a line for each category that has lesions or detections."""
    for curve in RATES:
        drawn = froc["curves"].get(curve, {})
        if not drawn:
            continue
        names = [*next(iter(drawn.values()))["thresholds"], MEAN]
        lines = [
            {
                "category": name,
                "lesions": own["lesions"],
                "cells": [show_cell(froc["figures"][curve][name][rate], 2) for rate in names],
                "thresholds": [_show_threshold(own["thresholds"][rate]) for rate in names[:-1]],
            }
            for name, own in drawn.items()
            if name in columns
        ]
        yield {"title": _FROC_TITLES[curve], "rates": names[:-1], "lines": lines}


def _show_threshold(threshold: float | None) -> str:
    if threshold is None:
        return "none"
    return "any" if threshold == 0 else f"{threshold:.3f}"


def _draw_curves(metrics: Mapping[str, Any], colors: Mapping[str, str]) -> Iterator[Chart]:
    froc = metrics["froc"]
    for curve, rates in RATES.items():
        with_lesions = {name: own for name, own in froc["curves"].get(curve, {}).items() if own["lesions"]}
        if with_lesions:
            unit = curve.rpartition("_")[2]
            svg = draw_froc(with_lesions, froc["figures"][curve], rates, unit, colors)
            yield Chart(_FROC_TITLES[curve], embed_svg(svg))
    coco = metrics["coco"]["curves"]
    if coco["precision_at_iou_50"]:
        svg = draw_precision_recall(coco["recall"], coco["precision_at_iou_50"], colors)
        yield Chart("Precision and recall of masks at IoU 0.50", embed_svg(svg))


def _draw_reliability(metrics: Mapping[str, Any], colors: Mapping[str, str]) -> Iterator[Chart]:
    diagrams = metrics["calibration"]["curves"]
    if diagrams:
        yield Chart("Reliability of scores", embed_svg(draw_reliability(diagrams, colors)))


def _series_lines(figures: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Line]:
    labels = {
        "dice": ("Dice", 2),
        "volume_error_ml": ("volume found minus true, ml", 1),
        "absolute_volume_error_ml": ("the same without its sign, ml", 1),
        "relative_volume_error": ("volume found minus true, share of the true", 2),
        "absolute_relative_volume_error": ("the same without its sign", 2),
    }
    for metric, (label, digits) in labels.items():
        yield _line(label, (figures[metric].get(name) for name in columns), digits)


def _comparison_lines(comparison: Mapping[str, Any] | None, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the headline figures that both results have: value, the other's, difference, interval, p."""
    if comparison is None:
        return
    for row in ROWS:
        for name in columns:
            figure = row.find(comparison["metrics"], name)
            if figure is None or figure["difference"] is None:
                continue
            shown = {key: f"{figure[key]:.{row.digits}f}" for key in ("value", "against")}
            difference = show_cell({**figure, "value": figure["difference"]}, row.digits)
            p = UNKNOWN if figure["p"] is None else f"{figure['p']:.3f}"
            yield {"label": row.label, "category": name, "difference": difference, "p": p} | shown
