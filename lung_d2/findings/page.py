"""The findings of a series as one HTML page that stands alone: sentence, tables, pictures, and how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lung_d2.drawing.pages import UNKNOWN, describe_category, embed_jpeg, render_page, show_ml, show_number
from lung_d2.findings.coronal import draw_coronal
from lung_d2.findings.document import Findings
from lung_d2.findings.manifest import ModelIdentity, list_versions
from lung_d2.findings.pictures import KeySlicePainter
from lung_d2.findings.schema import FindingsContent, LesionEntry, Settings
from lung_d2.lesions import measure as measures
from lung_d2.lesions.link import LinkSettings
from lung_d2.lesions.lobes import SIDE_SHARE
from lung_d2.lesions.measure import Measure

PAGE_NAME = "report.html"
MOST_PICTURED = 20
_TEMPLATE = "findings_page.html"
_JPEG_QUALITY = 85
# With a table of 1000 lesions the page stays below 10 MB.
_PICTURE_BYTES = 8_000_000
_RULES = {"max": "highest of its slices", "mean": "mean over its slices, by area"}
_SHOWN_PACKAGES = ("lung_d2", "python", "torch", "detectron2", "highdicom")


def render_findings_page(found: Findings, content: FindingsContent, model: ModelIdentity) -> str:
    """Make the page, ``report.html``.

    It is the same for two equal runs: their times are in the manifest.

    Args:
        found: The findings, for the pictures.
        content: The same from :func:`lung_d2.findings.document.build_findings`.
        model: What was run.

    Returns:
        HTML that needs no other file, below 10 MB.
    """
    by_volume = sorted(content["lesions"], key=lambda lesion: (-lesion["volume_ml"], lesion["number"]))
    painter = KeySlicePainter(found.volume, found.lesions, found.lungs)
    pictures = dict(_paint(found, painter, by_volume[:MOST_PICTURED]))
    return render_page(
        "lung_d2.findings",
        _TEMPLATE,
        {
            "content": content,
            "categories": {category.name: describe_category(category) for category in found.categories},
            "lesions": by_volume,
            "pictures": pictures,
            "columns": [measure for measure in measures.MEASURES if measure.page == "table"],
            "details": {lesion["number"]: _say_details(lesion) for lesion in by_volume[:MOST_PICTURED]},
            "places": {lesion["number"]: _say_place(lesion) for lesion in by_volume},
            "coronal": embed_jpeg(draw_coronal(found.volume, found.lesions, found.lungs), _JPEG_QUALITY),
            "window": painter.window,
            "show": _show,
            "settings": list(_list_settings(content["settings"])),
            "run": list(_list_run(model)),
        },
    )


def _paint(
    found: Findings, painter: KeySlicePainter, chosen: Sequence[LesionEntry]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each lesion with its pictures, data URIs by what they show, until the page is full."""
    left = _PICTURE_BYTES
    lesions = {lesion.number: lesion for lesion in found.lesions}
    for entry in chosen:
        number = entry["number"]
        sources = {
            f"Lesion {number}: {title} {entry['key_slice_index']}": embed_jpeg(tile, _JPEG_QUALITY)
            for title, tile in painter.paint(lesions[number]).items()
        }
        left -= sum(map(len, sources.values()))
        if left < 0:
            return
        yield number, sources


def _show(measure: Measure, value: Any) -> str:
    """Return a measure as people read it, without its unit; a dash if it is unknown."""
    if isinstance(value, list):
        return " × ".join(_show(measure, one) for one in value)
    if measure.digits is None:
        return UNKNOWN if value is None else str(value)
    return show_ml(value) if measure.unit == "ml" else show_number(value, measure.digits)


def _say_details(lesion: LesionEntry) -> str:
    """Return the measures that stand beside the pictures of a lesion."""
    shown = [measure for measure in measures.MEASURES if measure.page]
    return " · ".join(f"{one.title} {_show(one, lesion[one.name])} {one.unit}".rstrip() for one in shown)


def _say_place(lesion: LesionEntry) -> str:
    """Return the lobes with a tenth or more of a lesion, the largest share first; else its side; else nothing."""
    lobes = sorted(lesion["lobes"], key=lambda lobe: -lobe["volume_ml"])
    inside_ml = sum(lobe["volume_ml"] for lobe in lobes)
    main = [lobe["lobe"] for lobe in lobes if lobe["volume_ml"] and lobe["volume_ml"] >= SIDE_SHARE * inside_ml]
    if main:
        return ", ".join(main)
    return {"both": "both sides", None: ""}.get(lesion["side"], lesion["side"] or "")


def _list_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    linking = LinkSettings(**settings["linking"])
    yield "Least score of a detection", f"{linking.min_detection_score:g}"
    yield "Least score of a lesion", f"{linking.min_lesion_score:g}"
    yield "Score of a lesion", _RULES[linking.score_rule]
    yield "Least volume", f"{linking.min_volume_mm3:g} mm³"
    yield "Least extent across the slices", f"{linking.min_extent_mm:g} mm"
    yield "Least overlap of detections of one lesion", f"{100 * linking.min_overlap:g} % of the smaller"
    yield "Missed slices allowed", f"up to {linking.max_gap_mm:g} mm"
    yield "Duplicate if lesions with a higher score cover", f"{100 * linking.max_covered:g} %"
    yield "Grey levels of the network", _say_grey(settings["grey_levels"])
    margin_mm = settings["lung_margin_mm"]
    yield "The network saw", "whole slices" if margin_mm is None else f"the lungs and {margin_mm:g} mm around them"
    yield "Lungs", settings["lungs_from"] or "not known"
    yield "Lobes", settings["lobes_from"] or "not known"


def _say_grey(grey: Mapping[str, Any]) -> str:
    slices = "each slice alone" if grey["channels"] == "single" else "each slice with its neighbours"
    if grey["kind"] == "window":
        return f"window C {grey['window_center']:g} W {grey['window_width']:g} HU, {slices}"
    return f"minimum to maximum of the slice, equalised, {slices}"


def _list_run(model: ModelIdentity) -> Iterator[tuple[str, str]]:
    yield "Device", model.device
    if model.name:
        yield "Weights", model.name
    if model.data:
        iterations = "" if model.iterations is None else f", {model.iterations} iterations"
        yield "Trained on", ", ".join(model.data) + iterations
    yield "Weights, SHA-256", model.weights_sha256
    yield "Config, SHA-256", model.config_sha256
    versions = list_versions()
    yield "Versions", ", ".join(f"{name} {versions[name]}" for name in _SHOWN_PACKAGES if versions[name])
