"""CVAT: an export in the format "CVAT for images 1.1", of a task or a project.

::

    SOURCE/annotations.xml
    SOURCE/images/0001.png            or images/SUBSET/0001.png, or SOURCE/0001.png; with folders where names have them

Polygons and masks are lesions; those of one label and group are one. A shape labelled ``background`` cuts a hole into
those below it. An image without shapes is a slice without lesions; tags are not read. For CVAT's
export as COCO, use the importer of COCO JSON.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lung_d2.data.cases import Case
from lung_d2.data.importers.pictures.drawn_cases import Tool, add_drawing_arguments, build_drawn_cases
from lung_d2.data.importers.pictures.picture_cases import Drawing, Record, Shape, find_inside
from lung_d2.data.importers.pictures.shapes import AUTO, Canvas
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import VALUES
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask

FILE_NAME = "annotations.xml"
_NO_SHAPES = frozenset({"tag", "attribute"})
_REMEDY = "export it again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    add_drawing_arguments(parser, "images, else SOURCE itself")


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
        request: Its source is the unpacked export, or its XML file.
        images: Folder of the pictures, in the source.
        spacing_mm: ``"ROW,COLUMN"`` or one number, for pictures that do not say.
        pixel_origin: What (0, 0) is; see :func:`lung_d2.data.importers.pictures.shapes.choose_origin`.
        skip_shapes: Leave out shapes that give no mask (boxes, points, lines), instead of refusing them.

    Returns:
        One case for each patient; its slices are in the order of the file and are not neighbours.

    Raises:
        ConfigError: The spacing is malformed.
        DatasetError: The file is broken, not such an export, or without shapes; a label has no meaning; a shape has no
            area; a picture is missing, occurs twice, or has no patient.
    """
    path = _xml_file(request.source)
    if images:
        check_folder(path.parent / images, "pictures")
    default = path.parent / "images"
    folder = path.parent / images if images else default if default.is_dir() else path.parent
    drawings = read_cvat(path, folder)
    return build_drawn_cases(
        drawings, TOOL, request, spacing_mm=spacing_mm, pixel_origin=pixel_origin, skip_shapes=skip_shapes
    )


IMPORTER = Importer("cvat", "export of CVAT: 'CVAT for images 1.1'", find_cases, add_arguments, VALUES)


def _xml_file(source: Path) -> Path:
    path = source / FILE_NAME if source.is_dir() else source
    if source.is_dir():
        check_folder(source, "an export of CVAT")
    if not path.is_file():
        found = "no such file" if source.is_dir() else "no such file or folder"
        is_coco = any(any(source.glob(pattern)) for pattern in ("*.json", "annotations/*.json"))
        remedy = "for CVAT's export as COCO give the subcommand coco" if is_coco else "correct the path"
        raise DatasetError(path, found=found, expected="the XML of CVAT", remedy=remedy)
    if zipfile.is_zipfile(path):
        raise DatasetError(path, found="a ZIP file", expected="its content", remedy="unpack it and give the folder")
    return path


def read_cvat(path: Path, folder: Path) -> list[Drawing]:
    """Read an export of CVAT.

    Args:
        path: Its XML file.
        folder: Of the pictures; those of a project lie in a folder for each subset.

    Raises:
        DatasetError: It is broken, declares a document type or entities, is another of CVAT's formats, holds no image,
            or a picture is missing.
    """
    root = _parse(path)
    if root.tag != "annotations":
        raise DatasetError(path, found=f"XML of {root.tag[:40]!r}", expected="annotations of CVAT", remedy=_REMEDY)
    if root.find("track") is not None:
        raise DatasetError(
            path, found="tracks, as in CVAT's video format", expected="'CVAT for images 1.1'", remedy="export as that"
        )
    drawings = [_read_image(element, path, number, folder) for number, element in enumerate(root.iter("image"))]
    if not drawings:
        raise DatasetError(path, found="no image", expected="'CVAT for images 1.1'", remedy=_REMEDY)
    return drawings


def _parse(path: Path) -> ElementTree.Element:
    """Parse XML without a document type, and so without entities, which could grow or read other files."""

    class Builder(ElementTree.TreeBuilder):
        def doctype(self, *_: object) -> None:
            raise DatasetError(
                path, found="XML with a document type", expected="XML as CVAT writes it", remedy="remove it"
            )

    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=Builder())).getroot()
    except OSError as error:
        raise DatasetError(path, found="cannot be opened", remedy="check the path and its permissions") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DatasetError(path, found="broken XML", expected="annotations of CVAT", remedy=_REMEDY) from error


def _read_image(element: ElementTree.Element, path: Path, number: int, folder: Path) -> Drawing:
    name = element.get("name", "")
    where = f"{path}: image {number} ({name[:80]!a})"
    elements = [
        (f"{where}, {child.tag} {place}", child)
        for place, child in enumerate(element)
        if child.tag not in _NO_SHAPES and child.get("outside") != "1"
    ]
    elements.sort(key=lambda one: _whole(one[1].attrib, "z_order", one[0], "0"))
    shapes = tuple(_read_shape(child, there) for there, child in elements)
    size = (_whole(element.attrib, "height", where), _whole(element.attrib, "width", where))
    subset = folder / element.get("subset", "")
    inner = subset.parent == folder and subset.is_dir()
    picture = find_inside(subset if inner else folder, name, where)
    return Drawing(picture, folder, (("cvat", path),), shapes, size, where)


def _read_shape(element: ElementTree.Element, where: str) -> Shape:
    label, group = element.get("label"), element.get("group_id", "0")
    if label is None:
        raise DatasetError(where, found="no label", expected="one for each shape", remedy=_REMEDY)
    lesion = None if group in ("", "0") else f"{label} {group}"
    return Shape(where, (label,), element.tag, element.attrib, lesion)


def _whole(record: Record, name: str, where: str, default: str = "") -> int:
    text = record.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        found = f"{name} {text[:40]!a}" if text else f"no {name}"
        raise DatasetError(where, found=found, expected="a whole number", remedy=_REMEDY) from error


def fill_shape(shape: Shape, canvas: Canvas) -> Mask:
    """Return the mask of a polygon or a mask, bool ``(H, W)``.

    Raises:
        DatasetError: It is broken, has no area, or lies outside the picture.
    """
    if shape.kind == "polygon":
        return canvas.fill(points_of(shape), shape.where)
    left, top, width, height = (_whole(shape.record, name, shape.where) for name in ("left", "top", "width", "height"))
    rows, columns = canvas.shape
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > columns or top + height > rows:
        raise DatasetError(
            shape.where,
            found=f"a mask at {left}, {top} of {width} x {height}",
            expected=f"one inside the picture of {columns} x {rows}",
            remedy="check that it belongs to this picture",
        )
    # Runs by rows inside the box, beginning with background; the last may be missing.
    try:
        runs = np.array([int(run) for run in shape.record.get("rle", "").split(",")])
    except (ValueError, OverflowError):
        runs = np.array([-1])
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() > width * height:
        raise DatasetError(
            shape.where, found="broken RLE", expected=f"runs of {width * height} pixels in all", remedy=_REMEDY
        )
    inside = np.zeros(width * height, bool)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    inside[: len(values)] = values
    return canvas.paste(inside.reshape(height, width), left, top, shape.where)


def points_of(shape: Shape) -> list[tuple[float, float]]:
    """Return the points of a polygon, x and y in pixels.

    Raises:
        DatasetError: They are malformed.
    """
    try:
        pairs = [point.split(",") for point in shape.record.get("points", "").split(";")]
        return [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise DatasetError(shape.where, found="broken points", expected="x,y;x,y;...", remedy=_REMEDY) from error


def _contours_of(shape: Shape) -> list[list[tuple[float, float]]]:
    return [points_of(shape)] if shape.kind == "polygon" else []


TOOL = Tool(frozenset({"polygon", "mask"}), fill_shape, _contours_of)
