"""The records of a COCO file, checked: what belongs to what, and each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lung_d2.data.importers.records import Record, read_json, take, take_objects
from lung_d2.errors import DatasetError

Id = int | str

_WHAT = "a COCO file with images, annotations and categories"


@dataclass(frozen=True)
class CocoImage:
    """An image record.

    Attributes:
        file_name: As the file says; see :func:`lung_d2.data.importers.pictures.find_inside`.
        height: Rows; 0 where the file does not say.
        width: Columns; 0 where the file does not say.
        patient: ``patient_id`` or ``patient`` of the record; empty where it has none.
    """

    file_name: object
    height: int
    width: int
    patient: str = ""


@dataclass(frozen=True)
class CocoAnnotation:
    """An annotation record.

    Attributes:
        where: File and annotation, for messages.
        category: Name of its category.
        category_id: Its id.
        segmentation: Polygons, RLE, or nothing, as the file says.
        is_crowd: Whether ``iscrowd`` is set.
        is_from_cvat: Whether it has the attribute ``occluded``, which CVAT gives to every shape.
    """

    where: str
    category: str
    category_id: Id
    segmentation: Any
    is_crowd: bool
    is_from_cvat: bool


@dataclass(frozen=True)
class CocoFile:
    """A COCO file.

    Attributes:
        images: Image records by id.
        annotations: Annotations by the id of their image; images without one are missing.
    """

    images: Mapping[Id, CocoImage]
    annotations: Mapping[Id, tuple[CocoAnnotation, ...]]


def read_coco(path: Path) -> CocoFile:
    """Read a COCO file and check that its records fit together.

    Raises:
        DatasetError: It is broken or no COCO; an id is missing or there twice; an annotation names an image or a
            category that is not there.
    """
    content = read_json(path, _WHAT)
    if "images" not in content and "shapes" in content:
        raise DatasetError(path, found="a file of labelme", expected=_WHAT, remedy="give the subcommand labelme")
    if "images" not in content:
        raise DatasetError(path, found="no 'images'", expected=_WHAT, remedy="give another file")
    images = {
        key: _read_image(record, f"{path}: image {key}")
        for key, record in _by_id(take_objects(content, "images", path), "image", path).items()
    }
    if not images:
        raise DatasetError(path, found="no image", expected=_WHAT, remedy="export it again")
    records = _by_id(take_objects(content, "annotations", path) if "annotations" in content else [], "annotation", path)
    categories = _read_categories(content, path) if records else {}
    annotations: dict[Id, list[CocoAnnotation]] = {}
    for key, record in records.items():
        where = f"{path}: annotation {key}"
        image = _known(record, "image_id", images, where)
        annotations.setdefault(image, []).append(_read_annotation(record, categories, where))
    return CocoFile(images, {image: tuple(members) for image, members in annotations.items()})


def _read_categories(content: Record, path: Path) -> dict[Id, str]:
    records = _by_id(take_objects(content, "categories", path), "category", path)
    return {key: take(record, "name", str, f"{path}: category {key}") for key, record in records.items()}


def _read_image(record: Record, where: str) -> CocoImage:
    height, width = (take(record, key, int, where) if record.get(key) else 0 for key in ("height", "width"))
    patient = record.get("patient_id", record.get("patient"))
    return CocoImage(record.get("file_name"), height, width, "" if patient is None else str(patient))


def _read_annotation(record: Record, categories: Mapping[Id, str], where: str) -> CocoAnnotation:
    category = _known(record, "category_id", categories, where)
    crowd = record.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise DatasetError(where, found=f"iscrowd {crowd!r}", expected="0 or 1", remedy="correct it")
    attributes = record.get("attributes")
    is_from_cvat = isinstance(attributes, dict) and "occluded" in attributes
    segmentation = record.get("segmentation")
    return CocoAnnotation(where, categories[category], category, segmentation, bool(crowd), is_from_cvat)


def _by_id(records: list[dict[str, Any]], kind: str, path: Path) -> dict[Id, dict[str, Any]]:
    found: dict[Id, dict[str, Any]] = {}
    for number, record in enumerate(records):
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
