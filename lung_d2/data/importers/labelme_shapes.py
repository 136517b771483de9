"""The shapes of labelme as masks."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.importers.records import Record, take
from lung_d2.data.importers.shapes import Canvas
from lung_d2.data.instances import Region
from lung_d2.data.labels import LabelTable
from lung_d2.data.planes import decode_picture
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, check_coordinates

AREAS = frozenset({"polygon", "rectangle", "oriented_rectangle", "circle", "mask"})
"""The kinds of shapes that are areas."""


def kind_of(shape: Record) -> str:
    """Return the kind of a shape."""
    return str(shape.get("shape_type") or "polygon")  # labelme before 3.5 had polygons only, without a type


def decode_base64(text: object, where: str, expected: str = "8-bit grey levels of a CT slice") -> npt.NDArray[np.uint8]:
    """Decode a picture that a JSON file holds as text; see :func:`lung_d2.data.planes.decode_picture`."""
    try:
        data = base64.b64decode(text if isinstance(text, str) else "")
    except (binascii.Error, ValueError):
        data = b""
    return decode_picture(data, where, expected)


def read_region(shape: Record, where: str, labels: LabelTable, canvas: Canvas) -> Region:
    """Read one shape.

    Args:
        shape: Its record; of a kind in ``AREAS``.
        where: File and shape, for messages.
        labels: What labels mean.
        canvas: The picture.

    Returns:
        Its meaning and mask; shapes of one label and ``group_id`` are of one lesion.

    Raises:
        DatasetError: The shape is broken, has no area or lies outside the picture.
        InputError: Its mask is no readable picture.
    """
    label = take(shape, "label", str, where)
    group = shape.get("group_id")
    return Region(
        meaning=labels.meaning(label, where=where),
        mask=_read_mask(shape, where, canvas),
        lesion=None if group is None else f"{label} {group}",
    )


def _read_mask(shape: Record, where: str, canvas: Canvas) -> Mask:
    kind, points = kind_of(shape), _points(shape, where)
    if kind == "mask":
        part = decode_base64(shape.get("mask"), f"{where}: mask", "a mask as PNG") > 0
        left, top = np.rint(points.min(axis=0)).astype(int)
        return canvas.paste(part, int(left), int(top), where)
    if kind == "circle":
        _expect(points, 2, "circle", where)
        return canvas.fill_circle(points[0], float(np.hypot(*(points[1] - points[0]))), where)
    if kind == "rectangle" and len(points) != 4:
        _expect(points, 2, "rectangle", where)
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return canvas.fill(points, where)


def _points(shape: Record, where: str) -> npt.NDArray[np.float64]:
    values: list[Any] = take(shape, "points", list, where)
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DatasetError(where, found="broken points", expected="[[x, y], ...]", remedy="draw it again")
    check_coordinates(points, where)
    return points


def _expect(points: npt.NDArray[np.float64], count: int, kind: str, where: str) -> None:
    if len(points) != count:
        raise DatasetError(
            where, found=f"a {kind} of {len(points)} point(s)", expected=str(count), remedy="draw it again"
        )
