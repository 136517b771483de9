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
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    Record,
    Spacing,
    annotate_picture,
    build_picture_cases,
    check_size,
    files_below,
    find_inside,
    list_pictures_below,
    path_inside,
    read_json,
    read_slice_file,
    take,
    take_objects,
)
from lung_d2.data.importers.pictures.shapes import (
    AUTO,
    Canvas,
    add_drawing_arguments,
    choose_origin,
    cut_background,
    parse_spacing,
    refuse_shape,
    warn_of_skipped,
)
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import VALUES, InstanceRule, Region
from lung_d2.data.labels import Label, LabelTable
from lung_d2.data.planes import decode_picture
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, check_coordinates

_EMBEDDED = "embedded"
_WHAT = "a JSON file of labelme, with shapes and imagePath"
AREAS = frozenset({"polygon", "rectangle", "oriented_rectangle", "circle", "mask"})
"""The kinds of shapes that are areas."""


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
    spacing = parse_spacing(spacing_mm)
    base = request.source if request.source.is_dir() else request.source.parent
    folder = base / images if images else None
    if folder:
        check_folder(folder, "pictures")
    skipped: Counter[str] = Counter()
    names: dict[str, tuple[str]] = {}
    drawings = []
    rings: list[object] = []
    for path in _json_files(request.source):
        record = _read_file(path)
        shapes = _list_shapes(record, path)
        names |= {label: (label,) for label, _, _ in shapes}
        rings += [shape.get("points") for shape in record["shapes"] if kind_of(shape) == "polygon"]
        skipped.update(_kinds_without_area(shapes, request.labels, skip_shapes))
        drawings.append(_find_drawing(record, path, base, folder))
    request.labels.meanings(names, request.source)
    warn_of_skipped(skipped, request.source)
    if request.source.is_dir():
        drawings += _unannotated(drawings, folder or base, request.allow_unannotated)
    origin = choose_origin(pixel_origin, rings, request.source)
    read = partial(_read_slice, request.labels, request.rule, spacing, origin)
    return build_picture_cases(sorted(drawings, key=lambda one: one.picture), read, request)


IMPORTER = Importer("labelme", "JSON files of labelme and their pictures", find_cases, add_arguments, VALUES)


def _json_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    check_folder(source, "JSON files of labelme", or_file=True)
    found = [path for path in files_below(source) if path.suffix.lower() == ".json"]
    if not found:
        raise DatasetError(source, found="no JSON file", expected=_WHAT, remedy="correct the path")
    return found


def _read_file(path: Path) -> Record:
    record = read_json(path, _WHAT)
    if "shapes" not in record and {"images", "annotations"} <= record.keys():
        raise DatasetError(
            path, found="a COCO file", expected=_WHAT, remedy="give the subcommand coco, or move it out of SOURCE"
        )
    return record


def _list_shapes(record: Record, path: Path) -> list[tuple[str, str, str]]:
    """Return label, kind and place of the shapes."""
    places = ((shape, f"{path}: shape {number}") for number, shape in enumerate(take_objects(record, "shapes", path)))
    return [(take(shape, "label", str, where), kind_of(shape), where) for shape, where in places]


def _kinds_without_area(shapes: list[tuple[str, str, str]], labels: LabelTable, skip: bool) -> Iterator[str]:
    for label, kind, where in shapes:
        if kind not in AREAS and labels.find(label) is not Label.BACKGROUND:
            if not skip:
                raise refuse_shape(kind, where)
            yield kind


def _find_drawing(record: Record, path: Path, base: Path, folder: Path | None) -> Drawing:
    annotations = (("labelme", path),)
    name = record.get("imagePath")
    if isinstance(name, str):
        inner = PureWindowsPath(name)  # it understands both kinds of separators
        name = inner.name if folder else inner.as_posix()
    if record.get("imageData") and (name is None or not path_inside(folder or path.parent, name, path).is_file()):
        return Drawing(path, base, annotations, key=_EMBEDDED)
    return Drawing(find_inside(folder or path.parent, name, path), folder or base, annotations)


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


def _read_slice(
    labels: LabelTable, rule: InstanceRule, spacing: Spacing | None, origin: str, drawing: Drawing, index: int
) -> AnnotatedSlice:
    if not drawing.annotations:
        plane, own_spacing = read_slice_file(drawing.picture)
        return annotate_picture(plane, [], rule, index, own_spacing or spacing)
    path = drawing.annotations[0][1]
    record = read_json(path, _WHAT)
    if drawing.key == _EMBEDDED:
        plane, own_spacing = decode_base64(record.get("imageData"), f"{path}: imageData"), None
    else:
        plane, own_spacing = read_slice_file(drawing.picture)
    check_size(plane.shape, record.get("imageHeight"), record.get("imageWidth"), path)
    canvas = Canvas((plane.shape[0], plane.shape[1]), origin)
    regions = cut_background(
        (shape["label"], read_region(shape, f"{path}: shape {number}", labels, canvas))
        for number, shape in enumerate(take_objects(record, "shapes", path))
        if kind_of(shape) in AREAS
    )
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing)


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
        InputError: Its mask cannot be read as a picture.
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
