"""Slices with lesions drawn on them: key slices of lesions for the page, and overlays of detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct.grey import GreyLevels
from lung_d2.ct.volume import CTVolume
from lung_d2.drawing.marks import (
    NOTE,
    WHITE,
    Color,
    Mask,
    Picture,
    Place,
    draw_outline,
    draw_scale_bar,
    draw_text,
    overlap,
    sides_of,
    text_width,
    tint,
)
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LungLabels
from lung_d2.masks import decode_mask

TILE_PX = 480
_TEXT_PX = 20  # a tile is shown at some 300 pixels
_LUNG_MARGIN_MM = 25.0  # with the chest wall, for orientation
_CLOSE_UP = 2.2  # sides of the lesion's box
_LEAST_CLOSE_UP_MM = 60.0
_WORTH_IT = 0.75  # no close-up if it would show a larger share of the view
_OWN_LINE_PX, _OTHER_LINE_PX = 2, 1
_NUMBER_PX = 28
_MIN_SIDE = 768  # pixels; smaller slices are enlarged, so that text and outlines do not hide them
_FILL = 0.10  # opacity of a lesion's colour; more would change how dense the lung looks
_LINE = 20  # pixels, height of a line of text


@dataclass(frozen=True)
class _Frame:
    """The part of a slice that fills a square tile.

    Attributes:
        rows: Of the slice.
        columns: Of the slice.
        side_mm: Of the tile, which is black beyond the slice.
    """

    rows: slice
    columns: slice
    side_mm: float


class KeySlicePainter:
    """Draws the key slices of the lesions of a volume, in the lung window.

    Args:
        volume: The CT.
        lesions: All that were found.
        lungs: Where the lungs are; the pictures show their box, or without them the whole slice.
    """

    def __init__(self, volume: CTVolume, lesions: Sequence[Lesion], lungs: LungLabels | None = None) -> None:
        self._volume = volume
        self._lesions = lesions
        self._pixel_mm = (volume.spacing_mm[1], volume.spacing_mm[2])
        self._view = _frame(_lung_box(volume, lungs), _LUNG_MARGIN_MM, 0.0, self._pixel_mm, volume.hu.shape[1:])
        self._grey = GreyLevels()

    @property
    def window(self) -> str:
        """The window of the pictures, as ``C -600 W 1500``."""
        return f"C {self._grey.window_center:g} W {self._grey.window_width:g}"

    def paint(self, lesion: Lesion) -> dict[str, Picture]:
        """Draw a lesion on the slice that shows most of it.

        Returns:
            By title uint8 RGB ``(480, 480, 3)``: ``key slice`` as it is, ``key slice, outlined`` with all its lesions
            numbered and outlined, this one thicker, and the same two as ``close-up`` around the lesion, unless the
            key slice shows it as large.
        """
        index = lesion.key_slice_index
        box = _box_of(lesion.slice_mask(index, self._volume.hu.shape[1:]))
        longest_mm = max((part.stop - part.start) * mm for part, mm in zip(box, self._pixel_mm, strict=True))
        margin_mm = (_CLOSE_UP - 1) / 2 * longest_mm
        near = _frame(box, margin_mm, _LEAST_CLOSE_UP_MM, self._pixel_mm, self._volume.hu.shape[1:])
        closer = near.side_mm <= _WORTH_IT * self._view.side_mm or not _holds(self._view, box)
        frames = {"key slice": self._view} | ({"close-up": near} if closer else {})
        return {
            title + mark: self._tile(index, frame, outlined)
            for title, frame in frames.items()
            for mark, outlined in (("", None), (", outlined", lesion))
        }

    def _tile(self, index: int, frame: _Frame, outlined: Lesion | None) -> Picture:
        canvas = self._cut(self._grey.apply(self._volume.hu[index]), frame)
        tile = np.repeat(canvas[..., None], 3, axis=2)
        places = []
        if outlined is not None:
            others = [one for one in self._lesions if index in one.slice_indices and one is not outlined]
            for lesion in (*others, outlined):
                mask = self._cut(lesion.slice_mask(index, self._volume.hu.shape[1:]), frame) > 0
                draw_outline(tile, mask, lesion.category.color, _OWN_LINE_PX if lesion is outlined else _OTHER_LINE_PX)
                places.append((lesion, mask))
        picture = Image.fromarray(tile)
        pen = ImageDraw.Draw(picture)
        self._mark(pen, index, frame)
        for lesion, mask in places:
            _number(pen, lesion, mask)
        return np.asarray(picture)

    def _cut(self, plane: npt.NDArray[Any], frame: _Frame) -> npt.NDArray[np.uint8]:
        """Resample a part of a plane into a tile: masks by nearest neighbour, grey levels smoothly."""
        part = plane[frame.rows, frame.columns]
        per_mm = TILE_PX / frame.side_mm
        height, width = (
            min(max(1, round(count * mm * per_mm)), TILE_PX)
            for count, mm in zip(part.shape, self._pixel_mm, strict=True)
        )
        smooth = cv2.INTER_CUBIC if height >= part.shape[0] else cv2.INTER_AREA
        how = cv2.INTER_NEAREST if part.dtype == np.bool_ else smooth
        tile = np.zeros((TILE_PX, TILE_PX), np.uint8)
        top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
        tile[top : top + height, left : left + width] = cv2.resize(
            part.astype(np.uint8), (width, height), interpolation=how
        )
        return tile

    def _mark(self, pen: Any, index: int, frame: _Frame) -> None:
        volume = self._volume
        caption = f"slice {index} (0-{len(volume.hu) - 1}), {volume.slice_positions_mm[index]:.1f} mm"
        draw_text(pen, (8, 5), caption, WHITE, _TEXT_PX)
        draw_text(pen, (8, TILE_PX - 28), self.window, WHITE, _TEXT_PX)
        sides = sides_of(volume)
        draw_text(pen, (8, TILE_PX / 2 - 10), sides[0], WHITE, _TEXT_PX)
        right = TILE_PX - 8 - text_width(pen, sides[1], _TEXT_PX)
        draw_text(pen, (right, TILE_PX / 2 - 10), sides[1], WHITE, _TEXT_PX)
        draw_scale_bar(pen, (TILE_PX, TILE_PX), frame.side_mm / TILE_PX, _TEXT_PX)


def _lung_box(volume: CTVolume, lungs: LungLabels | None) -> tuple[slice, slice]:
    whole = slice(0, volume.hu.shape[1]), slice(0, volume.hu.shape[2])
    if lungs is None:
        return whole
    seen = lungs.labels.max(axis=0) > 0
    return _box_of(seen) if seen.any() else whole


def _box_of(mask: Mask) -> tuple[slice, slice]:
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def _frame(
    box: tuple[slice, slice],
    margin_mm: float,
    least_mm: float,
    pixel_mm: tuple[float, float],
    shape: tuple[int, ...],
) -> _Frame:
    """Return the square around a box, shifted or shrunk to fit into the slice."""
    sides = [(part.stop - part.start) * mm for part, mm in zip(box, pixel_mm, strict=True)]
    field = [count * mm for count, mm in zip(shape, pixel_mm, strict=True)]
    side_mm = min(max(max(sides) + 2 * margin_mm, least_mm), max(field))
    spans = []
    for part, mm, count in zip(box, pixel_mm, shape, strict=True):
        length = min(max(1, round(side_mm / mm)), count)
        start = min(max(round((part.start + part.stop - length) / 2), 0), count - length)
        spans.append(slice(start, start + length))
    return _Frame(spans[0], spans[1], side_mm)


def _holds(frame: _Frame, box: tuple[slice, slice]) -> bool:
    return all(
        outer.start <= inner.start and inner.stop <= outer.stop
        for outer, inner in zip((frame.rows, frame.columns), box, strict=True)
    )


def _number(pen: Any, lesion: Lesion, mask: Mask) -> None:
    """Write a lesion's number at the upper right of its visible part."""
    if mask.any():
        rows, columns = _box_of(mask)
        text = str(lesion.number)
        left = min(columns.stop + 3, TILE_PX - 4 - text_width(pen, text, _NUMBER_PX))
        draw_text(pen, (left, max(rows.start - _NUMBER_PX, 0)), text, lesion.category.color, _NUMBER_PX)


def draw_overlay(
    plane: npt.NDArray[np.generic],
    detections: SliceDetections,
    *,
    caption: str = "",
    pixel_spacing_mm: tuple[float, float] | None = None,
    sides: str = "",
    categories: Categories = CATEGORIES,
) -> npt.NDArray[np.uint8]:
    """Draw outlines, scores, a scale bar, the sides of the body and the slice's position.

    Args:
        plane: ``(H, W)``, int16 HU (shown in the lung window) or uint8 grey.
        detections: What to draw.
        caption: Where the slice lies, e.g. ``"slice 47 (0-147), -252.1 mm"``.
        pixel_spacing_mm: Row and column spacing; without it there is no scale bar.
        sides: Sides of the body at the left and right edge, e.g. ``"RL"``; empty if unknown.
        categories: What the model tells apart.

    Returns:
        uint8 RGB ``(H', W', 3)``, enlarged by a whole factor to at least 768 pixels on the longer side.
    """
    shown = GreyLevels()
    grey = plane.astype(np.uint8) if plane.dtype == np.uint8 else shown.apply(plane)
    factor = max(1, -(-_MIN_SIDE // max(grey.shape)))
    size = (grey.shape[1] * factor, grey.shape[0] * factor)
    canvas: npt.NDArray[Any] = np.repeat(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=2)
    for index in reversed(range(len(detections))):
        color = categories.by_coco_id(int(detections.category_ids[index])).color
        _draw_mask(canvas, decode_mask(detections.masks[index]), color, factor)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    window = f"C {shown.window_center:g}  W {shown.window_width:g} HU, " if plane.dtype != np.uint8 else ""
    taken = [
        draw_text(pen, (10, 8), caption, WHITE),
        draw_text(pen, (10, size[1] - 30), window + NOTE, WHITE),
    ]
    if sides:
        taken.append(draw_text(pen, (10, size[1] / 2), sides[0], WHITE))
        taken.append(draw_text(pen, (size[0] - 24, size[1] / 2), sides[1], WHITE))
    if pixel_spacing_mm is not None:
        taken.append(draw_scale_bar(pen, size, pixel_spacing_mm[1] / factor))
    for index in range(len(detections)):
        category = categories.by_coco_id(int(detections.category_ids[index]))
        _draw_box(pen, detections, index, category, factor, size, taken)
    return np.asarray(picture)


def _draw_mask(canvas: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], color: Color, factor: int) -> None:
    if not mask.any():
        return
    rows, columns = (slice(max(part.start - 1, 0), part.stop + 1) for part in _box_of(mask))  # an outline is wider
    large = mask[rows, columns].repeat(factor, axis=0).repeat(factor, axis=1)
    part = canvas[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    tint(part, large, color, _FILL)
    draw_outline(part, large, color, max(1, factor // 2))


def _draw_box(
    pen: Any,
    detections: SliceDetections,
    index: int,
    category: Category,
    factor: int,
    size: tuple[int, int],
    taken: list[Place],
) -> None:
    x0, y0, x1, y1 = (float(value) * factor for value in detections.boxes[index])
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=category.color, width=1)
    text = f"{category.short_name} {detections.scores[index]:.2f}"
    width, height = text_width(pen, text), _LINE
    left = min(max(x0, 0), size[0] - width)
    for top in (y0 - height - 2, y1 + 2, y0 - 2 * height - 2, y1 + height + 2):
        place = (left, min(max(top, 0), size[1] - height), left + width, min(max(top, 0), size[1] - height) + height)
        if not any(overlap(place, other) for other in taken):
            break
    taken.append(draw_text(pen, place[:2], text, category.color))
