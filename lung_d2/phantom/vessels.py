"""The vessels of a real lung, along which dilated bronchi are laid: an artery runs beside every bronchus."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from lung_d2.phantom.shapes import unit

VESSEL_HU = -550.0
"""Voxels above this are vessel: halfway between parenchyma and blood that fills most of a voxel."""
STEP_MM = 2.0
LOOK_MM = 2.5
"""Vessel voxels this close to the next point of a path belong to it."""
FEW = 3
LEAST_COSINE = 0.6
"""A path ends where it would turn by more than about 53 degrees in one step."""
SEED_MM = 5.0
ELONGATION = 4.0
"""Around a start, the variance along the vessel is at least this many times that across it."""


@dataclass(frozen=True)
class VesselPath:
    """A stretch of a vessel, from the middle of the chest outwards.

    Attributes:
        points: float64 ``(N, 3)``, ``(x, y, z)``, mm.
        radius_mm: Radius of the vessel.
    """

    points: np.ndarray = field(repr=False)
    radius_mm: float


class Vessels:
    """The voxels of vessels, through which a vessel can be traced.

    Args:
        points: ``(N, 3)``, ``(x, y, z)`` of the voxels, mm.
        depth_mm: ``(N,)``, depth of each under the surface of its vessel, mm.
        middle: ``(x, y, z)`` of the middle of the chest, mm: paths lead away from it.
    """

    def __init__(self, points: np.ndarray, depth_mm: np.ndarray, middle: np.ndarray) -> None:
        self.points = np.asarray(points, np.float64).reshape(-1, 3)
        self._depth = np.asarray(depth_mm, np.float64)
        self._middle = np.asarray(middle, np.float64)
        self._tree = KDTree(self.points)

    def trace(self, start: np.ndarray, length_mm: float) -> VesselPath | None:
        """Follow the vessel at a point to both sides.

        Args:
            start: ``(x, y, z)``, mm.
            length_mm: Length at which to stop.

        Returns:
            Its smoothed path, or None where it is shorter than half that length.
        """
        near = self.points[self._tree.query_ball_point(start, SEED_MM)]
        if len(near) < 4 * FEW:
            return None
        values, vectors = np.linalg.eigh(np.cov(near.T))
        if values[2] < ELONGATION * values[1]:
            return None
        half = length_mm / 2
        back = self._follow(np.asarray(start, float), -vectors[:, 2], half)
        path = np.array([*back[::-1], start, *self._follow(np.asarray(start, float), vectors[:, 2], half)])
        if (len(path) - 1) * STEP_MM < half:
            return None
        if np.linalg.norm(path[0] - self._middle) > np.linalg.norm(path[-1] - self._middle):
            path = path[::-1]
        smooth = ndimage.gaussian_filter1d(path, 1.2, axis=0, mode="nearest")
        return VesselPath(smooth, self._radius(smooth))

    def _follow(self, point: np.ndarray, direction: np.ndarray, length_mm: float) -> list[np.ndarray]:
        path: list[np.ndarray] = []
        for _ in range(int(length_mm / STEP_MM)):
            near = self._tree.query_ball_point(point + STEP_MM * direction, LOOK_MM)
            if len(near) < FEW:
                break
            way = unit(self.points[near].mean(axis=0) - point)
            if way @ direction < LEAST_COSINE:
                break
            direction = unit(direction + way)
            point = point + STEP_MM * way
            path.append(point)
        return path

    def _radius(self, path: np.ndarray) -> float:
        """Return the median over the path of the largest depth near each point."""
        found = [self._depth[near].max() for near in self._tree.query_ball_point(path, LOOK_MM) if near]
        return float(np.median(found)) if found else 0.0
