"""What the importers of drawing tools share: from shapes on pictures to cases."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    Shape,
    Spacing,
    annotate_picture,
    build_picture_cases,
    check_size,
    read_slice_file,
)
from lung_d2.data.importers.pictures.shapes import (
    AUTO,
    CENTRE,
    CORNER,
    Canvas,
    add_spacing_argument,
    choose_origin,
    cut_background,
    parse_spacing,
)
from lung_d2.data.importers.registry import Request
from lung_d2.data.instances import InstanceRule, Region
from lung_d2.data.labels import Label, LabelTable
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tool:
    """How to read what a tool draws; its functions are picklable.

    Attributes:
        areas: The kinds of shapes that are areas.
        fill: Returns the mask of a shape on a canvas.
        contours_of: Returns the contours of a shape, unchecked.
        read: Reads the picture of a drawing; see :func:`read_slice_file`.
        cuts_holes: Whether a shape labelled ``background`` cuts a hole into those below it.
        needs_shapes: Whether a source without any shape is refused, unless the user allows it.
    """

    areas: frozenset[str]
    fill: Callable[[Shape, Canvas], Mask]
    contours_of: Callable[[Shape], Iterable[Any]]
    read: Callable[[Path], tuple[npt.NDArray[np.generic], Spacing | None]] = read_slice_file
    cuts_holes: bool = True
    needs_shapes: bool = True


def add_drawing_arguments(parser: argparse.ArgumentParser, images: str) -> None:
    """Add the options that all drawing tools share.

    Args:
        parser: The importer's parser.
        images: Where the pictures are looked for by default, for the help.
    """
    parser.add_argument("--images", metavar="FOLDER", help=f"folder of the pictures, in SOURCE (default: {images})")
    add_spacing_argument(parser)
    parser.add_argument(
        "--pixel-origin",
        choices=(AUTO, CORNER, CENTRE),
        default=AUTO,
        help="what (0, 0) is: the picture's corner, as COCO, CVAT and labelme draw, or the centre of its first pixel, "
        "as in contours that a script took from cv2.findContours (default: what the contours look like)",
    )
    parser.add_argument(
        "--skip-shapes",
        action="store_true",
        help="leave out shapes that give no mask (points, lines, boxes), with a count, instead of refusing them",
    )


def build_drawn_cases(
    drawings: Sequence[Drawing],
    tool: Tool,
    request: Request,
    *,
    spacing_mm: str | None,
    pixel_origin: str,
    skip_shapes: bool,
) -> list[Case]:
    """Check the shapes of drawings, and group the drawings by patient.

    Args:
        drawings: In the order of their slices.
        tool: What drew them.
        request: What is asked of any importer.
        spacing_mm: ``"ROW,COLUMN"`` or one number, for pictures that do not say.
        pixel_origin: What (0, 0) is; see :func:`lung_d2.data.importers.pictures.shapes.choose_origin`.
        skip_shapes: Leave out shapes that give no mask, instead of refusing them.

    Raises:
        ConfigError: The spacing is malformed.
        DatasetError: A label has no meaning, a shape has no area, or see :func:`build_picture_cases`.
    """
    spacing = parse_spacing(spacing_mm)
    shapes = [shape for drawing in drawings for shape in drawing.shapes]
    meanings = request.labels.meanings({shape.names: shape.names for shape in shapes}, request.source)
    others = [
        shape for shape in shapes if shape.kind not in tool.areas and meanings[shape.names] is not Label.BACKGROUND
    ]
    if others and not skip_shapes:
        raise DatasetError(
            others[0].where,
            found=f"a shape of kind {others[0].kind!r}",
            expected="an outline or a mask of the lesion",
            remedy="draw its outline or mask, or leave it out: --skip-shapes, --label NAME=background",
        )
    if others:
        kinds = Counter(shape.kind for shape in others)
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        logger.warning("%s: left out shapes that give no mask: %s", request.source, shown)
    if tool.needs_shapes and len(others) == len(shapes) and not request.allow_unannotated:
        raise DatasetError(
            request.source,
            found="no shape that gives a mask",
            expected="one or more",
            remedy="give the file with the annotations, or --allow-unannotated if no slice has a lesion",
        )
    areas = [
        replace(drawing, shapes=tuple(shape for shape in drawing.shapes if shape.kind in tool.areas))
        for drawing in drawings
    ]
    contours = (ring for drawing in areas for shape in drawing.shapes for ring in tool.contours_of(shape))
    origin = choose_origin(pixel_origin, contours, request.source)
    return build_picture_cases(
        areas, partial(_read_slice, tool, request.labels, request.rule, spacing, origin), request
    )


def _read_slice(
    tool: Tool,
    labels: LabelTable,
    rule: InstanceRule,
    spacing: Spacing | None,
    origin: str,
    drawing: Drawing,
    index: int,
) -> AnnotatedSlice:
    plane, own_spacing = tool.read(drawing.picture)
    check_size(plane.shape, *drawing.size, drawing.where or drawing.picture)
    canvas = Canvas((plane.shape[0], plane.shape[1]), origin)
    regions = [
        Region(
            Label.IGNORE if shape.is_undecided else labels.meaning(*shape.names, where=shape.where),
            tool.fill(shape, canvas),
            shape.lesion,
        )
        for shape in drawing.shapes
    ]
    if tool.cuts_holes:
        names = [str(shape.names[0]) for shape in drawing.shapes]
        regions = cut_background(zip(names, regions, strict=True))
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing)
