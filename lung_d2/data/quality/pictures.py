"""Pictures of a prepared data set's slices, small enough to be embedded in a page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct.grey import GreyLevels
from lung_d2.data.planes import read_plane
from lung_d2.drawing.pages import embed_jpeg
from lung_d2.drawing.sheet import Sample, draw_sample
from lung_d2.errors import DatasetError
from lung_d2.masks import decode_mask, mask_box

_TILE_PX = 280
_GAP_PX = 3
_JPEG_QUALITY = 82
_CLOSE_UP = 2.5  # sides of the lesion's box
_LEAST_CLOSE_UP_PX = 48


@dataclass(frozen=True)
class Picture:
    """A picture to embed.

    Attributes:
        source: Data URI of a JPEG.
        place: The split and the slice's file name.
        note: What is seen there.
    """

    source: str
    place: str
    note: str


@dataclass(frozen=True, eq=False)
class _Slice:
    """A slice of the data set: its split, its image record of COCO, and its annotations."""

    split: str
    image: Mapping[str, Any]
    annotations: list[Mapping[str, Any]]


class DatasetPictures:
    """Draws slices of a prepared data set until a number of bytes is used up.

    Args:
        folder: The data set, see :mod:`lung_d2.data.dataset`.
        budget_bytes: Most bytes of all pictures together, as embedded.

    Raises:
        DatasetError: An annotation file is broken.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._images = folder / "images"
        self._budget = budget_bytes
        self._slices: dict[str, _Slice] = {}
        self.categories = CATEGORIES  # of the data set
        for json_file in sorted((folder / "annotations").glob("*.json")):
            self.categories, slices = _read_slices(json_file)
            self._slices.update(slices)

    def examples(self, category: Category, count: int) -> Iterator[Picture]:
        """Draw lesions of a category, small and large ones, of as many patients as there are.

        Args:
            category: Of the lesions.
            count: Most pictures.

        Yields:
            Strips of three: the slice with all its lesions outlined, a close-up, and the close-up as it is.

        Raises:
            DatasetError: A picture of the data set is missing or broken.
        """
        lesions: dict[str, list[tuple[_Slice, Mapping[str, Any]]]] = defaultdict(list)
        for one in self._slices.values():
            for annotation in one.annotations:
                if annotation["category_id"] == category.coco_id and not annotation["iscrowd"]:
                    lesions[one.image["patient"]].append((one, annotation))
        patients = sorted(lesions)
        for number in range(min(count, sum(map(len, lesions.values())))):
            own = sorted(lesions[patients[number % len(patients)]], key=lambda lesion: lesion[1]["area"])
            rank = round((len(own) - 1) * (number + 1) / count)  # the last one is the largest of its patient
            yield from self._embed(*self._draw_lesion(*own[rank]))

    def slice_of(self, example: Mapping[str, Any]) -> Iterator[Picture]:
        """Draw the slice of an example of a warning, or nothing once the bytes are used up.

        Args:
            example: ``file_name``, ``split`` and ``note``.

        Raises:
            DatasetError: The picture is missing or broken.
        """
        # Slices that selection left out lie there as neighbours, but have no record and no outlines.
        one = self._slices.get(example["file_name"])
        plane = self._read(example["file_name"])
        drawn = _draw(plane, one.annotations if one else (), self.categories)
        yield from self._embed(drawn, f"{example['split']} · {example['file_name']}", example["note"])

    def _draw_lesion(self, one: _Slice, lesion: Mapping[str, Any]) -> tuple[npt.NDArray[np.uint8], str, str]:
        plane = self._read(one.image["file_name"])
        rows, columns = _close_up(lesion["bbox"], plane.shape)
        tiles = [
            _draw(plane, one.annotations, self.categories),
            _draw(plane, one.annotations, self.categories, (rows, columns)),
            _draw(plane, (), self.categories, (rows, columns)),
        ]
        gap = np.full((_TILE_PX, _GAP_PX, 3), 255, np.uint8)
        strip = np.hstack([tiles[0], gap, tiles[1], gap, tiles[2]])
        return strip, f"{one.split} · {one.image['file_name']}", _describe(one, lesion, plane)

    def _read(self, file_name: str) -> npt.NDArray[np.generic]:
        path = self._images / file_name
        if not path.resolve().is_relative_to(self._images.resolve()):
            raise DatasetError(file_name, found="outside the data set", remedy="prepare the data set again")
        return read_plane(path)

    def _embed(self, drawn: npt.NDArray[np.uint8], place: str, note: str) -> Iterator[Picture]:
        source = embed_jpeg(drawn, _JPEG_QUALITY)
        if len(source) <= self._budget:
            self._budget -= len(source)
            yield Picture(source, place, note)


def _read_slices(json_file: Path) -> tuple[Categories, dict[str, _Slice]]:
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
        by_id = {image["id"]: _Slice(json_file.stem, image, []) for image in content["images"]}
        for annotation in content["annotations"]:
            by_id[annotation["image_id"]].annotations.append(annotation)
        slices = {one.image["file_name"]: one for one in by_id.values()}
        return Categories.from_coco(content["categories"], json_file), slices
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            json_file, found=f"no COCO JSON ({type(error).__name__})", remedy="prepare the data set again"
        ) from error


def _draw(
    plane: npt.NDArray[np.generic],
    annotations: list[Mapping[str, Any]] | tuple[()],
    categories: Categories,
    crop: tuple[slice, slice] = (slice(None), slice(None)),
) -> npt.NDArray[np.uint8]:
    """Draw a slice or a part of it, with its annotations, as a square tile."""
    grey = plane.astype(np.uint8) if plane.dtype == np.uint8 else GreyLevels().apply(plane)
    lesions, undecided = [], None
    for annotation in annotations:
        mask = decode_mask(annotation["segmentation"])[crop]
        if annotation["iscrowd"]:
            undecided = mask
        elif mask.any():
            lesions.append((categories.by_coco_id(annotation["category_id"]), mask, mask_box(mask)))
    drawn = draw_sample(Sample(grey[crop], lesions, undecided=undecided), _TILE_PX)
    height, width = drawn.shape[:2]
    tile = np.zeros((_TILE_PX, _TILE_PX, 3), np.uint8)
    tile[(_TILE_PX - height) // 2 :, (_TILE_PX - width) // 2 :][:height, :width] = drawn
    return tile


def _close_up(bbox: list[float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a square around a box (x, y, width, height), inside the slice."""
    left, top, width, height = bbox
    side = min(max(round(_CLOSE_UP * max(width, height)), _LEAST_CLOSE_UP_PX), *shape)
    start = [
        min(max(round(first + length / 2 - side / 2), 0), size - side)
        for first, length, size in ((top, height, shape[0]), (left, width, shape[1]))
    ]
    return slice(start[0], start[0] + side), slice(start[1], start[1] + side)


def _describe(one: _Slice, lesion: Mapping[str, Any], plane: npt.NDArray[np.generic]) -> str:
    spacing = one.image["pixel_spacing_mm"]
    area = f"{lesion['area']} pixels" if spacing is None else f"{lesion['area'] * spacing[0] * spacing[1]:.0f} mm²"
    if plane.dtype != np.int16:
        return area
    return f"{area}, mean {plane[decode_mask(lesion['segmentation'])].mean():.0f} HU"
