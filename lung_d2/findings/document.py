"""The findings of a series as plain data: ``findings.json``, on which CSV and page are based."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from lung_d2 import __version__
from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.grey import GreyLevels
from lung_d2.ct.headers import show_uid
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import Warning
from lung_d2.findings.manifest import ModelIdentity
from lung_d2.findings.schema import SCHEMA_VERSION, FindingsContent
from lung_d2.findings.warnings import find_warnings
from lung_d2.lesions.lesion import Lesion, voxel_volumes_ml
from lung_d2.lesions.link import LinkSettings
from lung_d2.lesions.lobes import SIDES, LungLabels
from lung_d2.lesions.measure import Measurement
from lung_d2.lesions.totals import ANY, SeverityScore, Total, VolumeRanges

FINDINGS_NAME = "findings.json"
NOTE = "Research use only. Not a medical device: not for diagnosis or treatment."
NOTHING = "no lesion found"
_DECIMALS = 6


@dataclass(frozen=True)
class FindingSettings:
    """How findings were made.

    Attributes:
        link: From detections to lesions.
        grey: Grey levels of the images that the network saw.
        channels: Channels of these images, see :func:`lung_d2.ct.grey.image_from_planes`.
        lungs_from: Source of the lung field, in a few words without paths; empty if there is none.
        lobes_from: Source of the lobes, in the same form.
        lung_margin_mm: The network saw the box of the lungs with this margin; None: whole slices.
    """

    link: LinkSettings = field(default_factory=LinkSettings)
    grey: GreyLevels = field(default_factory=GreyLevels)
    channels: str = "single"
    lungs_from: str = ""
    lobes_from: str = ""
    lung_margin_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Findings:
    """The lesions of one series, measured.

    Attributes:
        volume: The series.
        lesions: From :func:`lung_d2.lesions.link.link_lesions`; may be none.
        measurements: One for each lesion, in their order.
        totals: From :func:`lung_d2.lesions.totals.measure_totals`.
        settings: How they were made.
        ranges: From :func:`lung_d2.lesions.totals.measure_volume_ranges`, where measured.
        severity: From :func:`lung_d2.lesions.totals.score_severity`, where lobes are given.
        lungs: Where the lungs are, where known.
        warnings: Warnings of the caller, such as that of a refused output; without names, ids and paths.
        categories: The categories of the model.
    """

    volume: CTVolume
    lesions: tuple[Lesion, ...]
    measurements: tuple[Measurement, ...]
    totals: Mapping[str, Total]
    settings: FindingSettings = field(default_factory=FindingSettings)
    ranges: VolumeRanges | None = None
    severity: SeverityScore | None = None
    lungs: LungLabels | None = None
    warnings: tuple[Warning, ...] = ()
    categories: Categories = CATEGORIES

    def __post_init__(self) -> None:
        assert [one.number for one in self.lesions] == [one.lesion_number for one in self.measurements]
        assert set(self.totals) == {*self.categories.names, ANY}


def build_findings(found: Findings, model: ModelIdentity | None = None) -> FindingsContent:
    """Return the findings as ``findings.json`` holds them, see :mod:`lung_d2.findings.schema`.

    Args:
        found: The findings.
        model: What was run, if known.
    """
    volume, severity = found.volume, found.severity
    warnings = (
        *found.warnings,
        *find_warnings(volume, found.lesions, found.measurements, found.settings.grey, found.lungs),
    )
    content = {
        "schema_version": SCHEMA_VERSION,
        "note": NOTE,
        "lung_d2_version": __version__,
        "series": {
            "series_hash": volume.series_hash,
            "series_instance_uid": _known_uid(volume.series_instance_uid),
            "study_instance_uid": _known_uid(volume.study_instance_uid),
        },
        "geometry": _describe_geometry(volume),
        "settings": _describe_settings(found.settings),
        "model": None if model is None else _describe_model(model),
        "lesions_found": bool(found.lesions),
        "summary": _summarise(found),
        "warnings": [asdict(warning) for warning in warnings],
        "totals": {name: _describe_total(name, found) for name in found.totals},
        "lungs": None if found.lungs is None else _measure_lungs(volume, found.lungs),
        "severity": None if severity is None or not severity.lobes else asdict(severity),
        "lesions": [
            _describe_lesion(lesion, measurement, found)
            for lesion, measurement in zip(found.lesions, found.measurements, strict=True)
        ],
    }
    return cast(FindingsContent, _plain(content))


def _describe_geometry(volume: CTVolume) -> dict[str, Any]:
    return {
        "shape_zyx": list(volume.hu.shape),
        "spacing_mm": volume.spacing_mm,
        "affine_lps": volume.affine_lps.tolist(),
        "first_slice_position_mm": volume.slice_positions_mm[0],
        "last_slice_position_mm": volume.slice_positions_mm[-1],
    }


def _describe_settings(settings: FindingSettings) -> dict[str, Any]:
    grey = settings.grey
    windowed = grey.kind == "window"
    return {
        "linking": asdict(settings.link),
        "grey_levels": {
            "kind": grey.kind,
            "window_center": grey.window_center if windowed else None,
            "window_width": grey.window_width if windowed else None,
            "channels": settings.channels,
        },
        "lungs_from": settings.lungs_from or None,
        "lobes_from": settings.lobes_from or None,
        "lung_margin_mm": settings.lung_margin_mm,
    }


def _describe_model(model: ModelIdentity) -> dict[str, Any]:
    return {
        "name": model.name or None,
        "weights_sha256": model.weights_sha256 or None,
        "config_sha256": model.config_sha256 or None,
        "data": model.data,
        "iterations": model.iterations,
    }


def _describe_total(name: str, found: Findings) -> dict[str, Any]:
    around = found.ranges.categories.get(name) if found.ranges else None
    return {**asdict(found.totals[name]), "volume_range": around and asdict(around)}


def _describe_lesion(lesion: Lesion, measurement: Measurement, found: Findings) -> dict[str, Any]:
    volume = found.volume
    number = measurement.lesion_number
    pixel_mm2 = volume.spacing_mm[1] * volume.spacing_mm[2]
    around = found.ranges.lesions.get(number) if found.ranges else None
    return {
        "number": number,
        "category": lesion.category.name,
        **measurement.values,
        "key_slice_index": measurement.key_slice_index,
        "lobes": [asdict(lobe) for lobe in measurement.lobes],
        "box": {
            "start_zyx": [part.start for part in lesion.box],
            "stop_zyx": [part.stop for part in lesion.box],
        },
        "volume_range": around and asdict(around),
        "slices": [
            {
                "slice_index": index,
                "position_mm": volume.slice_positions_mm[index],
                "sop_instance_uid": _known_uid(volume.sop_instance_uids[index]),
                "frame_number": volume.frame_numbers[index],
                "score": score,
                "area_mm2": area * pixel_mm2,
            }
            for index, score, area in zip(lesion.slice_indices, lesion.slice_scores, lesion.slice_areas_px, strict=True)
        ],
    }


def _measure_lungs(volume: CTVolume, lungs: LungLabels) -> dict[str, float]:
    voxel_ml = voxel_volumes_ml(volume)
    counts = np.array([[np.count_nonzero(plane == side) for side in (1, 2)] for plane in lungs.labels])
    return {f"{side}_ml": float(ml) for side, ml in zip(SIDES, voxel_ml @ counts, strict=True)}


def _summarise(found: Findings) -> str:
    slices = f"{len(found.volume.hu)} slice{'s' if len(found.volume.hu) != 1 else ''}"
    if not found.lesions:
        return f"On {slices} {NOTHING} with a score of at least {found.settings.link.min_lesion_score:g}."
    parts = []
    for category in found.categories:
        total = found.totals[category.name]
        if total.lesion_count:
            share = "" if total.lung_share_percent is None else f", {total.lung_share_percent:.1f} % of the lungs"
            parts.append(f"{total.lesion_count} of {category.name.replace('_', ' ')} ({total.volume_ml:.1f} ml{share})")
    count = len(found.lesions)
    return f"{count} lesion{'s' if count != 1 else ''} found on {slices}: {' and '.join(parts)}."


def _known_uid(uid: str) -> str | None:
    """Return a UID if it is legal; in a damaged file it may be any text."""
    return uid if uid and show_uid(uid) == uid else None


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON: no tuples, numpy numbers, NaN or infinity."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return round(value, _DECIMALS) if math.isfinite(value) else None
    return value
