"""The slices of a volume in space: the tissue each stands for, and how it is shifted against the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lung_d2.ct.geometry import normal_of
from lung_d2.ct.volume import CTVolume

Floats = npt.NDArray[np.float64]


def slice_bounds_mm(volume: CTVolume) -> Floats:
    """Return where the tissue of each slice begins and ends along the normal.

    A slice stands for half the gap to each neighbour, whatever the gaps; the first and the last slice reach out as far
    as they reach in; a single slice stands for its spacing.

    Returns:
        float64 ``[Z + 1]``, mm: slice k lies between bounds k and k + 1.
    """
    positions = volume.slice_positions_mm
    half = np.diff(positions) / 2 if len(positions) > 1 else np.array([volume.spacing_mm[0] / 2])
    middles = positions[:-1] + half[: len(positions) - 1]
    return np.concatenate([positions[:1] - half[0], middles, positions[-1:] + half[-1]])


def slice_thickness_mm(volume: CTVolume) -> Floats:
    """Return how thick a layer of tissue each slice stands for, float64 ``[Z]``, mm."""
    return np.diff(slice_bounds_mm(volume))


def voxel_volumes_ml(volume: CTVolume) -> Floats:
    """Return the volume of a voxel on each slice, float64 ``[Z]``, ml."""
    return slice_thickness_mm(volume) * volume.spacing_mm[1] * volume.spacing_mm[2] / 1000.0


def slice_origins_lps(volume: CTVolume) -> Floats:
    """Return the centre of the first voxel of each slice, float64 ``[Z, 3]``, LPS mm, its position respected."""
    affine = volume.affine_lps
    step_mm = abs(float(affine[:3, 2] @ normal_of(affine)))
    steps = (volume.slice_positions_mm - volume.slice_positions_mm[0]) / step_mm
    return affine[:3, 3] + steps[:, None] * affine[:3, 2]


def slice_shifts(volume: CTVolume) -> npt.NDArray[np.int64]:
    """Return by how many pixels each slice is shifted in its plane against the first.

    With a tilted gantry the same pixel of two slices does not lie on one normal. What lies on it is found where this
    shift is added to the row and the column of both.

    Returns:
        int64 ``[Z, 2]``: rows, columns, rounded.
    """
    affine = volume.affine_lps
    frame = np.column_stack([affine[:3, 1], affine[:3, 0], normal_of(affine)])
    origins = slice_origins_lps(volume)
    moved = np.linalg.solve(frame, (origins - origins[0]).T).T
    return np.rint(moved[:, :2]).astype(np.int64)
