"""Changes of position and shape, the same for an image and its masks, and crops that hold a lesion.

Rotation, scale, shift and elastic deformation stand for breathing, posture and other patients; a network that sees only
parts of slices must not see background alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.data import transforms as T

from lung_d2.errors import ConfigError

Boxes = npt.NDArray[np.floating]


class LesionCrop(T.RandomCrop):  # type: ignore[misc]
    """Detectron2's random crop, a share of which is laid around a lesion.

    A crop drawn anywhere may miss what lesions a slice has, or cut them: nnU-Net (Isensee et al., Nature Methods 18,
    2021) forces a third of its patches to hold foreground for the same reason.
    """

    def __init__(self, crop_type: str, crop_size: tuple[float, float], share: float) -> None:
        """Keep the settings.

        Args:
            crop_type: ``INPUT.CROP.TYPE``.
            crop_size: ``INPUT.CROP.SIZE``.
            share: Of the crops of slices with lesions, 0 to 1, that hold one of them, drawn evenly.
        """
        super().__init__(crop_type, crop_size)
        self.share = share

    def get_transform(self, image: npt.NDArray[Any], boxes: Boxes) -> T.Transform:
        """Draw a crop from numpy's global generator; at share 0 the same as Detectron2.

        Args:
            image: ``(H, W)`` or ``(H, W, C)``.
            boxes: Of the lesions, float ``(N, 4)``: left, top, right, bottom, in pixels; they may leave the picture.

        Returns:
            A crop that, along each axis, holds the whole of what the picture shows of the lesion, or lies within it.
        """
        size = image.shape[:2]
        shown = _clip(boxes, size)
        if not self.share or not len(shown) or np.random.random() >= self.share:
            return super().get_transform(image)
        left, top, right, bottom = shown[np.random.randint(len(shown))]
        rows, columns = self.get_crop_size(size)
        y = _draw_start((top, bottom), rows, size[0])
        x = _draw_start((left, right), columns, size[1])
        return T.CropTransform(x, y, columns, rows, size[1], size[0])


def _clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Return the parts of boxes that lie in a picture of ``size``, rows and columns."""
    height, width = size
    inside = np.clip(boxes, 0, (width, height, width, height))
    return inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)]


def _draw_start(lesion: tuple[float, float], length: int, whole: int) -> int:
    """Draw where a span of ``length`` pixels begins, of ``whole`` pixels, that holds a lesion or lies within it."""
    ends = sorted((np.ceil(lesion[1]) - length, np.floor(lesion[0])))
    low, high = np.clip(ends, 0, whole - length).astype(int)
    return int(np.random.randint(low, high + 1))


Field = npt.NDArray[np.float32]

GRID_SHARE = 1 / 6
"""Distance of the control points of the elastic field, as a share of the width: about 6 cm, a part of a lobe."""
MAX_ELASTIC = 0.08
"""Largest displacement without a fold: 0.48 of the control points' distance (Choi and Lee, Graphical Models 62, 2000,
for cubic B-splines in two dimensions)."""
_ROUNDS, _CLOSE_PX = 50, 0.01  # of the fixed-point iteration, which takes about 5 rounds
_AIR_PERCENT = 10  # of the rim of a picture, in ascending order, is air however far the body reaches


@dataclass(frozen=True)
class GeometryRanges:
    """How far the geometry may change; each change is drawn evenly from minus to plus its range, 0 is none.

    Attributes:
        rotation: Degrees about the middle of the picture.
        scale: Share by which it grows or shrinks.
        translation: Shift in each direction, as a share of the picture's width.
        elastic: Displacement of the control points in each direction, as a share of the picture's width.
    """

    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an elastic field that could fold."""
        if not 0 <= self.elastic <= MAX_ELASTIC:
            raise ConfigError(
                "INPUT.CT.AUGMENT.ELASTIC",
                found=str(self.elastic),
                expected=f"0 to {MAX_ELASTIC} of the width",
                remedy="correct it",
            )

    @property
    def any(self) -> bool:
        """Whether anything changes."""
        return self != GeometryRanges()


class RandomDeformation(T.Augmentation):
    """Rotate, scale, shift and bend at random, in one step, so that the picture is interpolated once."""

    def __init__(self, ranges: GeometryRanges) -> None:
        """Keep the ranges."""
        super().__init__()
        self.ranges = ranges

    def get_transform(self, image: npt.NDArray[Any]) -> T.Transform:
        """Draw a transform for an image ``(H, W)`` or ``(H, W, C)`` from numpy's global generator."""
        height, width = image.shape[:2]
        ranges = self.ranges
        angle, scale, shift_x, shift_y = np.random.uniform(-1.0, 1.0, 4) * (
            math.radians(ranges.rotation),
            ranges.scale,
            ranges.translation * width,
            ranges.translation * width,
        )
        affine = centered_affine((height, width), angle, 1.0 + scale, (shift_x, shift_y))
        bend = _draw_elastic((height, width), ranges.elastic * width) if ranges.elastic else None
        return DeformTransform((height, width), affine, bend, fill=_rim_level(image))


class DeformTransform(T.Transform):
    """Take each pixel of the result from ``affine`` of its place, plus ``bend`` there.

    Images are interpolated linearly, masks by the nearest pixel.
    """

    def __init__(
        self,
        size: tuple[int, int],
        affine: npt.NDArray[np.float64],
        bend: Field | None = None,
        fill: float = 0.0,
    ) -> None:
        """Keep the map from the result to the source.

        Args:
            size: Height and width of the picture, which stay.
            affine: ``(2, 3)``, from x, y of the result to x, y of the source, in pixels; (0, 0) is the middle of the
                first pixel.
            bend: float32 ``(H, W, 2)``, x and y in pixels, added to that; None: nothing.
            fill: Value of what lies outside of the picture; that of masks is 0.
        """
        super().__init__()
        self.size, self.affine, self.bend, self.fill = size, affine, bend, fill

    def apply_image(self, img: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the image ``(H, W)`` or ``(H, W, C)`` deformed."""
        return self._warp(img, cv2.INTER_LINEAR, self.fill)

    def apply_segmentation(self, segmentation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the mask ``(H, W)`` deformed, without new values."""
        stored = segmentation.astype(np.uint8) if segmentation.dtype == bool else segmentation
        return self._warp(stored, cv2.INTER_NEAREST, 0.0).astype(segmentation.dtype, copy=False)

    def apply_coords(self, coords: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return where points ``(N, 2)`` of the source come to lie: x, y, (0, 0) the corner of the first pixel.

        The bent map is inverted by fixed-point iteration, which converges as the map has no fold.
        """
        goal = np.asarray(coords, np.float64).reshape(-1, 2) - 0.5
        linear, offset = self.affine[:, :2], self.affine[:, 2]
        inverse = np.linalg.inv(linear)
        points: npt.NDArray[np.float64] = (goal - offset) @ inverse.T
        for _ in range(_ROUNDS if self.bend is not None and len(points) else 0):
            before, points = points, (goal - offset - self._bend_at(points)) @ inverse.T
            if np.abs(points - before).max() < _CLOSE_PX:
                break
        return points + 0.5

    def _warp(self, picture: npt.NDArray[Any], interpolation: int, fill: float) -> npt.NDArray[Any]:
        outside = (fill,) * 4  # one for each channel that OpenCV may fill
        if self.bend is None:
            flags = interpolation | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(picture, self.affine, self.size[::-1], flags=flags, borderValue=outside)
        return cv2.remap(picture, *self._maps, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)

    @cached_property
    def _maps(self) -> tuple[Field, Field]:
        assert self.bend is not None
        x, y = np.arange(self.size[1], dtype=np.float32), np.arange(self.size[0], dtype=np.float32)[:, None]
        (a, b, c), (d, e, f) = self.affine.astype(np.float32)
        return self.bend[..., 0] + (a * x + b * y + c), self.bend[..., 1] + (d * x + e * y + f)

    def _bend_at(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        assert self.bend is not None
        x, y = points.astype(np.float32).T[:, None]  # one row of points
        found = cv2.remap(self.bend, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found[0], np.float64)


def _rim_level(image: npt.NDArray[Any]) -> float:
    """Return the grey level of the air around the body, with which the picture is continued beyond its edge."""
    rim = np.concatenate([image[0].ravel(), image[-1].ravel(), image[:, 0].ravel(), image[:, -1].ravel()])
    return float(np.percentile(rim, _AIR_PERCENT))


def centered_affine(
    size: tuple[int, int], angle: float, scale: float, shift: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return the map from the result to the source of a turn and growth about the middle, then a shift.

    Args:
        size: Height and width.
        angle: Radians, clockwise as the picture is seen.
        scale: Above 1 the patient grows.
        shift: x and y in pixels, to the right and down.

    Returns:
        float64 ``(2, 3)``.
    """
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    linear = np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([linear, middle - linear @ (middle + shift)])


def _draw_elastic(size: tuple[int, int], reach: float) -> Field:
    """Draw a field of cubic B-splines (Rueckert et al., IEEE TMI 18, 1999); no value exceeds ``reach``, in pixels."""
    spacing = size[1] * GRID_SHARE
    rows, columns = (_spline_weights(length, spacing) for length in size)
    points = np.random.uniform(-reach, reach, (2, rows.shape[1], columns.shape[1])).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(rows @ points @ columns.T, 0, -1))


def _spline_weights(length: int, spacing: float) -> Field:
    """Return the weights of the control points for each pixel of an axis, float32 ``(length, points)``, of sum 1."""
    place = np.arange(length) / spacing
    first = place.astype(np.int64)
    t = place - first
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((length, int(first[-1]) + 4), np.float32)
    for number, part in enumerate(parts):
        weights[np.arange(length), first + number] = part / 6
    return weights
