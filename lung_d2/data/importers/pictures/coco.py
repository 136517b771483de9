"""COCO JSON: one file, or a folder with ``annotations/*.json``.

::

    SOURCE/annotations/instances_train.json     images, annotations, categories
    SOURCE/images/0001.png                      where ``file_name`` is "0001.png"

Each annotation is a lesion, as polygons or RLE. An image record without annotations is a slice without lesions. An
annotation with ``iscrowd`` is undecided; since CVAT sets that for every brush mask, ``--crowd`` is needed there.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lung_d2.data.cases import Case
from lung_d2.data.importers.pictures.coco_file import (
    CocoFile,
    contours_of,
    fill_shape,
    read_coco,
    split_of_file,
)
from lung_d2.data.importers.pictures.cvat import FILE_NAME as CVAT_FILE
from lung_d2.data.importers.pictures.drawn_cases import Tool, add_drawing_arguments, build_drawn_cases
from lung_d2.data.importers.pictures.picture_cases import Drawing, Shape, find_inside, take
from lung_d2.data.importers.pictures.shapes import AUTO
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import VALUES
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity

logger = logging.getLogger(__name__)

UNDECIDED, LESION = "undecided", "lesion"
TOOL = Tool(frozenset({"segmentation"}), fill_shape, contours_of, cuts_holes=False)


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
    base = request.source if request.source.is_dir() else request.source.parent
    if images:
        check_folder(base / images, "pictures")
    drawings: list[Drawing] = []
    given = request.labels
    for path in _json_files(request.source):
        content = read_coco(path)
        for category in content.definitions:
            if category.name not in given.categories.names and given.find(category.name, category.coco_id) is None:
                request = replace(request, labels=request.labels.add(category, path))
        shapes = [shape for members in content.shapes.values() for shape in members]
        _check_crowds(shapes, crowd, path)
        request.labels.meanings({shape.names: shape.names for shape in shapes}, path)
        folder = base / images if images else _picture_folder(path, content)
        drawings += _find_drawings(path, content, folder, crowd, split_of_file(path) if splits_from_names else "")
    return build_drawn_cases(
        drawings, TOOL, request, spacing_mm=spacing_mm, pixel_origin=pixel_origin, skip_shapes=skip_shapes
    )


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
    name = next(iter(content.images.values())).get("file_name")
    stem = path.stem.removeprefix("instances_")
    folders = [root / "images" / stem, root / stem, root / "images", path.parent, root]
    return next((folder for folder in folders if isinstance(name, str) and (folder / name).is_file()), root)


def _find_drawings(path: Path, content: CocoFile, folder: Path, crowd: str | None, split: str) -> Iterator[Drawing]:
    for key, image in content.images.items():
        where = f"{path}: image {key}"
        height, width = (take(image, name, int, where) if image.get(name) else 0 for name in ("height", "width"))
        patient = image.get("patient_id", image.get("patient"))
        shapes = (
            replace(shape, is_undecided=shape.is_undecided and crowd != LESION) for shape in content.shapes.get(key, ())
        )
        yield Drawing(
            picture=find_inside(folder, image.get("file_name"), where),
            folder=folder,
            annotations=(("coco", path),),
            shapes=tuple(shapes),
            size=(height, width),
            where=where,
            patient=None if patient in (None, "") else hash_identity("patient", str(patient)),
            split=split,
        )


def _check_crowds(shapes: Sequence[Shape], crowd: str | None, path: Path) -> None:
    crowds = [shape for shape in shapes if shape.is_undecided]
    if not crowds or crowd:
        return
    # CVAT gives every shape the attribute "occluded".
    if len(crowds) == len(shapes) or any("occluded" in (one.record.get("attributes") or ()) for one in crowds):
        raise DatasetError(
            path,
            found=f"{len(crowds)} of {len(shapes)} annotations with iscrowd, as CVAT marks every brush mask",
            expected="to know whether each is a lesion, or where lesions are undecided",
            remedy=f"give --crowd {LESION} or --crowd {UNDECIDED}",
        )
    logger.warning("%s: %d annotations with iscrowd are taken as undecided", path, len(crowds))
