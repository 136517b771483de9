"""Smooth random fields that are fixed in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lung_d2.phantom.shapes import Plane

_LATTICE = 32


@dataclass(frozen=True)
class NoiseField:
    """A periodic random lattice, read as a smooth function of the position in mm.

    It belongs to the patient, not to the voxels: another spacing samples the same function.

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
