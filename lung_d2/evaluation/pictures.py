"""Slices of an evaluation: what is there beside what was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.categories import CATEGORIES, Category
from lung_d2.ct.grey import GreyLevels
from lung_d2.data.planes import read_plane
from lung_d2.drawing.pages import embed_jpeg
from lung_d2.drawing.sheet import Sample, draw_sample
from lung_d2.errors import DatasetError
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth
from lung_d2.masks import decode_mask

logger = logging.getLogger(__name__)

_TILE_PX = 300
_GAP_PX = 3
_JPEG_QUALITY = 82
_NO_PICTURE = 70  # grey level behind the outlines where a picture is missing


@dataclass(frozen=True)
class SlicePicture:
    """A picture to embed.

    Attributes:
        source: Data URI of a JPEG: lesions on the left, detections on the right.
        note: How good the slice is.
        place: Which slice it is.
    """

    source: str
    note: str
    place: str


def draw_slices(
    truth: Truth, detections: Detections, ranked: Sequence[Mapping[str, Any]], score_threshold: float
) -> Iterator[SlicePicture]:
    """Draw ranked slices, see :func:`lung_d2.evaluation.slice_ranking.rank_slices`.

    No figure needs the pictures: a slice whose picture is missing is drawn without, and says so.

    Raises:
        DatasetError: A picture of the data set is broken.
    """
    missing = [entry["file_name"] for entry in ranked if not truth.slices[entry["slice"]].path.is_file()]
    if missing:
        logger.warning("pictures that are not there, drawn without: %s", ", ".join(missing))
    for entry in ranked:
        drawn = draw_slice(truth, detections, entry["slice"], score_threshold)
        note = f"Dice {entry['dice']:.2f}: {entry['lesion']:,} px lesion, {entry['missed']:,} missed"
        yield SlicePicture(
            embed_jpeg(drawn, _JPEG_QUALITY),
            f"{note}, {entry['false']:,} false",
            f"{entry['dataset']} · {entry['file_name']}{' · picture missing' if entry['file_name'] in missing else ''}",
        )


def draw_slice(truth: Truth, detections: Detections, number: int, score_threshold: float) -> npt.NDArray[np.uint8]:
    """Draw a slice twice: with its lesions, undecided regions hatched, and with the detections that count.

    Args:
        truth: What is there.
        detections: What was found.
        number: Of the slice.
        score_threshold: Detections of at least this score count.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    grey = _read_grey(truth, number)
    lesions = [
        (category, decode_mask(region.mask), _corners(region.box))
        for place, category in enumerate(CATEGORIES)
        for region in truth.lesions.get((number, place), ())
    ]
    unknown = [region.mask for place in range(len(CATEGORIES)) for region in truth.undecided.get((number, place), ())]
    undecided = decode_mask(coco_mask.merge(unknown)) if unknown else None
    tiles = [draw_sample(Sample(grey, lesions, undecided=undecided), _TILE_PX)]
    tiles.append(draw_sample(Sample(grey, list(_found(detections, number, score_threshold))), _TILE_PX))
    return np.hstack([tiles[0], np.full((tiles[0].shape[0], _GAP_PX, 3), 255, np.uint8), tiles[1]])


def _found(
    detections: Detections, number: int, score_threshold: float
) -> Iterator[tuple[Category, npt.NDArray[np.bool_], tuple[float, ...]]]:
    for place, category in enumerate(CATEGORIES):
        for index in detections.by_place.get((number, place), ()):
            if detections.scores[index] >= score_threshold:
                yield category, decode_mask(detections.masks[index]), _corners(detections.boxes[index].tolist())


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _read_grey(truth: Truth, number: int) -> npt.NDArray[np.uint8]:
    one = truth.slices[number]
    root = next(source.image_root for source in truth.sources if source.name == one.dataset)
    if not one.path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(one.file_name, found="outside the data set", remedy="prepare the data set again")
    if not one.path.is_file():
        return np.full(one.shape, _NO_PICTURE, np.uint8)
    plane = read_plane(one.path)
    if plane.shape != one.shape:
        raise DatasetError(
            one.path, found=f"a slice of {plane.shape}", expected=f"{one.shape}", remedy="prepare the data set again"
        )
    return plane.astype(np.uint8) if plane.dtype == np.uint8 else GreyLevels().apply(plane)
