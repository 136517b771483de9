"""The records of a COCO file, checked against each other, and its segmentations as masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Categories, Category
from lung_d2.data.importers.pictures.picture_cases import Record, Shape, read_json, take, take_objects
from lung_d2.data.importers.pictures.shapes import Canvas
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, decode_runs, read_runs

Id = int | str
_WHAT = "a COCO file with images, annotations and categories"
_REMEDY = "export it again"
_LISTS = {"image": "images", "annotation": "annotations", "category": "categories"}
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class CocoFile:
    """A COCO file.

    Attributes:
        images: Image records by id.
        shapes: Annotations by the id of their image; undecided where ``iscrowd`` is set.
        definitions: Categories whose records hold a DICOM code and a color, as :meth:`Category.to_coco` writes them.
    """

    images: Mapping[Id, Record]
    shapes: Mapping[Id, list[Shape]]
    definitions: tuple[Category, ...] = ()


def read_coco(path: Path) -> CocoFile:
    """Read a COCO file and check that its records fit together.

    Raises:
        DatasetError: It is broken or not COCO; an id is missing or repeated; an annotation names an image or a category
            that does not exist.
    """
    content = read_json(path, _WHAT)
    if "images" not in content and "shapes" in content:
        raise DatasetError(path, found="a file of labelme", expected=_WHAT, remedy="give the subcommand labelme")
    if "images" not in content:
        raise DatasetError(path, found="no 'images'", expected=_WHAT, remedy="give another file")
    images = _by_id(content, "image", path)
    if not images:
        raise DatasetError(path, found="no image", expected=_WHAT, remedy=_REMEDY)
    records = _by_id(content, "annotation", path) if "annotations" in content else {}
    categories = _by_id(content, "category", path) if records else {}
    names = {key: take(record, "name", str, f"{path}: category {key}") for key, record in categories.items()}
    shapes: dict[Id, list[Shape]] = defaultdict(list)
    for key, record in records.items():
        where = f"{path}: annotation {key}"
        shapes[_known(record, "image_id", images, where)].append(_read_annotation(record, names, where))
    return CocoFile(images, shapes, _read_definitions(content, path))


def _read_definitions(content: Record, path: Path) -> tuple[Category, ...]:
    records = take_objects(content, "categories", path) if "categories" in content else []
    own = [record for record in records if record.get("code") and record.get("color")]
    return tuple(Categories.from_coco(own, path)) if own else ()


def _read_annotation(record: Record, names: Mapping[Id, str], where: str) -> Shape:
    category = _known(record, "category_id", names, where)
    crowd = record.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise DatasetError(where, found=f"iscrowd {crowd!r}", expected="0 or 1", remedy="correct it")
    kind = "segmentation" if record.get("segmentation") else "box"
    return Shape(where, (names[category], category), kind, record, is_undecided=bool(crowd))


def _by_id(content: Record, kind: str, path: Path) -> dict[Id, Record]:
    found: dict[Id, Record] = {}
    for number, record in enumerate(take_objects(content, _LISTS[kind], path)):
        key = _take_id(record, "id", f"{path}: {kind} record {number}")
        if key in found:
            raise DatasetError(
                path, found=f"two {kind} records of id {key}", expected="each id once", remedy="number them again"
            )
        found[key] = record
    return found


def _known(record: Record, key: str, known: Mapping[Id, object], where: str) -> Id:
    value = _take_id(record, key, where)
    if value not in known:
        raise DatasetError(
            where, found=f"{key} {value!r}, which no record has", remedy="add that record, or remove the annotation"
        )
    return value


def _take_id(record: Record, key: str, where: str) -> Id:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DatasetError(where, found=f"no {key}", expected="a number or a text", remedy="export it again")
    return value


def decode_segmentation(segmentation: Any, canvas: Canvas, where: str) -> Mask:
    """Decode a segmentation: polygons, which add up, or RLE, compressed or not.

    Polygons are filled by their true edges, see :mod:`lung_d2.masks`, with (0, 0) at the picture's corner, so
    that a pixel's centre is at (0.5, 0.5). ``frPyObjects`` of ``pycocotools`` means the same, but rounds the points to
    a fifth of a pixel and leaves out some centres on the contour: of random contours of 16 to 80 pixels across, the
    two differ in one pixel for every twenty pixels of the contour's length (IoU 0.99).

    Args:
        segmentation: As it is in the JSON file.
        canvas: The picture.
        where: File and annotation, for messages.

    Returns:
        bool ``(H, W)``.

    Raises:
        DatasetError: It is missing or broken.
    """
    if isinstance(segmentation, dict):
        return decode_runs(read_runs(segmentation, canvas.shape, where), canvas.shape)
    if not isinstance(segmentation, list) or not all(isinstance(ring, list) for ring in segmentation):
        raise DatasetError(
            where, found="a segmentation of another form", expected="a list of polygons, or RLE", remedy=_REMEDY
        )
    mask = np.zeros(canvas.shape, bool)
    for ring in segmentation:
        mask |= canvas.fill(_pair(ring, where), where)
    return mask


def fill_shape(shape: Shape, canvas: Canvas) -> Mask:
    """Return the mask of an annotation; see :func:`decode_segmentation`."""
    return decode_segmentation(shape.record["segmentation"], canvas, shape.where)


def contours_of(shape: Shape) -> list[list[Any]]:
    """Return the polygons of an annotation as pairs of x and y, unchecked; RLE has none."""
    segmentation = shape.record["segmentation"]
    rings = segmentation if isinstance(segmentation, list) else []
    return [list(zip(ring[::2], ring[1::2], strict=False)) for ring in rings if isinstance(ring, list)]


def _pair(ring: list[Any], where: str) -> npt.NDArray[np.float64]:
    """Return the points ``(N, 2)`` of ``[x0, y0, x1, y1, ...]``."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in ring):
        raise DatasetError(where, found="a polygon of other than numbers", expected="x, y, x, y, ...", remedy=_REMEDY)
    if len(ring) % 2:
        raise DatasetError(
            where, found=f"a polygon of {len(ring)} numbers", expected="an even number: x, y, x, y, ...", remedy=_REMEDY
        )
    try:
        return np.array(ring, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise DatasetError(where, found="a coordinate that is not finite", remedy="draw it again") from error


def split_of_file(path: Path) -> str:
    """Return the split of ``instances_train2017.json``, ``val.json``, or ``test/_annotations.coco.json``.

    Returns:
        ``"train"``, ``"val"`` or ``"test"``: the one that the file's name holds as a word, else its folder's.

    Raises:
        DatasetError: Neither name holds one, or the file's name holds several.
    """
    for name in (path.stem, path.parent.name):
        found = {_SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPLITS}
        if len(found) == 1:
            return found.pop()
        if found:
            break
    raise DatasetError(
        path,
        found="a name of no split" if not found else "a name of several splits",
        expected="train, val or test in it, as in instances_train.json",
        remedy="rename it, or leave --splits-from-names out and give --split-file",
    )
