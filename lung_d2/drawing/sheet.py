"""A sheet of pictures: what the model is given, with the lesions it should find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from lung_d2.categories import Category

Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]

TILE_PX = 320
_TEXT_PX = 16
_GAP_PX = 6
_HATCH_PX = 8  # distance of the lines that mark what is undecided, in pixels of the tile
_UNDECIDED = (190, 190, 190)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as the model is given it.

    Attributes:
        image: uint8 ``(H, W)``, grey levels.
        lesions: Category, bool ``(H, W)`` mask and box (x0, y0, x1, y1) in pixels of each lesion.
        undecided: bool ``(H, W)``, or None where all is decided.
        caption: A few words.
    """

    image: Picture
    lesions: Sequence[tuple[Category, Mask, Sequence[float]]]
    caption: str = ""
    undecided: Mask | None = None


def draw_sheet(rows: Sequence[Sequence[Sample]], title: str, tile_px: int = TILE_PX) -> Picture:
    """Draw samples in rows under a title and a legend of the categories.

    Args:
        rows: The samples; rows may differ in length.
        title: One line.
        tile_px: Longer side of a sample's picture.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    columns = max(len(row) for row in rows)
    pitch_x, pitch_y = tile_px + _GAP_PX, tile_px + _TEXT_PX + 2 * _GAP_PX
    head = 2 * (_TEXT_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (columns * pitch_x + _GAP_PX, head + len(rows) * pitch_y), _BLACK)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP_PX, _GAP_PX), title, fill=_WHITE, font=_font())
    _draw_legend(pen, rows)
    for top, row in enumerate(rows):
        for left, sample in enumerate(row):
            place = (_GAP_PX + left * pitch_x, head + top * pitch_y)
            sheet.paste(Image.fromarray(draw_sample(sample, tile_px)), place)
            pen.text((place[0], place[1] + tile_px + 2), sample.caption, fill=_WHITE, font=_font())
    return np.asarray(sheet)


def draw_sample(sample: Sample, tile_px: int = TILE_PX) -> Picture:
    """Draw one sample: outlines and boxes of its lesions, undecided regions hatched.

    Returns:
        uint8 RGB; its longer side has ``tile_px`` pixels.
    """
    height, width = sample.image.shape
    factor = tile_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    smooth = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    canvas: npt.NDArray[Any] = np.repeat(cv2.resize(sample.image, size, interpolation=smooth)[..., None], 3, axis=2)
    if sample.undecided is not None:
        _hatch(canvas, _scale(sample.undecided, size))
    for category, mask, box in sample.lesions:
        outlines, _ = cv2.findContours(_scale(mask, size), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, category.color, 1, cv2.LINE_AA)
        x0, y0, x1, y1 = (round(float(value) * factor) for value in box)
        cv2.rectangle(canvas, (x0 - 1, y0 - 1), (x1, y1), category.color, 1)
    return canvas.astype(np.uint8)


def _scale(mask: Mask, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _hatch(canvas: npt.NDArray[Any], region: npt.NDArray[np.uint8]) -> None:
    rows, columns = np.indices(region.shape)
    canvas[(region > 0) & ((rows + columns) % _HATCH_PX == 0)] = _UNDECIDED


def _draw_legend(pen: Any, rows: Sequence[Sequence[Sample]]) -> None:
    samples = [sample for row in rows for sample in row]
    entries = {category.name: category.color for sample in samples for category, _, _ in sample.lesions}
    if any(sample.undecided is not None for sample in samples):
        entries["undecided (hatched)"] = _UNDECIDED
    left = float(_GAP_PX)
    for name, color in sorted(entries.items()):
        text = name.replace("_", " ")
        pen.text((left, 2 * _GAP_PX + _TEXT_PX), text, fill=color, font=_font())
        left += pen.textlength(text, font=_font()) + 4 * _GAP_PX


def _font() -> Any:
    return ImageFont.load_default(_TEXT_PX - 2)
