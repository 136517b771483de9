"""The lesions of a series as a table: ``lesions.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from lung_d2.findings.schema import FindingsContent, LesionEntry
from lung_d2.lesions.lobes import LOBES

TABLE_NAME = "lesions.csv"

_SAME = (
    *("category", "score", "volume_ml"),
    *("voxel_count", "slice_count", "long_axis_mm", "short_axis_mm", "long_axis_slice_index"),
    *("mean_hu", "sd_hu", "p5_hu", "median_hu", "p95_hu", "side", "lung_share_percent", "reaches_end_of_scan"),
)
_EXTENTS = ("extent_right_left_mm", "extent_front_back_mm", "extent_foot_head_mm")
_CENTROID = ("centroid_x_lps_mm", "centroid_y_lps_mm", "centroid_z_lps_mm")
_SLICES = ("first_slice_index", "last_slice_index", "key_slice_index", "key_slice_position_mm")
_RANGE = ("lower_score", "volume_at_lower_score_ml", "upper_score", "volume_at_upper_score_ml")
_LOBES = tuple(f"{lobe.replace(' ', '_')}_lobe_{fact}" for lobe in LOBES for fact in ("ml", "percent"))

COLUMNS = (
    *("series_hash", "lesion_number"),
    *_SAME,
    *_EXTENTS,
    *_CENTROID,
    *_SLICES,
    "key_slice_sop_instance_uid",
    *_RANGE,
    *_LOBES,
)
"""Always all, in this order; what is unknown is empty."""


def format_lesion_table(content: FindingsContent) -> str:
    """Return the text of ``lesions.csv``: a row for each lesion, by number; without lesions only the header.

    Args:
        content: From :func:`lung_d2.findings.document.build_findings`.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for lesion in content["lesions"]:
        writer.writerow({"series_hash": content["series"]["series_hash"], **_row(lesion)})
    return stream.getvalue()


def _row(lesion: LesionEntry) -> dict[str, Any]:
    entries: Mapping[str, Any] = lesion
    key = next(one for one in lesion["slices"] if one["slice_index"] == lesion["key_slice_index"])
    row: dict[str, Any] = {
        "lesion_number": lesion["number"],
        **{name: entries[name] for name in _SAME},
        **dict(zip(_EXTENTS, lesion["extent_lps_mm"], strict=True)),
        **dict(zip(_CENTROID, lesion["centroid_lps_mm"], strict=True)),
        "first_slice_index": lesion["slices"][0]["slice_index"],
        "last_slice_index": lesion["slices"][-1]["slice_index"],
        "key_slice_index": lesion["key_slice_index"],
        "key_slice_position_mm": key["position_mm"],
        "key_slice_sop_instance_uid": key["sop_instance_uid"],
    }
    if (around := lesion["volume_range"]) is not None:
        values = (around["lower_score"], around["lower_score_ml"], around["upper_score"], around["upper_score_ml"])
        row.update(zip(_RANGE, values, strict=True))
    for lobe in lesion["lobes"]:
        name = lobe["lobe"].replace(" ", "_") + "_lobe_"
        row.update({name + "ml": lobe["volume_ml"], name + "percent": lobe["share_percent"]})
    return row
