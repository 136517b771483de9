"""Thousands of short round cones drawn onto a plane at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.shapes import Plane

_BLOCKS = (3, 6, 12, 24, 48, 96)
_BATCH = 2_000_000


@dataclass(frozen=True)
class Tubes:
    """Pieces of tubes.

    Attributes:
        start: float32 ``(N, 3)``, ``(x, y, z)`` in mm.
        end: float32 ``(N, 3)``, mm.
        radius_start: float32 ``(N,)``, mm.
        radius_end: float32 ``(N,)``, mm.
    """

    start: np.ndarray
    end: np.ndarray
    radius_start: np.ndarray
    radius_end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, chosen: np.ndarray) -> Tubes:
        """Return the pieces that an index or boolean array chooses."""
        return Tubes(self.start[chosen], self.end[chosen], self.radius_start[chosen], self.radius_end[chosen])

    def resized(self, scale: float = 1.0, add_mm: float = 0.0, least_mm: float = 0.05) -> Tubes:
        """Return the same axes with other radii."""
        first = np.maximum(self.radius_start * scale + add_mm, least_mm).astype(np.float32)
        last = np.maximum(self.radius_end * scale + add_mm, least_mm).astype(np.float32)
        return Tubes(self.start, self.end, first, last)


def join_tubes(parts: list[Tubes]) -> Tubes:
    """Put several sets of pieces into one."""
    if not parts:
        empty, none = np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
        return Tubes(empty, empty, none, none)
    names = ("start", "end", "radius_start", "radius_end")
    return Tubes(*(np.concatenate([getattr(part, name) for part in parts]).astype(np.float32) for name in names))


def tube_distance(tubes: Tubes, plane: Plane, reach_mm: float = 4.0) -> np.ndarray:
    """Return the distance to the nearest surface, float32 ``(H, W)``, mm, exact up to ``reach_mm`` outside."""
    out = np.full(plane.shape, np.float32(reach_mm), np.float32)
    flat = out.reshape(-1)
    for index, distance, _ in _pieces(tubes, plane, reach_mm):
        np.minimum.at(flat, index, distance)
    return out


def tube_coverage(tubes: Tubes, plane: Plane) -> np.ndarray:
    """Return the share of each pixel inside the tubes, float32 ``(H, W)``, 0..1.

    A tube thinner than a pixel covers it only in part: the share is scaled by width over pixel.
    """
    out = np.zeros(plane.shape, np.float32)
    flat = out.reshape(-1)
    soft = np.float32(plane.pixel_mm)
    for index, distance, radius in _pieces(tubes, plane, 0.6 * plane.pixel_mm):
        thin = np.minimum(1.0, 2.0 * np.maximum(radius, 0.0) / soft)
        np.maximum.at(flat, index, np.clip(0.5 - distance / soft, 0.0, 1.0) * thin)
    return out


def _pieces(tubes: Tubes, plane: Plane, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield flat pixel indices, distances and local radii, in batches of pieces of like size."""
    if not len(tubes):
        return
    largest = np.maximum(tubes.radius_start, tubes.radius_end) + reach
    low = np.minimum(tubes.start[:, 2], tubes.end[:, 2]) - largest
    high = np.maximum(tubes.start[:, 2], tubes.end[:, 2]) + largest
    near = np.flatnonzero((low <= plane.z) & (high >= plane.z))
    if not near.size:
        return
    tubes, largest = tubes.take(near), largest[near]
    half = np.abs(tubes.end - tubes.start)[:, :2].max(axis=1) / 2 + largest
    half_pixels = np.ceil(half / plane.pixel_mm).astype(int) + 1
    previous = 0
    for block in _BLOCKS:
        chosen = np.flatnonzero((half_pixels > previous) & (half_pixels <= block))
        previous = block
        step = max(1, _BATCH // (2 * block + 1) ** 2)
        for first in range(0, chosen.size, step):
            yield _block(tubes.take(chosen[first : first + step]), plane, block, reach)


def _block(tubes: Tubes, plane: Plane, block: int, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = plane.shape
    x0, y0 = float(plane.x[0, 0]), float(plane.y[0, 0])
    step_x = float(plane.x[0, 1] - x0)
    step_y = float(plane.y[1, 0] - y0)
    middle = (tubes.start + tubes.end) / 2
    offsets = np.arange(-block, block + 1)
    columns = np.rint((middle[:, 0] - x0) / step_x).astype(int)[:, None] + offsets
    rows = np.rint((middle[:, 1] - y0) / step_y).astype(int)[:, None] + offsets
    px = ((x0 + columns * step_x).astype(np.float32) - tubes.start[:, :1])[:, None, :]
    py = ((y0 + rows * step_y).astype(np.float32) - tubes.start[:, 1:2])[:, :, None]
    pz = (np.float32(plane.z) - tubes.start[:, 2])[:, None, None]
    axis = (tubes.end - tubes.start)[:, :, None, None]
    squared = np.maximum((axis * axis).sum(axis=1), 1e-6)
    t = np.clip((px * axis[:, 0] + py * axis[:, 1] + pz * axis[:, 2]) / squared, 0.0, 1.0)
    dx, dy, dz = px - t * axis[:, 0], py - t * axis[:, 1], pz - t * axis[:, 2]
    first, last = tubes.radius_start[:, None, None], tubes.radius_end[:, None, None]
    radius = first + t * (last - first)
    distance = np.sqrt(dx * dx + dy * dy + dz * dz) - radius
    valid = ((columns >= 0) & (columns < width))[:, None, :] & ((rows >= 0) & (rows < height))[:, :, None]
    valid &= distance < reach
    index = (rows[:, :, None] * width + columns[:, None, :])[valid]
    return index, distance[valid], radius[valid]
