r"""labelme: a JSON file for each picture, in one folder or in several.

::

    SOURCE/.../0001.json      shapes, and the name of the picture or the picture itself (imageData)
    SOURCE/.../0001.png       where ``imagePath`` is "0001.png"

Polygons, rectangles, circles and masks are lesions; those of one label and ``group_id`` are one. A shape labelled
``background`` or ``_background_`` cuts a hole into the shapes before it. A path with backslashes is read as labelme
writes it on Windows. Flags and descriptions are not read.
"""

from __future__ import annotations

import argparse
import base64
import binascii
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.cases import Case
from lung_d2.data.importers.pictures.drawn_cases import Tool, add_drawing_arguments, build_drawn_cases
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    Record,
    Shape,
    Spacing,
    files_below,
    find_inside,
    list_pictures_below,
    path_inside,
    read_json,
    read_slice_file,
    take,
    take_objects,
)
from lung_d2.data.importers.pictures.shapes import AUTO, Canvas
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import VALUES
from lung_d2.data.planes import decode_picture
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, check_coordinates

_WHAT = "a JSON file of labelme, with shapes and imagePath"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    add_drawing_arguments(parser, "imagePath, seen from the JSON; with it, the last part of imagePath in FOLDER")


def find_cases(
    request: Request,
    *,
    images: str | None = None,
    spacing_mm: str | None = None,
    pixel_origin: str = AUTO,
    skip_shapes: bool = False,
) -> list[Case]:
    """Find the slices and group them by patient.

    Args:
        request: Its source is a folder with JSON files, at any depth, or one JSON file.
        images: Folder of the pictures, in the source, that holds the last part of ``imagePath``.
        spacing_mm: ``"ROW,COLUMN"`` or one number, for pictures that do not say.
        pixel_origin: What (0, 0) is; see :func:`lung_d2.data.importers.pictures.shapes.choose_origin`.
        skip_shapes: Leave out points and lines, instead of refusing them.

    Returns:
        One case for each patient; its slices are in the order of the files and are not neighbours.

    Raises:
        ConfigError: The spacing is malformed.
        DatasetError: A file is broken or not of labelme; a label has no meaning; a shape has no area; a picture is
            missing, occurs twice, has no patient, or lacks its JSON file.
    """
    base = request.source if request.source.is_dir() else request.source.parent
    folder = base / images if images else None
    if folder:
        check_folder(folder, "pictures")
    drawings = [_read_file(path, base, folder) for path in _json_files(request.source)]
    if request.source.is_dir():
        drawings += _unannotated(drawings, folder or base, request.allow_unannotated)
    drawings.sort(key=lambda one: one.picture)
    return build_drawn_cases(
        drawings, TOOL, request, spacing_mm=spacing_mm, pixel_origin=pixel_origin, skip_shapes=skip_shapes
    )


IMPORTER = Importer("labelme", "JSON files of labelme and their pictures", find_cases, add_arguments, VALUES)


def _json_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    check_folder(source, "JSON files of labelme", or_file=True)
    found = [path for path in files_below(source) if path.suffix.lower() == ".json"]
    if not found:
        raise DatasetError(source, found="no JSON file", expected=_WHAT, remedy="correct the path")
    return found


def _read_file(path: Path, base: Path, folder: Path | None) -> Drawing:
    record = read_json(path, _WHAT)
    if "shapes" not in record and {"images", "annotations"} <= record.keys():
        raise DatasetError(
            path, found="a COCO file", expected=_WHAT, remedy="give the subcommand coco, or move it out of SOURCE"
        )
    shapes = [
        _read_shape(shape, f"{path}: shape {number}")
        for number, shape in enumerate(take_objects(record, "shapes", path))
    ]
    name = record.get("imagePath")
    if isinstance(name, str):
        inner = PureWindowsPath(name)  # it understands both kinds of separators
        name = inner.name if folder else inner.as_posix()
    place = folder or path.parent
    embedded = record.get("imageData") and (name is None or not path_inside(place, name, path).is_file())
    return Drawing(
        picture=path if embedded else find_inside(place, name, path),
        folder=base if embedded else folder or base,
        annotations=(("labelme", path),),
        shapes=tuple(shapes),
        size=(record.get("imageHeight"), record.get("imageWidth")),
        where=str(path),
    )


def _read_shape(record: Record, where: str) -> Shape:
    label, group = take(record, "label", str, where), record.get("group_id")
    kind = str(record.get("shape_type") or "polygon")  # labelme before 3.5 had polygons only, without a type
    return Shape(where, (label,), kind, record, None if group is None else f"{label} {group}")


def _unannotated(drawings: list[Drawing], folder: Path, allowed: bool) -> list[Drawing]:
    known = {one.picture.resolve() for one in drawings}
    missing = [path for path in list_pictures_below(folder) if path.resolve() not in known]
    if missing and not allowed:
        raise DatasetError(
            folder,
            found=f"{len(missing)} picture(s) without a JSON file, {missing[0].name} first",
            expected="one for each picture",
            remedy="annotate or remove them, or give --allow-unannotated to take them as slices without lesions",
        )
    return [Drawing(path, folder) for path in missing]


def _read_picture(path: Path) -> tuple[npt.NDArray[np.generic], Spacing | None]:
    """Read a picture, or what a JSON file holds of one."""
    if path.suffix.lower() != ".json":
        return read_slice_file(path)
    return decode_base64(read_json(path, _WHAT).get("imageData"), f"{path}: imageData"), None


def decode_base64(text: object, where: str, expected: str = "8-bit grey levels of a CT slice") -> npt.NDArray[np.uint8]:
    """Decode a picture that a JSON file holds as text; see :func:`lung_d2.data.planes.decode_picture`."""
    try:
        data = base64.b64decode(text if isinstance(text, str) else "")
    except (binascii.Error, ValueError):
        data = b""
    return decode_picture(data, where, expected)


def _fill_shape(shape: Shape, canvas: Canvas) -> Mask:
    kind, where, points = shape.kind, shape.where, _points(shape)
    if kind == "mask":
        part = decode_base64(shape.record.get("mask"), f"{where}: mask", "a mask as PNG") > 0
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


def _points(shape: Shape) -> npt.NDArray[np.float64]:
    values: list[Any] = take(shape.record, "points", list, shape.where)
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise DatasetError(shape.where, found="broken points", expected="[[x, y], ...]", remedy="draw it again")
    check_coordinates(points, shape.where)
    return points


def _expect(points: npt.NDArray[np.float64], count: int, kind: str, where: str) -> None:
    if len(points) != count:
        raise DatasetError(
            where, found=f"a {kind} of {len(points)} point(s)", expected=str(count), remedy="draw it again"
        )


def _contours_of(shape: Shape) -> list[Any]:
    return [shape.record.get("points")] if shape.kind == "polygon" else []


TOOL = Tool(
    areas=frozenset({"polygon", "rectangle", "oriented_rectangle", "circle", "mask"}),
    fill=_fill_shape,
    contours_of=_contours_of,
    read=_read_picture,
    needs_shapes=False,
)
