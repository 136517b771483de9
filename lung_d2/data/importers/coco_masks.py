"""The segmentation of a COCO annotation as a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.data.cases import Mask
from lung_d2.data.importers.shapes import Canvas
from lung_d2.errors import DatasetError

_REMEDY = "export it again"
_FIRST_LETTER, _MOST_LETTERS = 48, 7  # of compressed RLE; 7 letters hold 35 bits


def decode_segmentation(segmentation: Any, canvas: Canvas, where: str) -> Mask:
    """Decode a segmentation: polygons, which add up, or RLE, compressed or not.

    Polygons are filled by their true edges, see :mod:`lung_d2.data.polygons`, with (0, 0) at the picture's corner, so
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
        return _decode_rle(segmentation, canvas.shape, where)
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


def read_runs(rle: dict[str, Any], shape: tuple[int, int], where: str, remedy: str = "") -> list[int]:
    """Read RLE, compressed or not, with care: ``pycocotools`` takes whatever it is given.

    Args:
        rle: ``size`` and ``counts``, as they are in the JSON file.
        shape: Rows and columns of the picture.
        where: File and annotation, for messages.
        remedy: What to do about a wrong one, for messages; empty: what an importer's user can do.

    Returns:
        The lengths of the runs, background first, down the columns; together they are the whole picture.

    Raises:
        DatasetError: It is broken, or of a picture of another size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if size != list(shape):
        raise DatasetError(
            where,
            found=f"RLE of size {str(size)[:40]}",
            expected=f"{list(shape)} (rows, columns), its picture's",
            remedy=remedy or "give the picture that was annotated",
        )
    remedy = remedy or _REMEDY
    runs = _runs_of_text(counts, where, remedy) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise DatasetError(where, found="broken RLE counts", expected="runs of pixels", remedy=remedy)
    if sum(runs) != shape[0] * shape[1]:  # pycocotools leaves what is missing as the memory was
        raise DatasetError(where, found=f"RLE of {sum(runs)} pixels", expected=f"{shape[0] * shape[1]}", remedy=remedy)
    return runs


def _decode_rle(rle: dict[str, Any], shape: tuple[int, int], where: str) -> Mask:
    runs = read_runs(rle, shape, where)
    return np.asarray(coco_mask.decode(coco_mask.frPyObjects({"size": list(shape), "counts": runs}, *shape)), bool)


def _runs_of_text(text: str, where: str, remedy: str) -> list[int]:
    """Return the runs of compressed RLE: 5 bits a character, each run from the fourth on less that two before it."""
    digits = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - _FIRST_LETTER
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    longest = max(lengths.max(initial=0), len(digits) - lengths.sum())
    if (digits < 0).any() or (digits >= 64).any() or longest > _MOST_LETTERS:
        raise DatasetError(where, found="broken RLE counts", expected="what COCO writes", remedy=remedy)
    if lengths.sum() < len(digits):
        raise DatasetError(where, found="RLE counts that break off", expected="what COCO writes", remedy=remedy)
    if not len(ends):
        return []
    starts = ends - lengths + 1
    bits = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << bits, starts)
    runs -= (digits[ends] >> 4 & 1) << 5 * lengths  # the sign
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    found: list[int] = runs.tolist()
    return found
