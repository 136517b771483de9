"""Records of a data set as the import makes them, and a chest drawn by hand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.quality.facts import measure_slice
from lung_d2.masks import build_annotation

LUNG_HU, TISSUE_HU, BONE_HU, AIR_HU = -850, 30, 700, -1000
Mask = npt.NDArray[np.bool_]


def draw_chest(size: int = 128, seed: int = 0) -> tuple[npt.NDArray[np.int16], Mask]:
    """Draw a slice of a patient on the back: spine at the bottom, heart to the right of the picture.

    Returns:
        int16 HU ``(size, size)`` with noise of 10 HU, and the lung field.
    """
    rng = np.random.default_rng(seed)
    plane = np.full((size, size), AIR_HU, np.float32)
    lungs = np.zeros((size, size), np.uint8)

    def place(x: float, y: float) -> tuple[int, int]:
        return round(x * size), round(y * size)

    cv2.ellipse(plane, place(0.5, 0.5), place(0.44, 0.32), 0, 0, 360, TISSUE_HU, -1)
    for x in (0.31, 0.69):
        cv2.ellipse(lungs, place(x, 0.48), place(0.14, 0.22), 0, 0, 360, 1, -1)
    cv2.ellipse(lungs, place(0.56, 0.42), place(0.11, 0.12), 0, 0, 360, 0, -1)  # the heart
    plane[lungs > 0] = LUNG_HU
    cv2.circle(plane, place(0.5, 0.72), round(0.05 * size), BONE_HU, -1)
    return np.rint(plane + rng.normal(0, 10, plane.shape)).astype(np.int16), lungs > 0


def build_record(item: AnnotatedSlice, series: str = "s", patient: str = "", neighbours: bool = True) -> dict[str, Any]:
    """Build the record of a slice, as the import does."""
    annotations = [build_annotation(mask, category) for category, mask in item.instances if mask.any()]
    if item.undecided is not None:
        annotations.append(build_annotation(item.undecided, item.instances[0][0], is_crowd=True))
    record = {
        "file_name": f"{series}/{item.slice_index:04d}.png",
        "height": item.plane.shape[0],
        "width": item.plane.shape[1],
        "hu": item.plane.dtype == np.int16,
        "pixel_spacing_mm": item.pixel_spacing_mm,
        "slice_position_mm": item.slice_position_mm,
        "slice_index": item.slice_index,
        "patient": patient or series,
        "series": series,
        "annotations": annotations,
        "facts": measure_slice(item),
    }
    return record | ({"neighbours": [record["file_name"]] * 2} if neighbours else {})


def build_records(items: Iterable[AnnotatedSlice], series: str = "s", patient: str = "") -> list[dict[str, Any]]:
    """Build the records of a series."""
    return [build_record(item, series, patient) for item in items]
