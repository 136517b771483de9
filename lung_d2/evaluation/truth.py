"""The truth that results are measured against: slices, lesions and undecided regions of prepared data sets.

The COCO JSON is checked value by value: a wrong mask or id would give wrong figures. Masks may be RLE, compressed or
not, or polygons, which ``pycocotools`` fills as it does for ``COCOEvaluator``. What follows from the mask (``bbox``,
``area``) may be missing, and so may ``iscrowd``, which is then 0. A category that the file does not list has no lesion
in it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as coco_mask

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.planes import MAX_SIDE
from lung_d2.data.register import check_registered
from lung_d2.errors import DatasetError
from lung_d2.masks import read_runs


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; JSON has whole numbers that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_box(value: Any) -> bool:
    """Return whether a value is x, y, width and height of a box in or near a slice, in pixels."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        return False
    return max(map(abs, value)) <= 2 * MAX_SIDE and min(value[2:]) >= 0


def compress_mask(rle: Any, shape: tuple[int, int], where: str, remedy: str) -> dict[str, Any]:
    """Return RLE, compressed or not, as compressed RLE; see :func:`lung_d2.masks.read_runs`.

    Raises:
        DatasetError: It is broken, or of a picture of another size.
    """
    runs = read_runs(rle, shape, where, remedy)
    if isinstance(rle["counts"], str):
        return {"size": list(shape), "counts": rle["counts"]}
    return dict(coco_mask.frPyObjects({"size": list(shape), "counts": runs}, *shape))


Ints = npt.NDArray[np.int64]
Place = tuple[int, int]
"""The number of a slice in :attr:`Truth.slices`, and of a category in :attr:`Truth.categories`."""


@dataclass(frozen=True)
class Source:
    """A prepared data set on disk.

    Attributes:
        name: As it is registered, e.g. ``covid_slices_val``.
        json_file: Its COCO JSON, see :mod:`lung_d2.data.dataset`.
        image_root: The folder that its file names are in.
    """

    name: str
    json_file: Path
    image_root: Path


@dataclass(frozen=True)
class SliceRecord:
    """A slice of a data set.

    Attributes:
        dataset: Name of the data set.
        image_id: Its id there.
        file_name: Below ``image_root``.
        path: The picture.
        shape: Rows and columns.
        patient: Hash.
        series: Hash.
        slice_index: 0-based along the normal.
        pixel_spacing_mm: Of rows and columns; None where unknown.
        slice_position_mm: Along the normal; None where unknown.
    """

    dataset: str
    image_id: int
    file_name: str
    path: Path
    shape: tuple[int, int]
    patient: str
    series: str
    slice_index: int
    pixel_spacing_mm: tuple[float, float] | None
    slice_position_mm: float | None


@dataclass(frozen=True, eq=False)
class Region:
    """An annotated region.

    Attributes:
        mask: Compressed COCO RLE.
        box: x, y, width, height in pixels.
        area: Pixels.
    """

    mask: dict[str, Any]
    box: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True, eq=False)
class Truth:
    """The annotated slices that results are measured on.

    Attributes:
        sources: The data sets, in order.
        slices: By data set, then by image id; everywhere in this room a slice is known by its number here.
        lesions: Of each slice and category that has any.
        undecided: The same of regions that are neither lesion nor background (``iscrowd``).
        categories: The categories of the data sets; a category is known by its number here.
    """

    sources: tuple[Source, ...]
    slices: tuple[SliceRecord, ...]
    lesions: Mapping[Place, Sequence[Region]]
    undecided: Mapping[Place, Sequence[Region]]
    categories: Categories = CATEGORIES

    @functools.cached_property
    def patients(self) -> tuple[str, ...]:
        """The patients, in the order of their first slice."""
        return tuple(dict.fromkeys(one.patient for one in self.slices))

    @functools.cached_property
    def series(self) -> tuple[str, ...]:
        """The series, in the order of their first slice; series of two patients are different, even under one name."""
        return tuple(name for _, name in self._patient_series)

    @functools.cached_property
    def _patient_series(self) -> tuple[tuple[str, str], ...]:
        return tuple(dict.fromkeys((one.patient, one.series) for one in self.slices))

    @functools.cached_property
    def patient_of_slice(self) -> Ints:
        """int64 ``(slices,)``: the number of each slice's patient."""
        return _number([one.patient for one in self.slices], self.patients)

    @functools.cached_property
    def series_of_slice(self) -> Ints:
        """int64 ``(slices,)``: the number of each slice's series."""
        return _number([(one.patient, one.series) for one in self.slices], self._patient_series)

    @functools.cached_property
    def patient_of_series(self) -> Ints:
        """int64 ``(series,)``: the number of each series' patient."""
        found = dict(zip(self.series_of_slice.tolist(), self.patient_of_slice.tolist(), strict=True))
        return np.array([found[number] for number in range(len(self.series))], np.int64)

    def count_patients(self, slices: Sequence[int] | Ints) -> int:
        """Return how many patients these slices are of."""
        return len(np.unique(self.patient_of_slice[np.asarray(slices, np.int64)]))

    def patients_with_lesions(self, category: int | None = None) -> int:
        """Return how many patients have a lesion of this category, by number; None: of any."""
        return self.count_patients([place[0] for place in self.lesions if category in (None, place[1])])


def _number(values: Sequence[Hashable], known: Sequence[Hashable]) -> Ints:
    number_of = {value: number for number, value in enumerate(known)}
    return np.array([number_of[value] for value in values], np.int64)


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
    parsed = [_parse(source) for source in sources]
    categories = _join_categories(sources, [own for _, _, own in parsed])
    for source, (images, entries, own_categories) in zip(sources, parsed, strict=True):
        if sum(other.name == source.name for other in sources) > 1:
            raise DatasetError(f"data set {source.name}", found="given twice", expected="once", remedy="remove one")
        category_of = {one.coco_id: categories.numbers[one.coco_id] for one in own_categories}
        first = len(slices)
        slices += sorted((_read_slice(image, source) for image in images), key=lambda one: one.image_id)
        number_of = {one.image_id: first + offset for offset, one in enumerate(slices[first:])}
        if len(number_of) < len(images):
            found = "two images of one id"
            raise DatasetError(source.json_file, found=found, expected="one each", remedy=_AGAIN)
        for place, annotation in enumerate(entries):
            where = f"{source.json_file}: annotation {place}"
            slice_number = number_of[_take_id(annotation, "image_id", where, number_of)]
            category = category_of[_take_id(annotation, "category_id", where, category_of)]
            is_crowd = _take(annotation, "iscrowd", where, lambda value: value in (0, 1), "0 or 1", default=0)
            region = _read_region(annotation, slices[slice_number].shape, where)
            (undecided if is_crowd else lesions).setdefault((slice_number, category), []).append(region)
    return Truth(tuple(sources), tuple(slices), lesions, undecided, categories)


def _join_categories(sources: Sequence[Source], own: Sequence[Categories]) -> Categories:
    """Return the categories of all data sets; the two defaults if no set names another."""
    by_id = {one.coco_id: one for one in CATEGORIES} if all(set(one) <= set(CATEGORIES) for one in own) else {}
    for source, categories in zip(sources, own, strict=True):
        for category in categories:
            known = by_id.setdefault(category.coco_id, category)
            if known.name != category.name:
                raise DatasetError(
                    source.json_file,
                    found=f"category {category.coco_id} named {category.name}",
                    expected=f"{known.name}, as in the other data set",
                    remedy="evaluate the data sets apart",
                )
    return Categories(list(by_id.values()))


def _parse(source: Source) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Categories]:
    """Return images, annotations and categories of a data set."""
    try:
        content = json.loads(source.json_file.read_text(encoding="utf-8"))
        images, annotations = content["images"], content["annotations"]
        records = content["categories"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"no COCO JSON of ours ({type(error).__name__}: {str(error)[:60]})"
        raise DatasetError(source.json_file, found=found, remedy=_AGAIN) from error
    categories = Categories.from_coco(records, source.json_file)
    for entries, what in ((images, "images"), (annotations, "annotations")):
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise DatasetError(source.json_file, found=f"{what} that are not a list of objects", remedy=_AGAIN)
    if not images:
        raise DatasetError(source.json_file, found="no slice", expected="at least one", remedy=_AGAIN)
    return images, annotations, categories


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


def find_sources(names: Sequence[str]) -> list[Source]:
    """Return the sources of registered data sets.

    Raises:
        DatasetError: One was not prepared.
    """
    check_registered(list(names))
    found = [(name, MetadataCatalog.get(name)) for name in names]
    return [Source(name, Path(metadata.json_file), Path(metadata.image_root)) for name, metadata in found]


def check_folder(results: Path, name: str) -> None:
    """Refuse results in a folder that an evaluation named after another data set.

    Image ids alone do not tell: those of most data sets begin at 1.

    Args:
        results: The results file, as ``OUTPUT_DIR/inference/NAME/coco_instances_results.json``.
        name: The data set that they are measured on.

    Raises:
        DatasetError: The folder is named like another registered data set.
    """
    folder = results.resolve().parent.name
    if folder != name and folder in DatasetCatalog.list():
        raise DatasetError(
            results,
            found=f"results of {folder}, by the name of their folder",
            expected=f"results of {name}",
            remedy=f"give --dataset {folder}, or move the file",
        )
