"""Values of COCO JSON, which anybody may have written, checked one by one."""

from __future__ import annotations

import sys
from typing import Any

from pycocotools import mask as coco_mask

from lung_d2.ct.planes import MAX_SIDE
from lung_d2.masks import read_runs


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; JSON has whole numbers that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_box(value: Any) -> bool:
    """Return whether a value is x, y, width and height of a box in or near a slice, in pixels."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        return False
    return max(map(abs, value)) <= 2 * MAX_SIDE and min(value[2:]) >= 0


def compress_mask(rle: Any, shape: tuple[int, int], where: str, remedy: str) -> dict[str, Any]:
    """Return RLE, compressed or not, as compressed RLE; see :func:`lung_d2.masks.read_runs`.

    Raises:
        DatasetError: It is broken, or of a picture of another size.
    """
    runs = read_runs(rle, shape, where, remedy)
    if isinstance(rle["counts"], str):
        return {"size": list(shape), "counts": rle["counts"]}
    return dict(coco_mask.frPyObjects({"size": list(shape), "counts": runs}, *shape))
