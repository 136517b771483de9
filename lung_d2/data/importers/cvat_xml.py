"""The XML of "CVAT for images 1.1", read safely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import numpy as np

from lung_d2.data.importers.shapes import Canvas
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask

FILE_NAME = "annotations.xml"
AREAS = frozenset({"polygon", "mask"})
"""The kinds of shapes that are areas."""
_NO_SHAPES = frozenset({"tag", "attribute"})
_REMEDY = "export it again"


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
        """What shapes of one group share; None of a shape of its own."""
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
    # Runs by rows inside the box, beginning with background; the last one may miss.
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
    """Parse XML without a document type: no entities, that could grow or read other files."""

    def refuse(*_: object) -> None:
        raise DatasetError(
            path, found="XML with a document type", expected="what CVAT writes, which has none", remedy="remove it"
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
        DatasetError: They are no such thing.
    """
    try:
        pairs = [point.split(",") for point in shape.attributes.get("points", "").split(";")]
        return [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise DatasetError(shape.where, found="broken points", expected="x,y;x,y;...", remedy=_REMEDY) from error
