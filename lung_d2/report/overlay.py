"""A slice with its detections drawn, as a radiologist would look at it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from lung_d2.categories import category_by_coco_id
from lung_d2.ct.grey import GreyLevels
from lung_d2.data.annotations import decode_mask
from lung_d2.lesions.detections import SliceDetections

_MIN_SIDE = 768  # pixels; smaller slices are enlarged, so that text and outlines do not hide them
_FILL = 0.10  # opacity of a lesion's colour; more would change how dense the lung looks
_LINE = 20  # pixels, height of a line of text
_NOTE = "research use only"
_SCALE_BAR_MM = (50, 20, 10, 5, 2, 1)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_Place = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture
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
        _draw_text(pen, (10, 8), caption, _WHITE),
        _draw_text(pen, (10, size[1] - 30), window + _NOTE, _WHITE),
    ]
    if sides:
        taken.append(_draw_text(pen, (10, size[1] / 2), sides[0], _WHITE))
        taken.append(_draw_text(pen, (size[0] - 24, size[1] / 2), sides[1], _WHITE))
    if pixel_spacing_mm is not None:
        taken.append(_draw_scale_bar(pen, size, pixel_spacing_mm[1] / factor))
    for index in range(len(detections)):
        _draw_box(pen, detections, index, factor, size, taken)
    return np.asarray(picture)


def _font(size: int = 17) -> Any:
    return ImageFont.load_default(size)


def _draw_mask(canvas: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], color: tuple[int, ...], factor: int) -> None:
    large = cv2.resize(mask.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    inside = large.astype(bool)
    canvas[inside] = np.rint(canvas[inside] * (1 - _FILL) + np.array(color) * _FILL).astype(np.uint8)
    outlines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, color, max(1, factor // 2), cv2.LINE_AA)


def _draw_box(
    pen: Any,
    detections: SliceDetections,
    index: int,
    factor: int,
    size: tuple[int, int],
    taken: list[_Place],
) -> None:
    category = category_by_coco_id(int(detections.category_ids[index]))
    x0, y0, x1, y1 = (float(value) * factor for value in detections.boxes[index])
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=category.color, width=1)
    text = f"{_SHORT_NAMES[category.name]} {detections.scores[index]:.2f}"
    width, height = pen.textlength(text, font=_font()), _LINE
    left = min(max(x0, 0), size[0] - width)
    for top in (y0 - height - 2, y1 + 2, y0 - 2 * height - 2, y1 + height + 2):
        place = (left, min(max(top, 0), size[1] - height), left + width, min(max(top, 0), size[1] - height) + height)
        if not any(_overlap(place, other) for other in taken):
            break
    taken.append(_draw_text(pen, place[:2], text, category.color))


def _overlap(one: _Place, other: _Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_text(pen: Any, place: tuple[float, float], text: str, color: tuple[int, int, int]) -> _Place:
    pen.text(place, text, fill=color, font=_font(), stroke_width=2, stroke_fill=_BLACK)
    return (*place, place[0] + pen.textlength(text, font=_font()), place[1] + _LINE)


def _draw_scale_bar(pen: Any, size: tuple[int, int], mm_per_pixel: float) -> _Place:
    length_mm = next((mm for mm in _SCALE_BAR_MM if mm / mm_per_pixel <= size[0] / 4), _SCALE_BAR_MM[-1])
    length = length_mm / mm_per_pixel
    right, bottom = size[0] - 14, size[1] - 14
    pen.line((right - length, bottom, right, bottom), fill=_BLACK, width=7)
    pen.line((right - length + 1, bottom, right - 1, bottom), fill=_WHITE, width=3)
    text = f"{length_mm} mm"
    _draw_text(pen, (right - length / 2 - pen.textlength(text, font=_font()) / 2, bottom - 26), text, _WHITE)
    return right - length, bottom - 26, right, bottom
