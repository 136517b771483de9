"""Masks: connected components, COCO RLE, and filled polygons.

A polygon is filled by the even-odd rule: a pixel is inside where its centre is. The rule is exact at any scale, without
rounding the points to pixels, and takes the contour itself as inside: the contours that ``cv2.findContours`` draws
through the centres of a mask's outermost pixels, holes included, give back that very mask. No library at hand does
this: ``matplotlib.path`` and ``skimage.draw.polygon`` leave out some pixels on the contour (and take 2 s for 4,000
points in 512 x 512, which take 2 ms here), ``cv2.fillPoly`` rounds the points to pixels, ``pycocotools`` to a fifth of
a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.categories import Category
from lung_d2.errors import DatasetError

Mask = npt.NDArray[np.bool_]
"""bool ``(H, W)``."""
Points = npt.NDArray[np.float64]
"""float64 ``(N, 2)``, x (column) and y (row) in pixels."""

MAX_COORDINATE = 1e9
"""Largest coordinate of a polygon, in pixels or mm: pictures have at most 8,192 pixels a side; far larger numbers would
overflow."""

_TOLERANCE = 1e-6  # of a pixel: what formats that write millimetres or decimals lose
_FIRST_LETTER, _MOST_LETTERS = 48, 7  # of compressed RLE; 7 letters hold 35 bits


def connected_components(mask: npt.NDArray[np.generic]) -> list[Mask]:
    """Split a mask into the parts whose pixels touch by edge or corner.

    Args:
        mask: ``(H, W)``; every value but 0 is inside.

    Returns:
        One bool ``(H, W)`` for each part, with its holes.
    """
    # Compared, not cast: a label of 256 would be 0 in uint8.
    count, labels = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, count)]


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a mask that is not empty, in pixels; right and bottom are exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def encode_mask(mask: Mask) -> dict[str, Any]:
    """Encode a bool ``(H, W)`` mask as compressed COCO RLE, ready for JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: dict[str, Any]) -> Mask:
    """Decode a compressed COCO RLE to bool ``(H, W)``."""
    return np.asarray(coco_mask.decode(rle), bool)


def build_annotation(mask: Mask, category: Category, *, is_crowd: bool = False) -> dict[str, Any]:
    """Build the COCO annotation of one instance, without its ids.

    Args:
        mask: bool ``(H, W)``, not empty.
        category: The lesion's category.
        is_crowd: The mask is not an instance, but a region where the source leaves this category undecided.

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


def read_runs(rle: dict[str, Any], shape: tuple[int, int], where: str, remedy: str = "") -> list[int]:
    """Read and check RLE, compressed or not; ``pycocotools`` takes whatever it is given.

    Args:
        rle: ``size`` and ``counts``, as in a JSON file.
        shape: Rows and columns of the picture.
        where: File and annotation, for messages.
        remedy: What to do about an error, for messages; empty: what the user of an importer can do.

    Returns:
        The lengths of the runs, background first, down the columns; they sum to the number of pixels.

    Raises:
        DatasetError: The RLE is broken, or of a picture of another size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if size != list(shape):
        raise DatasetError(
            where,
            found=f"RLE of size {str(size)[:40]}",
            expected=f"{list(shape)} (rows, columns), as its picture",
            remedy=remedy or "give the picture that was annotated",
        )
    remedy = remedy or "export it again"
    runs = _decompress_runs(counts, where, remedy) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise DatasetError(where, found="broken RLE counts", expected="runs of pixels", remedy=remedy)
    if sum(runs) != shape[0] * shape[1]:  # pycocotools would leave the rest of the memory uninitialised
        raise DatasetError(where, found=f"RLE of {sum(runs)} pixels", expected=f"{shape[0] * shape[1]}", remedy=remedy)
    return runs


def decode_runs(runs: list[int], shape: tuple[int, int]) -> Mask:
    """Decode what :func:`read_runs` returns to bool ``(H, W)``."""
    return np.asarray(coco_mask.decode(coco_mask.frPyObjects({"size": list(shape), "counts": runs}, *shape)), bool)


def _decompress_runs(text: str, where: str, remedy: str) -> list[int]:
    """Return the runs of compressed RLE: 5 bits a character; from the fourth on, a run is relative to two before it."""
    digits = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - _FIRST_LETTER
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    longest = max(lengths.max(initial=0), len(digits) - lengths.sum())
    if (digits < 0).any() or (digits >= 64).any() or longest > _MOST_LETTERS:
        raise DatasetError(where, found="broken RLE counts", expected="what COCO writes", remedy=remedy)
    if lengths.sum() < len(digits):
        raise DatasetError(where, found="truncated RLE counts", expected="what COCO writes", remedy=remedy)
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


def fill_polygon(points: npt.ArrayLike, shape: tuple[int, int]) -> Mask:
    """Fill one closed contour; see :func:`fill_polygons`.

    Args:
        points: ``(N, 2)``, x (column) and y (row) in pixels; (0, 0) is the centre of the first pixel.
        shape: ``(H, W)`` of the mask.

    Returns:
        bool ``(H, W)``.

    Raises:
        DatasetError: The points are not a contour.
    """
    return fill_polygons([points], shape)


def fill_polygons(rings: Sequence[npt.ArrayLike], shape: tuple[int, int]) -> Mask:
    """Fill closed contours together: what an odd number of them surrounds is inside, so a ring in a ring is a hole.

    A pixel whose centre lies on a contour (within a millionth of a pixel) is inside, also on the rim of a hole. The
    last point of a ring may repeat the first. Points may lie outside the picture; the filled area is clipped.

    Args:
        rings: Each ``(N, 2)``, x (column) and y (row) in pixels; (0, 0) is the centre of the first pixel.
        shape: ``(H, W)`` of the mask.

    Returns:
        bool ``(H, W)``; empty where the contours surround no pixel's centre.

    Raises:
        DatasetError: A ring has fewer than 3 points, no area (all points on one line), or a number that is not finite
            or beyond :data:`MAX_COORDINATE`. The error names only ``polygon``; callers that know the file use ``at``.
    """
    checked = [check_ring(ring) for ring in rings]
    mask = np.zeros(shape, bool)
    if checked:
        # Only within their bounding box: the contour of a lesion takes a small part of a slice.
        points = np.concatenate(checked)
        low = np.clip(np.floor(points.min(axis=0)), 0, shape[::-1]).astype(np.intp)
        high = np.clip(np.ceil(points.max(axis=0)) + 1, low, shape[::-1]).astype(np.intp)
        window = mask[low[1] : high[1], low[0] : high[0]]
        window[:] = _fill_window([ring - low for ring in checked], window.shape)
    return mask


def check_ring(points: npt.ArrayLike) -> Points:
    """Return the points of a contour as float64 ``(N, 2)``, rounded to the tolerance.

    Raises:
        DatasetError: The contour does not surround an area.
    """
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        found = f"{len(ring)} point(s)" if ring.ndim == 2 else f"an array of shape {ring.shape}"
        raise DatasetError("polygon", found=found, expected="3 points (x, y) or more", remedy="draw it again")
    check_coordinates(ring, "polygon")
    if np.linalg.matrix_rank(ring - ring.mean(axis=0), tol=_TOLERANCE) < 2:
        raise DatasetError("polygon", found="no area: its points lie on one line", remedy="draw it again")
    return np.round(ring / _TOLERANCE) * _TOLERANCE


def check_coordinates(values: npt.NDArray[np.float64], where: str | Path) -> None:
    """Raise :class:`DatasetError` where a coordinate is not finite, or beyond :data:`MAX_COORDINATE`."""
    if not np.isfinite(values).all():
        raise DatasetError(where, found="a coordinate that is not finite", remedy="draw it again")
    farthest = np.abs(values).max(initial=0.0)
    if farthest > MAX_COORDINATE:
        raise DatasetError(
            where,
            found=f"a coordinate of {farthest:.3g}",
            expected=f"at most {MAX_COORDINATE:,.0f}",
            remedy="draw it again",
        )


def _fill_window(rings: Sequence[Points], shape: tuple[int, ...]) -> Mask:
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    down = (starts[:, 1] <= ends[:, 1])[:, None]
    upper, lower = np.where(down, starts, ends), np.where(down, ends, starts)
    flat = upper[:, 1] == lower[:, 1]
    mask = _fill_inside(upper[~flat], lower[~flat], shape)
    _draw_horizontal(upper[flat], lower[flat], mask)
    return mask


def _fill_inside(upper: Points, lower: Points, shape: tuple[int, ...]) -> Mask:
    """Fill what the edges surround (none of them horizontal), and the pixels whose centre they cross."""
    height, width = shape
    first = np.ceil(np.clip(upper[:, 1] - _TOLERANCE, 0, height)).astype(np.intp)
    last = np.floor(np.clip(lower[:, 1] + _TOLERANCE, -1, height - 1)).astype(np.intp)
    counts = np.maximum(last - first + 1, 0)
    edge = np.repeat(np.arange(len(upper)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    column = upper[edge, 0] + (row - upper[edge, 1]) * slope[edge]
    nearest = np.rint(column)
    on_centre = (np.abs(column - nearest) <= _TOLERANCE) & (nearest >= 0) & (nearest < width)
    # A row that meets a corner counts the edge below it alone: each contour is crossed an even number of times.
    crosses = (row >= upper[edge, 1]) & (row < lower[edge, 1])
    turn = np.ceil(np.clip(column[crosses], 0, width)).astype(np.intp)  # every pixel from here on changes sides
    turns = np.bincount(row[crosses] * (width + 1) + turn, minlength=height * (width + 1))
    mask = (np.cumsum(turns.reshape(height, width + 1)[:, :width], axis=1) & 1).astype(bool)
    mask[row[on_centre], nearest[on_centre].astype(np.intp)] = True
    return mask


def _draw_horizontal(start: Points, end: Points, mask: Mask) -> None:
    """Draw horizontal edges that run through pixel centres."""
    height, width = mask.shape
    row = np.rint(start[:, 1])
    through = (np.abs(start[:, 1] - row) <= _TOLERANCE) & (row >= 0) & (row < height)
    left = np.ceil(np.clip(np.minimum(start[:, 0], end[:, 0]) - _TOLERANCE, 0, width)).astype(np.intp)
    right = np.floor(np.clip(np.maximum(start[:, 0], end[:, 0]) + _TOLERANCE, -1, width - 1)).astype(np.intp)
    for y, x0, x1 in zip(row[through].astype(np.intp), left[through], right[through], strict=True):
        mask[y, x0 : x1 + 1] = True
