"""DICOM SEG over CT series, in a tree of any shape; see :mod:`lung_d2.data.importers.dicom.annotation_objects`.

The meaning of a segment comes from ``--label`` for its label or number; else from the code of its property type, if a
category has it; else from its label. Each frame lies on the slice at its position, which must be the slice whose image
it names. Slices without a frame have no part of the segment.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import Case
from lung_d2.data.importers.dicom.annotation_objects import find_annotated_cases
from lung_d2.data.importers.dicom.seg_file import (
    FRACTIONAL,
    SEGMENTATION,
    SegFrame,
    Segmentation,
    Values,
    read_frames,
    read_segmentation,
    read_segments,
)
from lung_d2.data.importers.dicom.slice_grid import Placement, SliceGrid
from lung_d2.data.importers.registry import Importer, Request
from lung_d2.data.importers.volume_cases import RegionsOf
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label, LabelTable, Meaning
from lung_d2.errors import ConfigError, GeometryError, InputError
from lung_d2.masks import decode_mask, encode_mask

logger = logging.getLogger(__name__)

Rle = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.5,
        help="of a FRACTIONAL segment, the least probability or occupancy inside (default %(default)g)",
    )


def find_cases(request: Request, *, fraction: float = 0.5) -> list[Case]:
    """Find the series and their segmentations.

    Args:
        request: What is asked of any importer.
        fraction: Least probability or occupancy of a pixel inside, above 0, up to 1.

    Returns:
        The cases, sorted by folder and series.

    Raises:
        ConfigError: The fraction is out of range.
        DatasetError, InputError: See
            :func:`lung_d2.data.importers.dicom.annotation_objects.find_annotated_cases`.
    """
    if not 0 < fraction <= 1:
        raise ConfigError("--fraction", found=str(fraction), expected="above 0, up to 1", remedy="correct it")
    return find_annotated_cases(request, SEGMENTATION, read_segments, partial(_read_file, fraction))


IMPORTER = Importer("dicom-seg", "CT series with DICOM SEG over them", find_cases, add_arguments)


def _read_file(fraction: float, path: Path, labels: LabelTable, volume: CTVolume) -> RegionsOf:
    grid = SliceGrid.of(volume)
    segmentation = read_segmentation(path, labels)
    meanings = labels.meanings(segmentation.segments, path)
    undecided = Label.IGNORE in meanings.values()
    # Background only matters where it limits undecided regions; otherwise its frames, often the most, are not read.
    wanted = {number: one for number, one in meanings.items() if one is not Label.BACKGROUND or undecided}
    planes = _Planes(grid)
    for frame, masks in _read_masks(segmentation, wanted, fraction):
        placement = _place(segmentation, frame, grid)
        for number, mask in masks.items():
            planes.add(number, placement, mask, segmentation.where(frame))
    return partial(_regions, planes.encoded(), wanted, str(path))


def _regions(
    planes: Mapping[int, Mapping[int, Rle]], meanings: Mapping[int, Meaning], name: str, index: int
) -> list[Region]:
    return [
        Region(meanings[number], decode_mask(rle), f"{name} segment {number}")
        for number, rle in planes.get(index, {}).items()
    ]


def _read_masks(
    segmentation: Segmentation, wanted: Mapping[int, Meaning], fraction: float
) -> Iterator[tuple[SegFrame, dict[int, npt.NDArray[np.bool_]]]]:
    """Yield the frames that hold wanted segments, with the mask of each; empty masks are left out."""
    chosen = {one.number for one in segmentation.frames if wanted and (one.segment is None or one.segment in wanted)}
    for frame, values in read_frames(segmentation, chosen):
        if frame.segment is None:
            _check_declared(segmentation, frame, values)
            masks = {number: values == number for number in wanted if number != segmentation.background}
        elif segmentation.kind == FRACTIONAL:
            masks = {frame.segment: values >= fraction * segmentation.maximum}
        else:
            masks = {frame.segment: values > 0}
        yield frame, {number: mask for number, mask in masks.items() if mask.any()}


def _check_declared(segmentation: Segmentation, frame: SegFrame, values: Values) -> None:
    """Refuse a label map with values that are not segments."""
    known = {segmentation.background, *segmentation.segments}
    undeclared = [int(value) for value in np.unique(values) if int(value) not in known]
    if undeclared:
        raise InputError(
            segmentation.where(frame),
            found=f"segment {undeclared[0]}, which is not declared",
            expected=f"one of {len(segmentation.segments)} segments",
            remedy="export it again",
        )


def _place(segmentation: Segmentation, frame: SegFrame, grid: SliceGrid) -> Placement:
    where = segmentation.where(frame)
    if frame.plane is not None:
        placement = grid.place(frame.plane, where)
        if placement.slice_index is not None and 0 <= placement.slice_index < grid.shape[0]:
            grid.check_images(placement.slice_index, frame.images, where)
        return placement
    index = grid.slice_named(frame.images, where)
    if segmentation.shape != grid.shape[1:]:
        raise GeometryError(
            where,
            found=f"{segmentation.shape[0]} x {segmentation.shape[1]} pixels without a position",
            expected=f"{grid.shape[1]} x {grid.shape[2]}, as the image it names",
            remedy="export it again with plane positions",
        )
    return Placement(np.array([0, 0, index]), np.eye(3, 2, dtype=np.intp))


class _Planes:
    """The masks of the frames by slice and segment, encoded.

    Frames that cut across slices are kept as voxels until the end.
    """

    def __init__(self, grid: SliceGrid) -> None:
        self._grid = grid
        self._planes: dict[int, dict[int, Rle]] = {}
        self._across: dict[int, list[npt.NDArray[np.int32]]] = {}

    def add(self, segment: int, placement: Placement, mask: npt.NDArray[np.bool_], where: str) -> None:
        """Add the mask of a segment in a frame."""
        voxels = placement.voxels(mask)
        limits = np.array(self._grid.shape[::-1])[:, None]
        outside = int(((voxels < 0) | (voxels >= limits)).any(axis=0).sum())
        if outside:
            raise GeometryError(
                where,
                found=f"{outside} of {voxels.shape[1]} marked pixels outside the CT",
                expected="all of them in the series",
                remedy="give the whole series that it was drawn on",
            )
        if placement.slice_index is None:
            self._across.setdefault(segment, []).append(self._flat(voxels).astype(np.int32))
        else:
            self._encode(segment, self._flat(voxels))

    def encoded(self) -> dict[int, dict[int, Rle]]:
        """Return the masks as RLE, by slice and segment."""
        while self._across:
            segment, parts = self._across.popitem()
            voxels = np.sort(np.concatenate(parts))
            area = self._grid.shape[1] * self._grid.shape[2]
            for part in np.split(voxels, np.flatnonzero(np.diff(voxels // area)) + 1):
                self._encode(segment, part)
        return self._planes

    def _flat(self, voxels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return np.ravel_multi_index(tuple(voxels[::-1]), self._grid.shape)

    def _encode(self, segment: int, flat: npt.NDArray[np.integer[Any]]) -> None:
        """Add voxels of one slice, by their flat indices."""
        _, rows, columns = self._grid.shape
        plane = np.zeros(rows * columns, bool)
        index = int(flat[0]) // plane.size
        plane[flat - index * plane.size] = True
        segments = self._planes.setdefault(index, {})
        rle = encode_mask(plane.reshape(rows, columns))
        segments[segment] = coco_mask.merge([segments[segment], rle]) if segment in segments else rle
