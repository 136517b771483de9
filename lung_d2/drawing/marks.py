"""Marks on pictures that all of them share: text, scale bars, outlines, the sides of the body."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from lung_d2.ct.volume import CTVolume

Color = tuple[int, int, int]
Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]
Place = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the picture."""

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NOTE = "research use only"
TEXT_PX = 17
_BAR_MM = (50, 20, 10, 5, 2, 1)
_BAR_SHARE = 0.25  # of the picture's width, at most
_BAR_EDGE_PX = 14


def draw_text(pen: Any, place: tuple[float, float], text: str, color: Color, size_px: int = TEXT_PX) -> Place:
    """Write a line of text, rimmed in black.

    Args:
        pen: Of PIL.
        place: Its left and top, pixels.
        text: What to write.
        color: RGB.
        size_px: Height of the letters.

    Returns:
        The place it takes.
    """
    pen.text(place, text, fill=color, font=_font(size_px), stroke_width=2, stroke_fill=BLACK)
    return (*place, place[0] + text_width(pen, text, size_px), place[1] + size_px + 3)


def text_width(pen: Any, text: str, size_px: int = TEXT_PX) -> float:
    """Return the width of a line of text in pixels."""
    return float(pen.textlength(text, font=_font(size_px)))


def draw_scale_bar(pen: Any, size: tuple[int, int], mm_per_pixel: float, size_px: int = TEXT_PX) -> Place:
    """Draw the longest bar of 50, 20, 10, 5, 2 or 1 mm that takes a quarter of the width, at the lower right.

    Args:
        pen: Of PIL.
        size: Width and height of the picture.
        mm_per_pixel: Of the picture, along its width.
        size_px: Height of the letters.

    Returns:
        The place it takes, with its text.
    """
    length_mm = next((mm for mm in _BAR_MM if mm / mm_per_pixel <= size[0] * _BAR_SHARE), _BAR_MM[-1])
    length = length_mm / mm_per_pixel
    right, bottom = size[0] - _BAR_EDGE_PX, size[1] - _BAR_EDGE_PX
    pen.line((right - length, bottom, right, bottom), fill=BLACK, width=7)
    pen.line((right - length + 1, bottom, right - 1, bottom), fill=WHITE, width=3)
    text, top = f"{length_mm} mm", bottom - size_px - 9
    left = right - length / 2 - text_width(pen, text, size_px) / 2
    left = min(left, size[0] - 2 - text_width(pen, text, size_px))
    draw_text(pen, (left, top), text, WHITE, size_px)
    return min(left, right - length), top, right, bottom


def draw_outline(canvas: Picture, mask: Mask, color: Color, width_px: int) -> None:
    """Draw the outline of a mask ``(H, W)``, holes too, into a picture of its size."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, color, width_px, cv2.LINE_AA)


def tint(canvas: Picture, mask: Mask, color: Color, opacity: float) -> None:
    """Lay a colour over what is inside a mask ``(H, W)`` of a picture of its size; opacity is 0..1."""
    canvas[mask] = np.rint(canvas[mask] * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)


def overlap(one: Place, other: Place) -> bool:
    """Return whether two rectangles overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def sides_of(volume: CTVolume) -> str:
    """Return the sides of the body at the left and right edge of a slice as two letters, as ``RL``.

    R and L are the patient's right and left, A front, P back, H head, F feet; of an oblique slice the nearest.
    """
    direction = volume.affine_lps[:3, 0]  # LPS: x to the left, y to the back, z to the head
    axis = int(np.argmax(np.abs(direction)))
    pair = ("RL", "AP", "FH")[axis]
    return pair if direction[axis] > 0 else pair[::-1]


@functools.lru_cache(maxsize=8)
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)
