"""A data set's report as one HTML page that stands alone: numbers, charts, pictures, and what looks wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from lung_d2.categories import CATEGORIES, Category
from lung_d2.data.folders import write_text
from lung_d2.data.summary import SCHEMA_VERSION
from lung_d2.errors import DatasetError
from lung_d2.report.charts import draw_histogram
from lung_d2.report.dataset_pictures import DatasetPictures

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
# Base64 takes a third more, the charts some 100 kB: the page stays below 5 MB.
_PICTURE_BYTES = 3_000_000


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
        "categories": [_describe_category(category) for category in CATEGORIES],
        "totals": _add_up(summary["splits"]),
        "lesion_charts": list(_lesion_charts(summary["lesions"])),
        "geometry_charts": list(_geometry_charts(summary)),
        "examples": [(_describe_category(one), list(pictures.examples(one, _EXAMPLES))) for one in CATEGORIES],
        "suspicions": suspicions,
    }
    template = (resources.files("lung_d2.report") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}"
    write_text(environment.from_string(template).render(content), folder / PAGE_NAME)
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


def _describe_category(category: Category) -> dict[str, str]:
    return {
        "key": category.name,
        "name": category.name.replace("_", " "),
        "color": "#{:02x}{:02x}{:02x}".format(*category.color),
    }


def _add_up(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the numbers of the splits; a patient is in one only."""
    keys = [key for key in next(iter(splits.values()), {}) if key != "categories"]
    totals: dict[str, Any] = {key: sum(split[key] for split in splits.values()) for key in keys}
    totals["lesions"] = {
        category.name: sum(split["categories"][category.name]["lesions"] for split in splits.values())
        for category in CATEGORIES
    }
    return totals


def _lesion_charts(lesions: Mapping[str, Mapping[str, Any]]) -> Iterator[Chart]:
    histograms = {fact: [lesions[category.name][fact] for category in CATEGORIES] for fact in _LESION_CHARTS}
    for fact, (title, label) in _LESION_CHARTS.items():
        if fact == "area_px" and not any(one["unknown"] for one in histograms["area_mm2"]):
            continue  # where every area is known in mm2, nobody needs it in pixels
        shown = [
            (one, category.color) for one, category in zip(histograms[fact], CATEGORIES, strict=True) if _known(one)
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
    svg = draw_histogram(histograms, label, count_of, colors)
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
    yield Chart(title, source, note)


def _known(histogram: Mapping[str, Any]) -> bool:
    return histogram["quantiles"] is not None
