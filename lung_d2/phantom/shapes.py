"""Signed distances of simple shapes on one axial plane, in mm, negative inside; soft coverage; smooth random fields."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Vector = tuple[float, float, float]
_LATTICE = 32


@dataclass(frozen=True)
class Plane:
    """An axial plane of points of the patient.

    Attributes:
        x: float32 ``(1, W)``, mm, to the patient's left.
        y: float32 ``(H, 1)``, mm, to the patient's back.
        z: Height of the plane, mm, to the patient's head.
        pixel_mm: Distance between neighbouring points, mm.
    """

    x: np.ndarray
    y: np.ndarray
    z: float
    pixel_mm: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.shape[0], self.x.shape[1]

    def crop(self, rows: slice, columns: slice) -> Plane:
        """Return the part of the plane inside these rows and columns."""
        return Plane(self.x[:, columns], self.y[rows], self.z, self.pixel_mm)

    def window(self, center: tuple[float, float], reach_mm: float) -> tuple[slice, slice]:
        """Return the rows and columns within ``reach_mm`` of a point ``(x, y)`` in mm; may be empty."""
        return _span(self.y[:, 0], center[1], reach_mm), _span(self.x[0], center[0], reach_mm)


def _span(axis: np.ndarray, center: float, reach: float) -> slice:
    inside = np.flatnonzero(np.abs(axis - center) <= reach)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def unit(vector: np.ndarray) -> np.ndarray:
    """Return a vector of length 1 in the same direction."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def draw_perpendicular(direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a unit vector ``(3,)`` perpendicular to a unit vector."""
    vector = rng.normal(0, 1, 3)
    return unit(vector - (vector @ direction) * direction)


def smooth_step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Rise from 0 at ``low`` to 1 at ``high`` along a cubic; ``low > high`` makes it fall."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def coverage(distance: np.ndarray, softness_mm: float) -> np.ndarray:
    """Return the share of a pixel that a shape covers, 0..1, from its signed distance in mm."""
    return np.clip(0.5 - distance * (1.0 / softness_mm), 0.0, 1.0)


def smooth_min(a: np.ndarray, b: np.ndarray, radius_mm: float) -> np.ndarray:
    """Unite two shapes with a fillet of about ``radius_mm`` (polynomial smooth minimum)."""
    h = np.maximum(radius_mm - np.abs(a - b), 0.0)
    return np.minimum(a, b) - h * h * (0.25 / radius_mm)


def smooth_max(a: np.ndarray, b: np.ndarray, radius_mm: float) -> np.ndarray:
    """Intersect two shapes with edges rounded by about ``radius_mm``."""
    return -smooth_min(-a, -b, radius_mm)


def capsule(plane: Plane, start: Vector, end: Vector, radius_start: float, radius_end: float) -> np.ndarray:
    """Return the distance to a round rod between two points, its radius changing linearly.

    Args:
        plane: Where to measure.
        start: ``(x, y, z)`` in mm.
        end: ``(x, y, z)`` in mm.
        radius_start: Radius at ``start``, mm.
        radius_end: Radius at ``end``, mm.

    Returns:
        float32 ``(H, W)``, mm.
    """
    axis = np.subtract(end, start).astype(np.float32)
    squared = float(axis @ axis) or 1.0
    px, py, pz = plane.x - np.float32(start[0]), plane.y - np.float32(start[1]), np.float32(plane.z - start[2])
    t = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / np.float32(squared), 0.0, 1.0)
    dx, dy, dz = px - t * axis[0], py - t * axis[1], pz - t * axis[2]
    return np.sqrt(dx * dx + dy * dy + dz * dz) - (radius_start + t * np.float32(radius_end - radius_start))


def ellipsoid(plane: Plane, center: Vector, matrix: np.ndarray) -> np.ndarray:
    """Return the normalised radius of an ellipsoid: 1 on its surface, 0 in its centre.

    Args:
        plane: Where to measure.
        center: ``(x, y, z)`` in mm.
        matrix: ``(3, 3)``; rows are the unit axes divided by the semi-axes in mm.

    Returns:
        float32 ``(H, W)``.
    """
    m = matrix.astype(np.float32)
    px, py, pz = plane.x - np.float32(center[0]), plane.y - np.float32(center[1]), np.float32(plane.z - center[2])
    total = np.zeros(plane.shape, np.float32)
    for row in m:
        total += (row[0] * px + row[1] * py + row[2] * pz) ** 2
    return np.sqrt(total)


def ellipsoid_matrix(semi_axes: Vector, axis: Vector = (1.0, 0.0, 0.0)) -> np.ndarray:
    """Return the matrix for :func:`ellipsoid`; the first semi-axis (mm) points along ``axis``."""
    first = np.asarray(axis, float) / np.linalg.norm(axis)
    helper = np.array([0.0, 0.0, 1.0]) if abs(first[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    second = np.cross(helper, first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)]) / np.asarray(semi_axes, float)[:, None]


def paint(image: np.ndarray, share: np.ndarray, hu: np.ndarray | float) -> None:
    """Replace ``share`` (0..1) of each pixel of ``image`` by ``hu``, in place."""
    image += share * (hu - image)


@dataclass(frozen=True)
class NoiseField:
    """A periodic random lattice, read as a smooth function of the position in mm.

    It is fixed in the patient, not in the voxels: another spacing samples the same function.

    Attributes:
        values: float32 ``(32, 32, 32)``, mean 0 and about unit variance once interpolated.
    """

    values: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> NoiseField:
        """Draw a lattice of independent normal values."""
        return cls((rng.standard_normal((_LATTICE,) * 3) * 1.5).astype(np.float32))

    def on_plane(self, plane: Plane, scale_mm: float, shift: float = 0.0) -> np.ndarray:
        """Sample the field on a plane.

        Args:
            plane: Where to sample.
            scale_mm: Distance of the lattice points, mm: about the size of the grains.
            shift: Offset in lattice units, so that one lattice serves as several fields.

        Returns:
            float32 ``(H, W)``.
        """
        z = plane.z / scale_mm + shift * 7.3
        low = int(np.floor(z))
        weight = z - low
        weight = weight * weight * (3.0 - 2.0 * weight)
        layer = (1 - weight) * self.values[low % _LATTICE] + weight * self.values[(low + 1) % _LATTICE]
        padded = np.pad(layer.astype(np.float32), 3, mode="wrap")
        columns = np.mod(plane.x[0] / scale_mm + shift * 3.1, _LATTICE) + 3
        rows = np.mod(plane.y[:, 0] / scale_mm + shift * 5.7, _LATTICE) + 3
        map_x = np.broadcast_to(columns.astype(np.float32), plane.shape)
        map_y = np.broadcast_to(rows.astype(np.float32)[:, None], plane.shape)
        return cv2.remap(padded, np.ascontiguousarray(map_x), np.ascontiguousarray(map_y), cv2.INTER_CUBIC)
