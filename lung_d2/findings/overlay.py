"""A slice with its detections drawn, as a radiologist would look at it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lung_d2.categories import category_by_coco_id
from lung_d2.ct.grey import GreyLevels
from lung_d2.drawing.marks import (
    NOTE,
    WHITE,
    Color,
    Place,
    draw_outline,
    draw_scale_bar,
    draw_text,
    overlap,
    text_width,
    tint,
)
from lung_d2.lesions.detections import SliceDetections
from lung_d2.masks import decode_mask

_MIN_SIDE = 768  # pixels; smaller slices are enlarged, so that text and outlines do not hide them
_FILL = 0.10  # opacity of a lesion's colour; more would change how dense the lung looks
_LINE = 20  # pixels, height of a line of text
_SHORT_NAMES = {"ground_glass_opacity": "GGO", "bronchiectasis": "Bronchiectasis"}


def draw_overlay(
    plane: npt.NDArray[np.generic],
    detections: SliceDetections,
    *,
    caption: str = "",
    pixel_spacing_mm: tuple[float, float] | None = None,
    sides: str = "",
) -> npt.NDArray[np.uint8]:
    """Draw outlines, scores, a scale bar, the sides of the body and the slice's position.

    Args:
        plane: ``(H, W)``, int16 HU (shown in the lung window) or uint8 grey.
        detections: What to draw.
        caption: Where the slice lies, e.g. ``"slice 47 (0-147), -252.1 mm"``.
        pixel_spacing_mm: Row and column spacing; without it there is no scale bar.
        sides: Sides of the body at the left and right edge, e.g. ``"RL"``; empty where unknown.

    Returns:
        uint8 RGB ``(H', W', 3)``, enlarged by a whole factor to at least 768 pixels on the longer side.
    """
    shown = GreyLevels()
    grey = plane.astype(np.uint8) if plane.dtype == np.uint8 else shown.apply(plane)
    factor = max(1, -(-_MIN_SIDE // max(grey.shape)))
    size = (grey.shape[1] * factor, grey.shape[0] * factor)
    canvas: npt.NDArray[Any] = np.repeat(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=2)
    for index in reversed(range(len(detections))):
        color = category_by_coco_id(int(detections.category_ids[index])).color
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
        _draw_box(pen, detections, index, factor, size, taken)
    return np.asarray(picture)


def _draw_mask(canvas: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], color: Color, factor: int) -> None:
    large = cv2.resize(mask.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    tint(canvas, large.astype(bool), color, _FILL)
    draw_outline(canvas, large.astype(bool), color, max(1, factor // 2))


def _draw_box(
    pen: Any,
    detections: SliceDetections,
    index: int,
    factor: int,
    size: tuple[int, int],
    taken: list[Place],
) -> None:
    category = category_by_coco_id(int(detections.category_ids[index]))
    x0, y0, x1, y1 = (float(value) * factor for value in detections.boxes[index])
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=category.color, width=1)
    text = f"{_SHORT_NAMES[category.name]} {detections.scores[index]:.2f}"
    width, height = text_width(pen, text), _LINE
    left = min(max(x0, 0), size[0] - width)
    for top in (y0 - height - 2, y1 + 2, y0 - 2 * height - 2, y1 + height + 2):
        place = (left, min(max(top, 0), size[1] - height), left + width, min(max(top, 0), size[1] - height) + height)
        if not any(overlap(place, other) for other in taken):
            break
    taken.append(draw_text(pen, place[:2], text, category.color))
