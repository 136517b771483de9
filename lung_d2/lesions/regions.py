"""The detections of one category on all slices, cropped and packed, and how much they overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import slice_shifts
from lung_d2.masks import decode_mask

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks of one category, by slice, then falling score.

    Attributes:
        slice_indices: int64 ``(N,)``, ascending.
        scores: float32 ``(N,)``, 0..1.
        areas: int64 ``(N,)``, pixels.
        boxes: int64 ``(N, 4)``: first row and column, and those after the last, pixels.
        upright: int64 ``(N, 4)``: the same after the shift of :func:`lung_d2.lesions.lesion.slice_shifts`, so that what
            lies on one normal of the slices has the same row and column.
        bits: The mask of each in its box, eight pixels to a byte, so that 600 slices of ten large lesions fit.
    """

    slice_indices: Ints
    scores: npt.NDArray[np.float32]
    areas: Ints
    boxes: Ints
    upright: Ints
    bits: tuple[npt.NDArray[np.uint8], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.bits)

    def mask(self, index: int) -> Mask:
        """Return a mask in its box, bool ``[y, x]``."""
        top, left, bottom, right = self.boxes[index].tolist()
        size = (bottom - top) * (right - left)
        return np.unpackbits(self.bits[index], count=size).reshape(bottom - top, right - left).view(bool)

    def meeting(self, index: int, others: Ints) -> Ints:
        """Return those of ``others`` whose upright box overlaps that of a region."""
        top, left, bottom, right = self.upright[index]
        boxes = self.upright[others]
        meets = (boxes[:, 0] < bottom) & (boxes[:, 2] > top) & (boxes[:, 1] < right) & (boxes[:, 3] > left)
        return others[meets]

    def shared_area(self, index: int, others: Iterable[int]) -> int:
        """Return how many pixels of a region the union of ``others`` covers, seen along the normal of the slices."""
        mask = self.mask(index)
        covered = np.zeros_like(mask)
        top, left, bottom, right = self.upright[index].tolist()
        for other in others:
            y0, x0, y1, x1 = self.upright[other].tolist()
            rows = max(top, y0), min(bottom, y1)
            columns = max(left, x0), min(right, x1)
            if rows[0] < rows[1] and columns[0] < columns[1]:
                part = self.mask(other)[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0]
                covered[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] |= part
        return int(np.count_nonzero(covered & mask))

    def overlap(self, first: int, second: int, min_overlap: float) -> bool:
        """Return whether two regions share a pixel, and at least this share of the pixels of the smaller, 0..1."""
        shared = self.shared_area(first, [second])
        return shared > 0 and shared >= min_overlap * int(min(self.areas[first], self.areas[second]))


def collect_regions(
    detections: Sequence[SliceDetections], volume: CTVolume, min_score: float, categories: Categories = CATEGORIES
) -> dict[Category, Regions]:
    """Crop and pack the masks of each category.

    Args:
        detections: In any order; a slice may be listed more than once, or be missing.
        volume: Their volume.
        min_score: Detections with a lower score, and those with an empty mask, are left out.
        categories: The categories of the model.

    Returns:
        The regions of every category, in an order that does not depend on that of ``detections``.

    Raises:
        InputError: A detection is not of this volume.
        DatasetError: A category is unknown.
    """
    found: dict[Category, list[tuple[int, float, bytes, dict[str, Any]]]] = {category: [] for category in categories}
    for item in detections:
        _check_slice(item, volume)
        kept = item.above(min_score)
        for score, coco_id, rle in zip(kept.scores, kept.category_ids, kept.masks, strict=True):
            counts = rle["counts"]
            key = counts.encode("ascii") if isinstance(counts, str) else counts
            found[categories.by_coco_id(int(coco_id))].append((item.slice_index, -float(score), key, rle))
    shifts = slice_shifts(volume)
    return {category: _pack(sorted(rows, key=lambda row: row[:3]), shifts) for category, rows in found.items()}


def _check_slice(item: SliceDetections, volume: CTVolume) -> None:
    slices, *size = volume.hu.shape
    sizes = {tuple(rle["size"]) for rle in item.masks} - {tuple(size)}
    if not 0 <= item.slice_index < slices or sizes:
        raise InputError(
            f"detections of slice {item.slice_index}",
            found=f"masks of {sizes.pop()} pixels" if sizes else "no such slice in the volume",
            expected=f"{slices} slices of {tuple(size)} pixels",
            remedy="link the detections of this volume",
        )


def _pack(rows: list[tuple[int, float, bytes, dict[str, Any]]], shifts: Ints) -> Regions:
    slices, scores, areas, boxes, bits = [], [], [], [], []
    for slice_index, negative_score, _, rle in rows:
        area = int(coco_mask.area(rle))
        if area:
            left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
            slices.append(slice_index)
            scores.append(-negative_score)
            areas.append(area)
            boxes.append((top, left, top + height, left + width))
            bits.append(np.packbits(decode_mask(rle)[top : top + height, left : left + width]))
    indices = np.array(slices, np.int64)
    placed = np.array(boxes, np.int64).reshape(-1, 4)
    return Regions(
        slice_indices=indices,
        scores=np.array(scores, np.float32),
        areas=np.array(areas, np.int64),
        boxes=placed,
        upright=placed + np.tile(shifts[indices], 2),
        bits=tuple(bits),
    )
