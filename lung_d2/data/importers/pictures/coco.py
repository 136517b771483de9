"""COCO JSON: one file, or a folder with ``annotations/*.json``.

::

    SOURCE/annotations/instances_train.json     images, annotations, categories
    SOURCE/images/0001.png                      where ``file_name`` is "0001.png"

Each annotation is a lesion, as polygons or RLE. An image record without annotations is a slice without lesions. An
annotation with ``iscrowd`` is undecided; since CVAT sets that for every brush mask, ``--crowd`` is needed there.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.pictures.coco_file import (
    CocoAnnotation,
    CocoFile,
    CocoImage,
    Id,
    decode_segmentation,
    polygons_of,
    read_coco,
    split_of_file,
)
from lung_d2.data.importers.pictures.cvat import FILE_NAME as CVAT_FILE
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
    parse_spacing,
    warn_of_skipped,
)
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import VALUES, InstanceRule, Region
from lung_d2.data.labels import Label, LabelTable
from lung_d2.errors import DatasetError
from lung_d2.files import hash_file_stats, hash_identity

logger = logging.getLogger(__name__)

UNDECIDED, LESION = "undecided", "lesion"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    add_drawing_arguments(parser, "where the first picture is: beside the JSON, in images, or in a folder of its name")
    parser.add_argument(
        "--splits-from-names",
        action="store_true",
        help="take the splits that the JSON files are named by (train, val, test), instead of dealing patients to them",
    )
    parser.add_argument(
        "--crowd",
        choices=(UNDECIDED, LESION),
        help="what an annotation with iscrowd is (default undecided; required for files made by CVAT)",
    )


def find_cases(
    request: Request,
    *,
    images: str | None = None,
    spacing_mm: str | None = None,
    pixel_origin: str = AUTO,
    skip_shapes: bool = False,
    crowd: str | None = None,
    splits_from_names: bool = False,
) -> list[Case]:
    """Find the slices and group them by patient.

    Args:
        request: Its source is a JSON file, or a folder with JSON files in ``annotations``, in itself, or in its
            folders. Its labels name the categories, or their ids; categories whose records in the file hold code
            and color need no label.
        images: Folder of the pictures, in the source: 8-bit pictures, or DICOM files of one slice.
        spacing_mm: ``"ROW,COLUMN"`` or one number, for pictures that do not say.
        pixel_origin: What (0, 0) is; see :func:`lung_d2.data.importers.pictures.shapes.choose_origin`.
        skip_shapes: Leave out annotations that are boxes only, instead of refusing them.
        crowd: What ``iscrowd`` means: ``"undecided"`` or ``"lesion"``; None: undecided, unless CVAT made the file.
        splits_from_names: Put the cases into the splits that the files are named by; see
            :func:`lung_d2.data.importers.pictures.coco_file.split_of_file`.

    Returns:
        One case for each patient (``patient_id`` of the image record, unless an option names the patient); its slices
        are in the order of the records and are not neighbours.

    Raises:
        ConfigError: The spacing is malformed.
        DatasetError: A file is broken or holds no annotations; records do not fit together; a picture is missing,
            occurs twice, or has no patient; a category has no meaning; a patient is in two splits.
    """
    spacing = parse_spacing(spacing_mm)
    base = request.source if request.source.is_dir() else request.source.parent
    if images:
        check_folder(base / images, "pictures")
    drawings: list[Drawing] = []
    rings: list[list[Any]] = []
    marked = boxes = 0
    given = request.labels
    for path in _json_files(request.source):
        content = read_coco(path)
        for category in content.definitions:
            if category.name not in given.categories.names and given.find(category.name, category.coco_id) is None:
                request = replace(request, labels=request.labels.add(category, path))
        _check_meanings(content, request.labels, path)
        _check_crowds(content, crowd, path)
        folder = base / images if images else _picture_folder(path, content)
        split = split_of_file(path) if splits_from_names else ""
        drawings += _find_drawings(path, content, folder, split)
        rings += [ring for one in _every(content) for ring in polygons_of(one.segmentation)]
        marked += len(content.annotations)
        boxes += sum(_is_box(one, request.labels) for one in _every(content)) if skip_shapes else 0
    warn_of_skipped(Counter(box=boxes), request.source)
    if marked == boxes and not request.allow_unannotated:
        raise DatasetError(
            request.source,
            found="boxes alone" if boxes else "no annotation",
            expected="one or more",
            remedy="give the file with the annotations, or --allow-unannotated if no slice has a lesion",
        )
    origin = choose_origin(pixel_origin, rings, request.source)
    read = partial(_read_slice, request.labels, request.rule, spacing, origin, crowd or UNDECIDED, skip_shapes)
    return build_picture_cases(drawings, read, request)


IMPORTER = Importer("coco", "COCO JSON with polygons or RLE, and pictures", find_cases, add_arguments, VALUES)


def _json_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    check_folder(source, "COCO JSON files", or_file=True)
    for pattern in ("annotations/*.json", "*.json", "*/*.json"):
        found = sorted(path for path in source.glob(pattern) if not path.name.startswith("."))
        if found:
            return found
    remedy = "give the subcommand cvat" if (source / CVAT_FILE).is_file() else "correct the path"
    raise DatasetError(source, found="no JSON file", expected="annotations/*.json", remedy=remedy)


def _picture_folder(path: Path, content: CocoFile) -> Path:
    """Return the folder that holds the first picture, among those where COCO, CVAT, Roboflow and scripts put them."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    name = next(iter(content.images.values())).file_name
    stem = path.stem.removeprefix("instances_")
    folders = [root / "images" / stem, root / stem, root / "images", path.parent, root]
    return next((folder for folder in folders if isinstance(name, str) and (folder / name).is_file()), root)


def _find_drawings(path: Path, content: CocoFile, folder: Path, split: str) -> Iterator[Drawing]:
    for key, image in content.images.items():
        yield Drawing(
            picture=find_inside(folder, image.file_name, f"{path}: image {key}"),
            folder=folder,
            annotations=(("coco", path),),
            key=json.dumps(key),
            patient=hash_identity("patient", image.patient) if image.patient else None,
            split=split,
        )


def _check_meanings(content: CocoFile, labels: LabelTable, path: Path) -> None:
    """Refuse categories without a meaning if annotations use them."""
    used = {one.category_id: (one.category, one.category_id) for one in _every(content)}
    labels.meanings(used, path)


def _every(content: CocoFile) -> list[CocoAnnotation]:
    return [one for members in content.annotations.values() for one in members]


def _is_box(annotation: CocoAnnotation, labels: LabelTable) -> bool:
    meaning = labels.find(annotation.category, annotation.category_id)
    return not annotation.segmentation and meaning is not Label.BACKGROUND


def _check_crowds(content: CocoFile, crowd: str | None, path: Path) -> None:
    every = _every(content)
    crowds = [one for one in every if one.is_crowd]
    if not crowds or crowd:
        return
    if len(crowds) == len(every) or any(one.is_from_cvat for one in crowds):
        raise DatasetError(
            path,
            found=f"{len(crowds)} of {len(every)} annotations with iscrowd, as CVAT marks every brush mask",
            expected="to know whether each is a lesion, or where lesions are undecided",
            remedy=f"give --crowd {LESION} or --crowd {UNDECIDED}",
        )
    logger.warning("%s: %d annotations with iscrowd are taken as undecided", path, len(crowds))


def _read_slice(
    labels: LabelTable,
    rule: InstanceRule,
    spacing: Spacing | None,
    origin: str,
    crowd: str,
    skip_shapes: bool,
    drawing: Drawing,
    index: int,
) -> AnnotatedSlice:
    path = dict(drawing.annotations)["coco"]
    key = json.loads(drawing.key)
    image, annotations = _read_record(path, key)
    plane, own_spacing = read_slice_file(drawing.picture)
    check_size(plane.shape, image.height, image.width, f"{path}: image {key}")
    canvas = Canvas((plane.shape[0], plane.shape[1]), origin)
    drawn = [one for one in annotations if one.segmentation or not skip_shapes]
    regions = [region for one in drawn for region in _read_region(one, labels, canvas, crowd)]
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing)


def _read_record(path: Path, key: Id) -> tuple[CocoImage, tuple[CocoAnnotation, ...]]:
    content = _read_once(path, hash_file_stats([path]))
    return content.images[key], content.annotations.get(key, ())


@lru_cache(maxsize=1)
def _read_once(path: Path, fingerprint: str) -> CocoFile:
    """Read a file once for all its pictures, unless it changes."""
    return read_coco(path)


def _read_region(annotation: CocoAnnotation, labels: LabelTable, canvas: Canvas, crowd: str) -> Iterator[Region]:
    meaning = labels.meaning(annotation.category, annotation.category_id, where=annotation.where)
    if meaning is Label.BACKGROUND and not annotation.segmentation:
        return
    mask = decode_segmentation(annotation.segmentation, canvas, annotation.where)
    yield Region(Label.IGNORE if annotation.is_crowd and crowd == UNDECIDED else meaning, mask)
