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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import numpy as np

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    Spacing,
    annotate_picture,
    build_picture_cases,
    check_size,
    find_inside,
    read_slice_file,
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
from lung_d2.errors import DatasetError
from lung_d2.files import hash_file_stats
from lung_d2.masks import Mask

FILE_NAME = "annotations.xml"
AREAS = frozenset({"polygon", "mask"})
"""The kinds of shapes that are areas."""
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
    spacing = parse_spacing(spacing_mm)
    path = _xml_file(request.source)
    records = read_cvat(path)
    if images:
        check_folder(path.parent / images, "pictures")
    folder = path.parent / images if images else _picture_folder(path.parent)
    warn_of_skipped(Counter(_check_shapes(records, request.labels, skip_shapes, path)), path)
    if not any(image.shapes for image in records) and not request.allow_unannotated:
        raise DatasetError(
            path,
            found="no shape in any image",
            expected="one or more",
            remedy="give the file with the annotations, or --allow-unannotated if no slice has a lesion",
        )
    drawings = [
        Drawing(_find_picture(image, folder), folder, (("cvat", path),), str(number))
        for number, image in enumerate(records)
    ]
    polygons = (shape for image in records for shape in image.shapes if shape.kind == "polygon")
    origin = choose_origin(pixel_origin, (points_of(shape) for shape in polygons), path)
    read = partial(_read_slice, request.labels, request.rule, spacing, origin)
    return build_picture_cases(drawings, read, request)


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


def _picture_folder(base: Path) -> Path:
    return base / "images" if (base / "images").is_dir() else base


def _find_picture(image: CvatImage, folder: Path) -> Path:
    """Return the picture; a project's lie in a folder for each subset."""
    subset = folder / image.subset
    inner = bool(image.subset) and subset.parent == folder and subset.is_dir()
    return find_inside(subset if inner else folder, image.name, image.where)


def _check_shapes(images: Sequence[CvatImage], labels: LabelTable, skip: bool, path: Path) -> Iterator[str]:
    """Check what the shapes are and mean; yield the kinds of those that are left out."""
    shapes = [shape for image in images for shape in image.shapes]
    meanings = labels.meanings({shape.label: (shape.label,) for shape in shapes}, path)
    for shape in shapes:
        if shape.kind not in AREAS and meanings[shape.label] is not Label.BACKGROUND:
            if not skip:
                raise refuse_shape(shape.kind, shape.where)
            yield shape.kind


def _read_slice(
    labels: LabelTable, rule: InstanceRule, spacing: Spacing | None, origin: str, drawing: Drawing, index: int
) -> AnnotatedSlice:
    path = drawing.annotations[0][1]
    image = _read_once(path, hash_file_stats([path]))[int(drawing.key)]
    plane, own_spacing = read_slice_file(drawing.picture)
    check_size(plane.shape, image.height, image.width, image.where)
    canvas = Canvas((plane.shape[0], plane.shape[1]), origin)
    regions = cut_background(
        (shape.label, Region(labels.meaning(shape.label, where=shape.where), fill_shape(shape, canvas), shape.lesion))
        for shape in image.shapes
        if shape.kind in AREAS
    )
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing)


@lru_cache(maxsize=1)
def _read_once(path: Path, fingerprint: str) -> list[CvatImage]:
    """Read the file once for all its pictures, unless it changes."""
    return read_cvat(path)


@dataclass(frozen=True)
class CvatShape:
    """A shape.

    Attributes:
        where: File, image and shape, for messages.
        kind: Its element, as ``"polygon"``.
        attributes: Those of its element; ``label`` among them.
    """

    where: str
    kind: str
    attributes: Mapping[str, str]

    @property
    def label(self) -> str:
        """Its label."""
        return self.attributes["label"]

    @property
    def lesion(self) -> str | None:
        """What the shapes of one group share; None for a shape without a group."""
        group = self.attributes.get("group_id", "0")
        return None if group in ("", "0") else f"{self.label} {group}"


@dataclass(frozen=True)
class CvatImage:
    """An image element.

    Attributes:
        where: File and image, for messages.
        name: Its file name, below a folder of pictures.
        subset: Of a project; may be empty.
        height: Rows.
        width: Columns.
        shapes: The lowest first.
    """

    where: str
    name: str
    subset: str
    height: int
    width: int
    shapes: tuple[CvatShape, ...]


def read_cvat(path: Path) -> list[CvatImage]:
    """Read an export of CVAT.

    Raises:
        DatasetError: It is broken, declares a document type or entities, is another of CVAT's formats, or holds no
            image.
    """
    root = _parse(path)
    if root.tag != "annotations":
        raise DatasetError(path, found=f"XML of {root.tag[:40]!r}", expected="annotations of CVAT", remedy=_REMEDY)
    if root.find("track") is not None:
        raise DatasetError(
            path, found="tracks, as in CVAT's video format", expected="'CVAT for images 1.1'", remedy="export as that"
        )
    images = [_read_image(element, f"{path}: image {number}") for number, element in enumerate(root.iter("image"))]
    if not images:
        raise DatasetError(path, found="no image", expected="'CVAT for images 1.1'", remedy=_REMEDY)
    return images


def fill_shape(shape: CvatShape, canvas: Canvas) -> Mask:
    """Return the mask of a polygon or a mask, bool ``(H, W)``.

    Raises:
        DatasetError: It is broken, has no area, or lies outside the picture.
    """
    if shape.kind == "polygon":
        return canvas.fill(points_of(shape), shape.where)
    left, top, width, height = (_whole(shape, name) for name in ("left", "top", "width", "height"))
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
        runs = np.array([int(run) for run in shape.attributes.get("rle", "").split(",")])
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


def _parse(path: Path) -> Element:
    """Parse XML without a document type, and so without entities, which could grow or read other files."""

    def refuse(*_: object) -> None:
        raise DatasetError(
            path, found="XML with a document type", expected="XML as CVAT writes it, without one", remedy="remove it"
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except OSError as error:
        raise DatasetError(path, found="cannot be opened", remedy="check the path and its permissions") from error
    except (expat.ExpatError, ParseError, LookupError, ValueError, AssertionError) as error:
        raise DatasetError(path, found="broken XML", expected="annotations of CVAT", remedy=_REMEDY) from error


def _read_image(element: Element, where: str) -> CvatImage:
    name = element.get("name", "")
    where = f"{where} ({name[:80]!a})"
    shapes = [
        CvatShape(f"{where}, {child.tag} {number}", child.tag, dict(child.attrib))
        for number, child in enumerate(element)
        if child.tag not in _NO_SHAPES and child.get("outside") != "1"
    ]
    for shape in shapes:
        if "label" not in shape.attributes:
            raise DatasetError(shape.where, found="no label", expected="one for each shape", remedy=_REMEDY)
    own = CvatShape(where, "image", dict(element.attrib))
    ordered = sorted(shapes, key=lambda shape: _whole(shape, "z_order", "0"))
    return CvatImage(
        where, name, element.get("subset", ""), _whole(own, "height"), _whole(own, "width"), tuple(ordered)
    )


def _whole(shape: CvatShape, name: str, default: str = "") -> int:
    text = shape.attributes.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        found = f"{name} {text[:40]!a}" if text else f"no {name}"
        raise DatasetError(shape.where, found=found, expected="a whole number", remedy=_REMEDY) from error


def points_of(shape: CvatShape) -> list[tuple[float, float]]:
    """Return the points of a polygon, x and y in pixels.

    Raises:
        DatasetError: They are malformed.
    """
    try:
        pairs = [point.split(",") for point in shape.attributes.get("points", "").split(";")]
        return [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise DatasetError(shape.where, found="broken points", expected="x,y;x,y;...", remedy=_REMEDY) from error
