"""The COCO JSON of prepared data sets as a truth, checked: a mask or an id that is wrong would make wrong figures.

Masks may be RLE, compressed or not, or polygons, which ``pycocotools`` fills as it does for ``COCOEvaluator``. What
follows from the mask (``bbox``, ``area``) may be missing, and so may ``iscrowd``, which then is 0. A category that the
file does not list has no lesion in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.categories import COCO_NAMES, NUMBER_OF_COCO_ID
from lung_d2.ct.planes import MAX_SIDE
from lung_d2.errors import DatasetError
from lung_d2.evaluation.json_values import compress_mask, is_box, is_number, is_whole
from lung_d2.evaluation.truth import Place, Region, SliceRecord, Source, Truth

Rle = dict[str, Any]
_AGAIN = "prepare the data set again"
_LONGEST_PX = 1_000_000  # of a contour, which pycocotools follows pixel by pixel, outside of the picture too
_SIDES = f"1 to {MAX_SIDE}"


def read_truth(sources: Sequence[Source]) -> Truth:
    """Read prepared data sets, together; a patient of several is one patient.

    Raises:
        DatasetError: An annotation file is missing or broken, or a data set is given twice.
    """
    slices: list[SliceRecord] = []
    lesions: dict[Place, list[Region]] = {}
    undecided: dict[Place, list[Region]] = {}
    for source in sources:
        if sum(other.name == source.name for other in sources) > 1:
            raise DatasetError(f"data set {source.name}", found="given twice", expected="once", remedy="remove one")
        images, annotations, category_of = _parse(source)
        first = len(slices)
        slices += sorted((_read_slice(image, source) for image in images), key=lambda one: one.image_id)
        number_of = {one.image_id: first + offset for offset, one in enumerate(slices[first:])}
        if len(number_of) < len(images):
            found = "two images of one id"
            raise DatasetError(source.json_file, found=found, expected="one each", remedy=_AGAIN)
        for place, annotation in enumerate(annotations):
            where = f"{source.json_file}: annotation {place}"
            slice_number = number_of[_take_id(annotation, "image_id", where, number_of)]
            category = category_of[_take_id(annotation, "category_id", where, category_of)]
            is_crowd = _take(annotation, "iscrowd", where, lambda value: value in (0, 1), "0 or 1", default=0)
            region = _read_region(annotation, slices[slice_number].shape, where)
            (undecided if is_crowd else lesions).setdefault((slice_number, category), []).append(region)
    return Truth(tuple(sources), tuple(slices), lesions, undecided)


def _parse(source: Source) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[int, int]]:
    """Return images, annotations, and the number of each category of a data set, by its id there."""
    try:
        content = json.loads(source.json_file.read_text(encoding="utf-8"))
        images, annotations = content["images"], content["annotations"]
        categories = {one["id"]: one["name"] for one in content["categories"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"no COCO JSON of ours ({type(error).__name__}: {str(error)[:60]})"
        raise DatasetError(source.json_file, found=found, remedy=_AGAIN) from error
    if not categories.items() <= COCO_NAMES.items():
        found, expected = f"categories {str(categories)[:80]}", str(COCO_NAMES)
        raise DatasetError(source.json_file, found=found, expected=expected, remedy=_AGAIN)
    for entries, what in ((images, "images"), (annotations, "annotations")):
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise DatasetError(source.json_file, found=f"{what} that are no list of objects", remedy=_AGAIN)
    if not images:
        raise DatasetError(source.json_file, found="no slice", expected="at least one", remedy=_AGAIN)
    return images, annotations, {coco_id: NUMBER_OF_COCO_ID[coco_id] for coco_id in categories}


def _take_id(annotation: Mapping[str, Any], key: str, where: str, known: Mapping[int, int]) -> int:
    def is_right(value: Any) -> bool:
        return is_whole(value) and value in known

    return int(_take(annotation, key, where, is_right, "one that the file lists"))


def _take(
    entry: Mapping[str, Any], key: str, where: str, is_right: Callable[[Any], bool], expected: str, default: Any = None
) -> Any:
    value = entry.get(key, default)
    try:
        right = is_right(value)
    except TypeError:  # a list where something is compared, or looked up
        right = False
    if not right:
        found = f"{key} {'missing' if key not in entry else repr(value)[:40]}"
        raise DatasetError(where, found=found, expected=expected, remedy=_AGAIN)
    return value


def _read_slice(image: Mapping[str, Any], source: Source) -> SliceRecord:
    where = f"{source.json_file}: image {str(image.get('id'))[:20]}"

    def take(key: str, is_right: Callable[[Any], bool], expected: str) -> Any:
        return _take(image, key, where, is_right, expected)

    file_name = take("file_name", _is_text, "a name")
    spacing = take("pixel_spacing_mm", lambda value: value is None or _are_lengths(value), "two lengths, or null")
    return SliceRecord(
        dataset=source.name,
        image_id=take("id", is_whole, "a whole number"),
        file_name=file_name,
        path=source.image_root / file_name,
        shape=(take("height", _is_side, _SIDES), take("width", _is_side, _SIDES)),
        patient=take("patient", _is_text, "a name"),
        series=take("series", _is_text, "a name"),
        slice_index=take("slice_index", is_whole, "a whole number"),
        pixel_spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        slice_position_mm=take("slice_position_mm", lambda value: value is None or is_number(value), "mm, or null"),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_side(value: Any) -> bool:
    return is_whole(value) and 1 <= value <= MAX_SIDE


def _are_lengths(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(one) and one > 0 for one in value)


def _read_region(annotation: Mapping[str, Any], shape: tuple[int, int], where: str) -> Region:
    mask = _read_mask(annotation.get("segmentation"), shape, where)
    pixels = float(coco_mask.area(mask))
    if not pixels:
        raise DatasetError(where, found="a mask without a pixel", expected="a lesion", remedy=_AGAIN)
    if "bbox" not in annotation:
        annotation = {**annotation, "bbox": coco_mask.toBbox(mask).tolist()}
    x, y, width, height = map(float, _take(annotation, "bbox", where, is_box, "[x, y, width, height]"))
    area = _take(annotation, "area", where, lambda value: is_number(value) and value > 0, "pixels", default=pixels)
    return Region(mask, (x, y, width, height), float(area))


def _read_mask(segmentation: Any, shape: tuple[int, int], where: str) -> Rle:
    if isinstance(segmentation, dict):
        return compress_mask(segmentation, shape, where, _AGAIN)
    if not _are_polygons(segmentation):
        found = "no mask" if not segmentation else "a mask of another form"
        raise DatasetError(where, found=found, expected="RLE, or polygons of 3 points or more", remedy=_AGAIN)
    return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape)))


def _are_polygons(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_polygon, value))


def _is_polygon(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2 or not all(map(is_number, value)):
        return False
    points = np.array(value, np.float64).reshape(-1, 2)
    with np.errstate(over="ignore"):
        steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
        return bool(np.abs(points).max() <= _LONGEST_PX and steps.sum() <= _LONGEST_PX)
