"""Detections as COCO results, and the images that their ids mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lung_d2.categories import coco_categories
from lung_d2.lesions.detections import SliceDetections


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


def build_image_index(images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Build the COCO file that says what each ``image_id`` is, so that pycocotools loads the results over it."""
    return {
        "info": {"description": "slices of one series; image_id is the 0-based slice index along the normal"},
        "licenses": [],
        "categories": coco_categories(),
        "images": list(images),
        "annotations": [],
    }
