"""A slice to draw on: values that mean the same in HU and in grey levels, and shapes blurred as a scanner blurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.data.augment.cutouts import estimate_lung

Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Window = tuple[slice, slice]

FIELD_MM = 350.0
"""Width of a chest CT where the pixel spacing is unknown: usual fields of view are 300 to 400 mm."""
TISSUE_HU = 40.0
"""Muscle and blood: level 1."""
AIR_LEVEL = -0.14
"""Gas in a lumen: -1000 HU where the lung is at -870 HU."""
HILUM_MM = 48.0
"""Half of the width about the midline in which main, lobar and most segmental bronchi lie."""
NOISE_KEPT = 2.5
"""What lies within so many standard deviations about the local median is noise, and stays on what is drawn."""
LEAST_SPAN = 0.12
"""Least distance of lung and tissue as a share of the values' range: below it a picture shows no lung."""


@dataclass(frozen=True, eq=False)
class Discs:
    """A union of discs: a ring's outline, a tube cut lengthwise, or a chain of cysts.

    Attributes:
        centers: ``(N, 2)``, row and column in pixels.
        radii: ``(N,)``, pixels.
    """

    centers: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]

    def moved(self, shift: npt.ArrayLike = (0.0, 0.0), grow: float = 1.0, add: Any = 0.0) -> Discs:
        """Return the discs shifted by pixels, with radii times ``grow`` plus ``add``; none smaller than 0.2 pixels."""
        return Discs(self.centers + np.asarray(shift), np.maximum(self.radii * grow + add, 0.2))

    def window(self, shape: tuple[int, ...], margin: float) -> Window:
        """Return the rows and columns of a picture that hold the discs; empty slices where none does."""
        low = np.floor((self.centers - self.radii[:, None]).min(axis=0) - margin).astype(int)
        high = np.ceil((self.centers + self.radii[:, None]).max(axis=0) + margin + 1).astype(int)
        rows, columns = (
            slice(int(np.clip(a, 0, size)), int(np.clip(b, 0, size)))
            for a, b, size in zip(low, high, shape, strict=False)
        )
        return rows, columns

    def distance(self, window: Window, warp: Floats | None = None) -> Floats:
        """Return for each pixel of a window how far it is from the outline, negative inside, in pixels."""
        rows, columns = np.mgrid[window].astype(np.float32)
        if warp is not None:
            rows, columns = rows + warp[0], columns + warp[1]
        nearest = np.full(rows.shape, np.float32(1e6))
        for (row, column), radius in zip(self.centers.astype(np.float32), self.radii.astype(np.float32), strict=True):
            np.minimum(nearest, np.hypot(rows - row, columns - column) - radius, out=nearest)
        return nearest


def size_of(window: Window) -> tuple[int, int]:
    """Return the rows and columns of a window."""
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def cover(distance: Floats) -> Floats:
    """Return how much of each pixel lies inside an outline, from its distance in pixels."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def join_discs(parts: Sequence[Discs]) -> Discs:
    """Return the union of several."""
    return Discs(np.concatenate([one.centers for one in parts]), np.concatenate([one.radii for one in parts]))


@dataclass(eq=False)
class Canvas:
    """A slice in levels: 0 is the healthy lung around, 1 soft tissue, in HU and in grey levels alike.

    Attributes:
        structure: float32 ``(H, W)``, levels without noise; what is drawn changes it.
        detail: float32 ``(H, W)``, noise and the finest vessels, in levels.
        painted: float32 ``(H, W)``, 0..1: where the finest vessels are hidden.
        lung: bool ``(H, W)``.
        pixel_mm: Pixel size.
        blur_px: Standard deviation of the point spread.
        rng: Source of all randomness.
        zero, span: Level 0 and the distance from 0 to 1, in the values of the slice.
        dtype: Of the slice.
    """

    structure: Floats
    detail: Floats
    painted: Floats
    lung: Mask
    pixel_mm: float
    blur_px: float
    rng: np.random.Generator
    zero: float
    span: float
    dtype: np.dtype[Any]
    noise: float = field(default=0.0)

    @classmethod
    def of(
        cls, plane: Plane, lesions: Mask, pixel_mm: float, rng: np.random.Generator, lung: Mask | None = None
    ) -> Canvas | None:
        """Take a slice.

        Args:
            plane: ``(H, W)``, int16 in HU or uint8 grey.
            lesions: bool ``(H, W)``, annotated lesions: they lie in the lung.
            pixel_mm: Pixel size.
            rng: Source of randomness.
            lung: bool ``(H, W)`` where it is known; None: estimated.

        Returns:
            The canvas; None where the slice shows no lung to draw in.
        """
        lung = estimate_lung(plane, lesions) if lung is None else lung
        healthy = lung & ~lesions
        if np.count_nonzero(healthy) < 400:
            return None
        values = plane.astype(np.float32)
        zero, one = float(np.median(values[healthy])), _tissue_value(values, lung, plane.dtype)
        whole = 255.0 if plane.dtype == np.uint8 else 1500.0
        if one - zero < LEAST_SPAN * whole:
            return None
        levels = (values - zero) / np.float32(one - zero)
        structure = np.asarray(cv2.medianBlur(levels, 5 if pixel_mm < 1.0 else 3), np.float32)
        detail = levels - structure
        noise = float(1.48 * np.median(np.abs(detail[healthy])))
        blur_px = float(rng.uniform(0.4, 1.05)) / pixel_mm
        return cls(
            structure, detail, np.zeros_like(levels), lung, pixel_mm, min(max(blur_px, 0.35), 2.0), rng, zero,
            one - zero, plane.dtype, noise,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.structure.shape  # type: ignore[return-value]

    @cached_property
    def depth_px(self) -> Floats:
        """Distance of each pixel of the lung from its edge, in pixels; 0 outside."""
        padded = np.pad(self.lung, 1).astype(np.uint8)
        return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32)

    @cached_property
    def near_lung(self) -> Mask:
        """The lung and the edge of it, where partial volume leaves a dark rim that haze has to fill."""
        side = 2 * max(2, round(self.px(1.8))) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        return np.asarray(cv2.dilate(self.lung.astype(np.uint8), kernel) > 0)

    @cached_property
    def away_from_hilum(self) -> Mask:
        """The lung farther than :data:`HILUM_MM` from the midline of both lungs; all of it where nothing is."""
        columns = np.flatnonzero(self.lung.any(axis=0))
        middle = (columns[0] + columns[-1]) / 2
        far = np.abs(np.arange(self.shape[1]) - middle) > self.px(HILUM_MM)
        lateral: Mask = self.lung & far
        return lateral if lateral.any() else self.lung

    def px(self, mm: float) -> float:
        """Return mm in pixels."""
        return mm / self.pixel_mm

    def draw_place(self, least_mm: float = 0.0, most_mm: float = np.inf, within: Mask | None = None) -> Any:
        """Draw a pixel of the lung between two depths, ``(2,)`` row and column; None where there is none."""
        fits = (self.depth_px > self.px(least_mm)) & (self.depth_px <= self.px(most_mm))
        if within is not None:
            fits &= within
        places = np.flatnonzero(fits)
        if not len(places):
            return None
        index = int(places[self.rng.integers(len(places))])
        return np.array(divmod(index, self.shape[1]), np.float64) + self.rng.uniform(-0.5, 0.5, 2)

    def waves(self, scale_px: float, shape: tuple[int, int] | None = None) -> Floats:
        """Draw a smooth field of about unit standard deviation, whose bumps are ``scale_px`` wide."""
        height, width = shape or self.shape
        size = max(2, round(width / scale_px) + 3), max(2, round(height / scale_px) + 3)
        coarse = self.rng.standard_normal(size[::-1], dtype=np.float32)
        fine = cv2.resize(coarse, (max(width, 1), max(height, 1)), interpolation=cv2.INTER_CUBIC)
        return np.asarray(fine * np.float32(1.3), np.float32)

    def paint_discs(self, discs: Discs, level: float) -> None:
        """Draw soft tissue or air with a smooth outline, as far as the lung goes."""
        window = discs.window(self.shape, 4.0 + 3.0 * self.blur_px)
        size = size_of(window)
        if 0 in size:
            return
        warp = self.draw_warp(float(np.median(discs.radii)), size)
        share = cover(discs.distance(window, warp)) * self.lung[window]
        self.stamp(window, share, share * np.float32(level))

    def draw_warp(self, radius: float, size: tuple[int, int]) -> Floats:
        """Draw how far an outline of about this radius is bent, float32 ``(2, H, W)``, rows and columns in pixels."""
        reach = self.rng.uniform(0.0, 0.16) * radius
        scale = max(radius * self.rng.uniform(0.7, 1.6), 3.0)
        return np.stack([self.waves(scale, size), self.waves(scale, size)]) * np.float32(reach)

    def draw_way(self) -> Points:
        """Draw a direction, a unit vector of row and column."""
        angle = self.rng.uniform(0.0, 2.0 * np.pi)
        return np.array([np.sin(angle), np.cos(angle)])

    def blur(self, share: Floats) -> Floats:
        """Return what the scanner makes of it, float32."""
        return np.asarray(cv2.GaussianBlur(share, (0, 0), self.blur_px), np.float32)

    def stamp(self, window: Window, share: Floats, paint: Floats) -> None:
        """Lay opaque matter over a window, blurred as the scanner does.

        Args:
            window: Rows and columns.
            share: float32, 0..1: how much of each pixel it fills.
            paint: float32: its level times its share.
        """
        share, paint = (self.blur(one) for one in (share, paint))
        self.structure[window] += paint - share * self.structure[window]
        np.maximum(self.painted[window], share, out=self.painted[window])

    def raise_to(self, window: Window, share: Floats, level: Any) -> None:
        """Fill the air of a window up to a level, as haze does: what is denser shows through."""
        rise = np.clip(level - self.structure[window], 0.0, None) * share
        self.structure[window] += rise.astype(np.float32)

    def to_plane(self) -> Plane:
        """Return the slice in its own values and dtype; where nothing was drawn they are those that it had."""
        most = np.float32(NOISE_KEPT * self.noise)
        kept = np.clip(self.detail, -most, most)
        levels = self.structure + self.detail + self.painted * (kept - self.detail)
        ends = np.iinfo(self.dtype)
        values = levels * np.float32(self.span) + np.float32(self.zero)
        plane: Plane = np.clip(np.rint(values), ends.min, ends.max).astype(self.dtype)
        return plane


def _tissue_value(values: Floats, lung: Mask, dtype: np.dtype[Any]) -> float:
    if dtype == np.int16:
        return TISSUE_HU
    width = values.shape[1]
    side = max(3, round(0.12 * width)) | 1
    near = cv2.dilate(lung.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    around = values[near & ~lung]
    return float(np.percentile(around, 60)) if len(around) else 0.0
