"""What was found: detections of a COCO results file, checked against the data set that they are of.

A results file is what Detectron2's ``COCOEvaluator`` writes as ``coco_instances_results.json``, and what
``pycocotools.coco.COCO.loadRes`` reads: a list of ``image_id``, ``category_id``, ``score``, ``bbox`` (x, y, width,
height) and ``segmentation`` (RLE). Whatever writes one can be measured.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.errors import DatasetError
from lung_d2.evaluation.truth import Ints, Place, Truth, compress_mask, is_box, is_number, is_whole

RESULTS_NAME = "coco_instances_results.json"
"""What Detectron2's evaluator calls the file."""
_WHAT = "a COCO results file: a list of detections"
_OTHER = "give the --dataset that these results are of"
_AGAIN = "write the results again"
_SHOWN_PARTS = 5  # of a path, e.g. output/RUN/inference/NAME/coco_instances_results.json


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections on the slices of a :class:`lung_d2.evaluation.truth.Truth`, in the order of their files.

    Attributes:
        slices: int64 ``(N,)``, numbers of slices.
        categories: int64 ``(N,)``, numbers of categories.
        scores: float64 ``(N,)``, 0..1.
        boxes: float64 ``(N, 4)``: x, y, width, height in pixels.
        masks: N compressed COCO RLE of the slice's size.
        files: The end of each file's path.
        digest: SHA-256 of the files, hexadecimal.
    """

    slices: Ints
    categories: Ints
    scores: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]
    masks: tuple[dict[str, Any], ...]
    files: tuple[str, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.scores)

    @functools.cached_property
    def by_place(self) -> Mapping[Place, Ints]:
        """The indices of the detections of each slice and category that has any, by falling score."""
        order = np.lexsort((-self.scores, self.categories, self.slices))
        keys = np.stack([self.slices[order], self.categories[order]], axis=1)
        starts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
        groups = np.split(order, starts) if len(order) else []
        return {(int(self.slices[group[0]]), int(self.categories[group[0]])): group for group in groups}


def read_results(paths: Sequence[Path], truth: Truth) -> Detections:
    """Read the results file of each data set, in the order of ``truth.sources``.

    Args:
        paths: One file for each data set. An empty list in a file is valid: nothing was found.
        truth: The data sets.

    Raises:
        DatasetError: A file is missing, broken, or of another data set.
    """
    found: list[tuple[int, int, float, list[float], dict[str, Any]]] = []
    digest = hashlib.sha256()
    for source, path in zip(truth.sources, paths, strict=True):
        numbers = {one.image_id: number for number, one in enumerate(truth.slices) if one.dataset == source.name}
        data = _read_bytes(path)
        digest.update(data)
        found += (
            _read_detection(entry, f"{path}: detection {place}", numbers, truth, source.name)
            for place, entry in enumerate(_parse(data, path))
        )
    return Detections(
        slices=np.array([one[0] for one in found], np.int64),
        categories=np.array([one[1] for one in found], np.int64),
        scores=np.array([one[2] for one in found], np.float64),
        boxes=np.array([one[3] for one in found], np.float64).reshape(-1, 4),
        masks=tuple(one[4] for one in found),
        files=tuple(Path(*path.resolve().parts[-_SHOWN_PARTS:]).as_posix() for path in paths),
        digest=digest.hexdigest(),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DatasetError(path, found=found, expected=_WHAT, remedy="check the path") from error


def _parse(data: bytes, path: Path) -> list[Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(path, found="no JSON, or one that breaks off", expected=_WHAT, remedy=_AGAIN) from error
    if isinstance(content, dict) and "annotations" in content:
        raise DatasetError(path, found="a COCO data set", expected=_WHAT, remedy=f"give {RESULTS_NAME}")
    if not isinstance(content, list):
        raise DatasetError(path, found="JSON of another kind", expected=_WHAT, remedy=f"give {RESULTS_NAME}")
    return content


def _read_detection(
    entry: Any, where: str, numbers: Mapping[int, int], truth: Truth, dataset: str
) -> tuple[int, int, float, list[float], dict[str, Any]]:
    if not isinstance(entry, dict):
        raise DatasetError(where, found="no object", expected=_WHAT, remedy=_AGAIN)
    taken: list[Any] = [entry.get(key) for key in ("image_id", "category_id", "score")]
    image_id, category_id, score = taken
    if not is_whole(image_id) or image_id not in numbers:
        found = f"image_id {_show(image_id)}"
        raise DatasetError(where, found=found, expected=f"an image of {dataset}", remedy=_OTHER)
    if not is_whole(category_id) or category_id not in truth.categories.numbers:
        expected = ", ".join(f"{category.coco_id} ({category.name})" for category in truth.categories)
        raise DatasetError(where, found=f"category_id {_show(category_id)}", expected=expected, remedy="correct it")
    if not is_number(score) or not 0 <= score <= 1:
        raise DatasetError(where, found=f"score {_show(score)}", expected="0 to 1", remedy=_AGAIN)
    number = numbers[image_id]
    mask = _read_mask(entry.get("segmentation"), truth.slices[number].shape, where, dataset)
    box = entry["bbox"] if "bbox" in entry else coco_mask.toBbox(mask).tolist()
    if not is_box(box):
        raise DatasetError(where, found=f"bbox {_show(box)}", expected="[x, y, width, height]", remedy=_AGAIN)
    return number, truth.categories.numbers[category_id], float(score), [float(value) for value in box], mask


def _read_mask(rle: Any, shape: tuple[int, int], where: str, dataset: str) -> dict[str, Any]:
    if not isinstance(rle, dict) or "counts" not in rle:
        found = "a polygon" if rle else "no segmentation"
        raise DatasetError(where, found=found, expected="the mask as RLE", remedy="write the masks as RLE")
    if rle.get("size") != list(shape):
        raise DatasetError(
            where,
            found=f"a mask of {_show(rle.get('size'))} pixels",
            expected=f"{list(shape)}, as its slice in {dataset}",
            remedy=f"{_OTHER}, or write the masks in the size of the slices",
        )
    return compress_mask(rle, shape, where, _AGAIN)


def _show(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
