"""The segmentation of a COCO annotation as a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.importers.shapes import Canvas
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, decode_runs, read_runs

_REMEDY = "export it again"


def decode_segmentation(segmentation: Any, canvas: Canvas, where: str) -> Mask:
    """Decode a segmentation: polygons, which add up, or RLE, compressed or not.

    Polygons are filled by their true edges, see :mod:`lung_d2.masks`, with (0, 0) at the picture's corner, so
    that a pixel's centre is at (0.5, 0.5). ``frPyObjects`` of ``pycocotools`` means the same, but rounds the points to
    a fifth of a pixel and leaves out some centres on the contour: of random contours of 16 to 80 pixels across, the
    two differ in one pixel for every twenty pixels of the contour's length (IoU 0.99).

    Args:
        segmentation: As it is in the JSON file.
        canvas: The picture.
        where: File and annotation, for messages.

    Returns:
        bool ``(H, W)``.

    Raises:
        DatasetError: There is none, or a broken one.
    """
    if isinstance(segmentation, dict):
        return decode_runs(read_runs(segmentation, canvas.shape, where), canvas.shape)
    if not segmentation:
        raise DatasetError(
            where,
            found="no segmentation, a box at most",
            expected="polygons or RLE",
            remedy="draw its outline: a lesion needs a mask; or leave it out: --skip-shapes, --label NAME=background",
        )
    if not isinstance(segmentation, list) or not all(isinstance(ring, list) for ring in segmentation):
        raise DatasetError(
            where, found="a segmentation of another form", expected="a list of polygons, or RLE", remedy=_REMEDY
        )
    mask = np.zeros(canvas.shape, bool)
    for ring in segmentation:
        mask |= canvas.fill(_pair(ring, where), where)
    return mask


def polygons_of(segmentation: Any) -> list[list[Any]]:
    """Return the polygons of a segmentation as pairs of x and y, right or wrong; none of RLE."""
    rings = segmentation if isinstance(segmentation, list) else []
    return [list(zip(ring[::2], ring[1::2], strict=False)) for ring in rings if isinstance(ring, list)]


def _pair(ring: list[Any], where: str) -> npt.NDArray[np.float64]:
    """Return the points ``(N, 2)`` of ``[x0, y0, x1, y1, ...]``."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in ring):
        raise DatasetError(where, found="a polygon of other than numbers", expected="x, y, x, y, ...", remedy=_REMEDY)
    if len(ring) % 2:
        raise DatasetError(
            where, found=f"a polygon of {len(ring)} numbers", expected="an even number: x, y, x, y, ...", remedy=_REMEDY
        )
    try:
        return np.array(ring, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise DatasetError(where, found="a coordinate that is not finite", remedy="draw it again") from error
