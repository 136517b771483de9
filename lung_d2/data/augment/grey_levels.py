"""Grey levels drawn at random, so that one model takes HU in a window and 8-bit slices of any source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.ct.grey import GreyLevels

Plane = npt.NDArray[Any]

CENTER_HU, WIDTH_HU = (-650.0, -250.0), (900.0, 1700.0)
"""Windows: from one that just shows the lung to one that shows bone too."""
PICTURE_SHARE = 0.4
"""Share of the slices in HU that become what a public 8-bit source makes of them."""
CLIP_LIMIT, TILES = (1.0, 4.0), (4, 10)
GAMMA = (0.7, 1.45)
BLUR_MM, SHARPEN = (0.0, 0.8), 0.9
"""Standard deviation of a blur, and gain of an unsharp mask: soft and sharp kernels."""


@dataclass(frozen=True)
class AnyGrey:
    """Draw the grey levels of a slice.

    Attributes:
        share: Of the slices, 0 to 1; the others keep the model's own.
    """

    share: float

    def __call__(
        self, planes: Sequence[Plane], grey: GreyLevels, pixel_spacing_mm: Sequence[float] | None = None
    ) -> tuple[list[Plane], GreyLevels]:
        """Draw from numpy's global generator.

        Args:
            planes: ``(H, W)`` each; int16 in HU, or uint8 grey levels of a source without HU.
            grey: The model's grey levels.
            pixel_spacing_mm: Row and column spacing; None where unknown.

        Returns:
            Planes, and the grey levels that make their image.
        """
        if np.random.random() >= self.share:
            return list(planes), grey
        pixel_mm = pixel_spacing_mm[1] if pixel_spacing_mm else 350.0 / planes[0].shape[1]
        blur, gain = np.random.uniform(*BLUR_MM) / pixel_mm, np.random.uniform(0.0, SHARPEN)
        kernel, change = np.random.random(), np.random.random()
        changed = [_sharpen(one, blur if kernel < 0.3 else 0.0, gain if kernel > 0.65 else 0.0) for one in planes]
        center, width = np.random.uniform(*CENTER_HU), np.random.uniform(*WIDTH_HU)
        clip, tiles = np.random.uniform(*CLIP_LIMIT), int(np.random.randint(*TILES))
        gamma = float(np.exp(np.random.uniform(*np.log(GAMMA))))
        if planes[0].dtype == np.uint8:
            return [_bend(one, gamma) for one in changed], grey
        if change >= PICTURE_SHARE:
            return changed, replace(grey, kind="window", window_center=center, window_width=width)
        low, high = (-1024.0, np.random.uniform(300.0, 2500.0)) if change < PICTURE_SHARE / 2 else (None, None)
        pictures = [_picture(one, low, high, clip, tiles) for one in changed]
        return [_bend(one, gamma) for one in pictures], replace(grey, kind="any")


def _sharpen(plane: Plane, blur_px: float, gain: float) -> Plane:
    if blur_px < 0.15 and not gain:
        return plane
    values = plane.astype(np.float32)
    if blur_px >= 0.15:
        values = cv2.GaussianBlur(values, (0, 0), blur_px)  # type: ignore[assignment]
    if gain:
        values = values + np.float32(gain) * (values - cv2.GaussianBlur(values, (0, 0), 1.3))
    ends = np.iinfo(plane.dtype)
    bent: Plane = np.clip(np.rint(values), ends.min, ends.max).astype(plane.dtype)
    return bent


def _picture(plane: Plane, low: float | None, high: float | None, clip: float, tiles: int) -> Plane:
    """Scale a slice between two values, its own where none are given, and equalise it."""
    values = plane.astype(np.float32)
    bottom, top = values.min() if low is None else low, values.max() if high is None else high
    levels = np.rint(np.clip((values - bottom) * (255.0 / max(float(top - bottom), 1.0)), 0, 255)).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(clip, (tiles, tiles)).apply(levels), np.uint8)


def _bend(plane: Plane, gamma: float) -> Plane:
    table = np.rint(255.0 * (np.arange(256) / 255.0) ** gamma).astype(np.uint8)
    return np.asarray(cv2.LUT(plane, table), np.uint8)
