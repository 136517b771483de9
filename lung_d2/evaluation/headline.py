"""The figures of an evaluation that are shown first, and how they are said in a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.figures import ALL, NAMES

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


def shown_categories(content: Mapping[str, Any]) -> list[str]:
    """Return the categories that have lesions or detections, after :data:`ALL` where there is not exactly one."""
    own = [name for name in NAMES if content["data"]["lesions"][name] or content["results"]["detections"][name]]
    return own if len(own) == 1 else [ALL, *(own or NAMES)]


def say_headline(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each figure that is defined, each difference of a comparison, and each warning.

    Args:
        content: What :func:`lung_d2.evaluation.evaluate.evaluate` returns.
    """
    for row in ROWS:
        for category in shown_categories(content):
            name = "" if category == ALL else f", {category.replace('_', ' ')}"
            figure = row.find(content["metrics"], category)
            if figure is None or figure["value"] is None:
                continue
            line = f"{row.label}{name}: {say_figure(figure, row.digits)}"
            if content["comparison"]:
                line += _say_difference(row.find(content["comparison"]["metrics"], category), row.digits)
            yield line
    for warning in content["warnings"]:
        yield f"warning: {warning}"


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
