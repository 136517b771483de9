"""The coronal overview: all lesions of a volume seen from the front, as on a chest radiograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lung_d2.ct.volume import CTVolume
from lung_d2.drawing.marks import NOTE, WHITE, Picture, Place, draw_outline, draw_scale_bar, draw_text, overlap, tint
from lung_d2.drawing.marks import text_width as width_of
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LungLabels

LONGER_PX = 640
_MARGIN_PX = 30  # for the letters, which must not hide a lesion
_TINT = 0.4
_LUNG_COLOR = (190, 196, 204)
_BRIGHTEST = 150  # of the body, 0..255: the lesions' colours stand out
_NUMBER_PX = 24
_NUMBERED = 30  # the largest lesions; more numbers would hide the picture
_MIN_MM_PER_PX = 0.25
_AIR_HU = -1000.0

Plane = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class _View:
    """The projection of a volume from the front.

    Attributes:
        axis: The axis of ``[Z, Y, X]`` along which it is projected: the one nearest to front-to-back.
        steps: The nearest slice at evenly spaced positions.
        matrix: float64 ``(2, 3)``: column and row of the projection to those of the picture.
        size: Width and height of the picture in pixels.
        mm_per_pixel: Of the picture, in both directions.
    """

    axis: int
    steps: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.float64]
    size: tuple[int, int]
    mm_per_pixel: float

    def place(self, projection: Plane, smooth: bool = False) -> Plane:
        """Resample a projection into the picture: HU smoothly, labels by nearest neighbour."""
        even = projection if self.axis == 0 else projection[self.steps]
        flags, beyond = (cv2.INTER_LINEAR, _AIR_HU) if smooth else (cv2.INTER_NEAREST, 0.0)
        return cv2.warpAffine(even, self.matrix, self.size, flags=flags, borderValue=beyond)


def draw_coronal(volume: CTVolume, lesions: Sequence[Lesion], lungs: LungLabels | None = None) -> Picture:
    """Draw all lesions of a volume as seen from the front, over the body and the outline of the lungs.

    The picture has the same scale in both directions, whatever the spacing; the patient's right is on its left, as in
    radiology. Oblique and tilted slices are projected along the axis nearest to front-to-back.

    Args:
        volume: The CT.
        lesions: What was found; the largest are numbered.
        lungs: Where the lungs are, if known.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    view = _look_from_the_front(volume)
    body = view.place(volume.hu.mean(axis=view.axis, dtype=np.float32), smooth=True)
    under = np.repeat(_grey(body)[..., None], 3, axis=2)
    canvas = under.copy()
    if lungs is not None:
        draw_outline(canvas, view.place(lungs.labels.max(axis=view.axis)) > 0, _LUNG_COLOR, 1)
    ranked = sorted(lesions, key=lambda lesion: -lesion.voxel_count)
    places: list[Place | None] = []
    for lesion in ranked:
        shadow = view.place(_project(lesion, volume, view.axis)) > 0
        places += [_place_of(shadow)] if len(places) < _NUMBERED else []
        canvas[shadow] = under[shadow]  # of two that overlap, the smaller shows its own colour
        tint(canvas, shadow, lesion.category.color, _TINT)
        draw_outline(canvas, shadow, lesion.category.color, 1)
    width, height = view.size
    sheet = Image.new("RGB", (width + 2 * _MARGIN_PX, height + 3 * _MARGIN_PX))
    sheet.paste(Image.fromarray(canvas), (_MARGIN_PX, _MARGIN_PX))
    pen = ImageDraw.Draw(sheet)
    _draw_letters(pen, sheet.size)
    draw_scale_bar(pen, sheet.size, view.mm_per_pixel)
    _draw_numbers(pen, ranked, places)
    return np.asarray(sheet)


def _look_from_the_front(volume: CTVolume) -> _View:
    columns = volume.affine_lps[:3, :3] / np.linalg.norm(volume.affine_lps[:3, :3], axis=0)
    seen_along = int(np.argmax(np.abs(columns[1])))  # of x, y, z, which are the axes X, Y, Z of the array
    across, down = (index for index in range(3) if index != seen_along)
    # Picture: LPS x to the right, LPS z up.
    linear = volume.affine_lps[[0, 2]][:, [across, down]] * [[1.0], [-1.0]]
    positions, step_mm = volume.slice_positions_mm, volume.spacing_mm[0]
    even_mm = np.arange(round((positions[-1] - positions[0]) / step_mm) + 1) * step_mm + positions[0]
    steps = np.abs(even_mm[:, None] - positions).argmin(axis=1)
    shape = (len(steps), *volume.hu.shape[1:])
    corners = np.array([(u, v) for u in (-0.5, shape[2 - across] - 0.5) for v in (-0.5, shape[2 - down] - 0.5)])
    reach = corners @ linear.T
    low, extent_mm = reach.min(axis=0), np.ptp(reach, axis=0)
    mm_per_pixel = max(float(extent_mm.max()) / LONGER_PX, _MIN_MM_PER_PX)
    width, height = (max(1, round(float(mm) / mm_per_pixel)) for mm in extent_mm)
    matrix = np.column_stack([linear, -low]) / mm_per_pixel
    matrix[:, 2] -= 0.5  # from edges to centres of pixels
    return _View(2 - seen_along, steps, matrix, (width, height), mm_per_pixel)


def _project(lesion: Lesion, volume: CTVolume, axis: int) -> Plane:
    sides = [index for index in range(3) if index != axis]
    shadow = np.zeros([volume.hu.shape[index] for index in sides], np.uint8)
    shadow[tuple(lesion.box[index] for index in sides)] = lesion.mask.any(axis=axis)
    return shadow


def _grey(body: Plane) -> Picture:
    """Turn mean HU into grey levels: air is black, the densest hundredth is the brightest."""
    low, high = _AIR_HU, max(float(np.percentile(body, 99)), -900.0)
    return np.rint(np.clip((body - low) / (high - low), 0, 1) * _BRIGHTEST).astype(np.uint8)


def _draw_letters(pen: Any, size: tuple[int, int]) -> None:
    middle_x, middle_y = size[0] / 2, (size[1] - _MARGIN_PX) / 2
    for letter, left, top in (
        ("R", 9, middle_y - 10),
        ("L", size[0] - 21, middle_y - 10),
        ("H", middle_x - 6, 5),
        ("F", middle_x - 6, size[1] - 2 * _MARGIN_PX + 3),
    ):
        draw_text(pen, (left, top), letter, WHITE)
    draw_text(pen, (9, size[1] - 26), NOTE, WHITE)


def _place_of(shadow: npt.NDArray[np.bool_]) -> Place | None:
    """Return the box of a lesion on the sheet; None if it is thinner than a pixel."""
    x, y, width, height = cv2.boundingRect(shadow.view(np.uint8))
    left, top = x + _MARGIN_PX, y + _MARGIN_PX
    return (left, top, left + width, top + height) if width else None


def _draw_numbers(pen: Any, lesions: Sequence[Lesion], places: Sequence[Place | None]) -> None:
    """Write the numbers on the lesions or beside them, the largest first, unless they would overlap."""
    taken: list[Place] = []
    for lesion, place in zip(lesions, places, strict=False):
        if place is None:
            continue
        text = str(lesion.number)
        width = width_of(pen, text, _NUMBER_PX)
        left = (place[0] + place[2] - width) / 2
        if place[2] - place[0] < width:
            left = place[2] + 3  # beside a lesion that it would hide
        top = (place[1] + place[3] - _NUMBER_PX) / 2
        if not any(overlap((left, top, left + width, top + _NUMBER_PX), other) for other in taken):
            taken.append(draw_text(pen, (left, top), text, WHITE, _NUMBER_PX))
