"""The outputs of a series that are not DICOM: JSON, CSV, page, NIfTI, COCO results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.nifti import write_nifti
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError, OutputError
from lung_d2.files import write_json, write_text
from lung_d2.findings.document import FINDINGS_NAME, Findings, build_findings
from lung_d2.findings.manifest import ModelIdentity
from lung_d2.findings.page import PAGE_NAME, render_findings_page
from lung_d2.findings.schema import FindingsContent, LesionEntry
from lung_d2.lesions import measure as measures
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LOBES

TABLE_NAME = "lesions.csv"

_SLICES = ("first_slice_index", "last_slice_index", "key_slice_index", "key_slice_position_mm")
_RANGE = ("lower_score", "volume_at_lower_score_ml", "upper_score", "volume_at_upper_score_ml")
_LOBES = tuple(f"{lobe.replace(' ', '_')}_lobe_{fact}" for lobe in LOBES for fact in ("ml", "percent"))


def write_findings(found: Findings, model: ModelIdentity, folder: Path) -> FindingsContent:
    """Write ``findings.json``, ``lesions.csv`` and ``report.html``; each atomically.

    The manifest is not among them, because it says how long they took.

    Args:
        found: The findings.
        model: What was run.
        folder: Created if missing.

    Returns:
        What ``findings.json`` holds.

    Raises:
        OSError: They cannot be written.
    """
    content = build_findings(found, model)
    write_json(content, folder / FINDINGS_NAME, indent=1)
    write_text(format_lesion_table(content), folder / TABLE_NAME)
    write_text(render_findings_page(found, content, model), folder / PAGE_NAME)
    return content


def list_columns() -> list[str]:
    """Return the columns of ``lesions.csv``: always all of them, in this order; unknown values are empty."""
    measured = [column for measure in measures.MEASURES for column in measure.columns or (measure.name,)]
    first = ["series_hash", "lesion_number", "category"]
    return [*first, *measured, *_SLICES, "key_slice_sop_instance_uid", *_RANGE, *_LOBES]


def format_lesion_table(content: FindingsContent) -> str:
    """Return the text of ``lesions.csv``: a row for each lesion, by number; without lesions only the header.

    Args:
        content: From :func:`lung_d2.findings.document.build_findings`.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list_columns(), lineterminator="\n")
    writer.writeheader()
    for lesion in content["lesions"]:
        writer.writerow({"series_hash": content["series"]["series_hash"], **_row(lesion)})
    return stream.getvalue()


def _row(lesion: LesionEntry) -> dict[str, Any]:
    key = next(one for one in lesion["slices"] if one["slice_index"] == lesion["key_slice_index"])
    row: dict[str, Any] = {
        "lesion_number": lesion["number"],
        "category": lesion["category"],
        "first_slice_index": lesion["slices"][0]["slice_index"],
        "last_slice_index": lesion["slices"][-1]["slice_index"],
        "key_slice_index": lesion["key_slice_index"],
        "key_slice_position_mm": key["position_mm"],
        "key_slice_sop_instance_uid": key["sop_instance_uid"],
    }
    for measure in measures.MEASURES:
        row.update(measure.row(lesion[measure.name]))
    if (around := lesion["volume_range"]) is not None:
        values = (around["lower_score"], around["lower_score_ml"], around["upper_score"], around["upper_score_ml"])
        row.update(zip(_RANGE, values, strict=True))
    for lobe in lesion["lobes"]:
        name = lobe["lobe"].replace(" ", "_") + "_lobe_"
        row.update({name + "ml": lobe["volume_ml"], name + "percent": lobe["share_percent"]})
    return row


def write_lesion_nifti(lesions: Sequence[Lesion], volume: CTVolume, path: str | Path) -> Path:
    """Write the lesions on the grid of the volume; the value of a voxel is the number of its lesion, 0 is none.

    Where lesions overlap, as bronchiectasis inside ground glass, the smallest is written: a larger one would hide it.

    Args:
        lesions: May be none.
        volume: The volume on which they were found.
        path: A ``.nii`` or ``.nii.gz`` file; replaced if it exists.

    Returns:
        The file: uint8, or uint16 if there are more than 255 lesions.

    Raises:
        OutputError: It cannot be written.
    """
    highest = max((lesion.number for lesion in lesions), default=0)
    labels = np.zeros(volume.hu.shape, np.uint8 if highest <= 255 else np.uint16)
    for lesion in sorted(lesions, key=lambda one: one.voxel_count, reverse=True):
        labels[lesion.box][lesion.mask] = lesion.number
    try:
        write_nifti(labels, volume.affine_lps, path)
    except InputError as error:
        raise OutputError(error.where, found=error.found, expected=error.expected, remedy=error.remedy) from error
    return Path(path)


def build_results(detections: Sequence[SliceDetections]) -> list[dict[str, Any]]:
    """Build COCO results; ``image_id`` is the slice index.

    Returns:
        One dict for each detection: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels),
        ``score`` and ``segmentation`` (compressed RLE).
    """
    results = []
    for found in detections:
        for index in range(len(found)):
            x0, y0, x1, y1 = (float(value) for value in found.boxes[index])
            results.append(
                {
                    "image_id": found.slice_index,
                    "category_id": int(found.category_ids[index]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(found.scores[index]),
                    "segmentation": found.masks[index],
                }
            )
    return results


def build_image_index(images: Sequence[dict[str, Any]], categories: Categories = CATEGORIES) -> dict[str, Any]:
    """Build the COCO file that says what each ``image_id`` is; pycocotools loads the results with it."""
    return {
        "info": {"description": "slices of one series; image_id is the 0-based slice index along the normal"},
        "licenses": [],
        "categories": categories.to_coco(),
        "images": list(images),
        "annotations": [],
    }
