"""Masks to COCO annotations: instances by connected components, RLE so that holes stay."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.categories import Category


def connected_components(mask: npt.NDArray[np.generic]) -> list[npt.NDArray[np.bool_]]:
    """Split a mask into its parts that touch by edge or corner.

    Args:
        mask: ``(H, W)``; what is not 0 is inside.

    Returns:
        One bool ``(H, W)`` for each part; holes are kept.
    """
    # Compared, not cast: a label of 256 would be 0 in uint8.
    count, labels = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, count)]


def split_by_value(labels: npt.NDArray[np.integer[Any]]) -> list[npt.NDArray[np.bool_]]:
    """Split an instance map ``(H, W)`` into one bool ``(H, W)`` for each value above 0, ascending."""
    return [labels == value for value in np.unique(labels) if value > 0]


def encode_mask(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a bool ``(H, W)`` mask as compressed COCO RLE, ready for JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode a compressed COCO RLE to bool ``(H, W)``."""
    return np.asarray(coco_mask.decode(rle), bool)


def build_annotation(mask: npt.NDArray[np.bool_], category: Category, *, is_crowd: bool = False) -> dict[str, Any]:
    """Build the COCO annotation of one instance, without its ids.

    Args:
        mask: bool ``(H, W)``, not empty.
        category: The lesion's category.
        is_crowd: It is no instance, but where the source leaves this category undecided.

    Returns:
        ``segmentation`` (RLE), ``bbox`` (x, y, width, height in pixels), ``area`` in pixels, ``category_id``,
        ``iscrowd``.
    """
    rle = encode_mask(mask)
    return {
        "category_id": category.coco_id,
        "segmentation": rle,
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "area": int(coco_mask.area(rle)),
        "iscrowd": int(is_crowd),
    }
