"""CVAT: an export in the format "CVAT for images 1.1", of a task or a project.

::

    SOURCE/annotations.xml
    SOURCE/images/0001.png            or images/SUBSET/0001.png, or SOURCE/0001.png; with folders where names have them

Polygons and masks are lesions; those of one label and group are one. A shape labelled ``background`` cuts a hole into
those below it. An image without shapes is a slice without lesions; tags are not read. What CVAT exports as COCO is
served by the importer of COCO JSON.
"""

from __future__ import annotations

import argparse
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.cvat_xml import AREAS, FILE_NAME, CvatImage, fill_shape, points_of, read_cvat
from lung_d2.data.importers.options import add_drawing_arguments, parse_spacing
from lung_d2.data.importers.picture_files import Spacing, check_size, find_inside, read_slice_file
from lung_d2.data.importers.pictures import Drawing, annotate_picture, build_picture_cases
from lung_d2.data.importers.pixel_origin import AUTO, choose_origin
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.importers.shapes import Canvas, cut_background, refuse_shape, warn_of_skipped
from lung_d2.data.instances import VALUES, InstanceRule, Region
from lung_d2.data.labels import Label, LabelTable, meanings_of_names
from lung_d2.errors import DatasetError
from lung_d2.files import hash_file_stats


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
        pixel_origin: What (0, 0) is; see :func:`lung_d2.data.importers.pixel_origin.choose_origin`.
        skip_shapes: Leave out shapes that give no mask (boxes, points, lines), instead of refusing them.

    Returns:
        One case for each patient; its slices are in the order of the file and make no neighbours.

    Raises:
        ConfigError: The spacing is none.
        DatasetError: The file is broken or no such export, or holds no shape; a label has no meaning; a shape gives no
            mask; a picture is missing, there twice, or has no patient.
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
    meanings = meanings_of_names({shape.label: (shape.label,) for shape in shapes}, labels, path)
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
    """Read the file once for all its pictures, as long as it does not change."""
    return read_cvat(path)
