"""What an affine says: spacing, slice normal, positions along it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.ct.planes import MAX_SPACING_MM
from lung_d2.errors import GeometryError

Affine = npt.NDArray[np.float64]


def normal_of(affine_lps: Affine) -> npt.NDArray[np.float64]:
    """Return the slice normal, row x column direction, a unit vector in LPS."""
    normal = np.cross(affine_lps[:3, 0], affine_lps[:3, 1])
    unit: npt.NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def spacing_of(affine_lps: Affine) -> tuple[float, float, float]:
    """Return the spacing (z, y, x) in mm; z is along the slice normal, whatever the shear."""
    x, y = np.linalg.norm(affine_lps[:3, :2], axis=0)
    return float(abs(affine_lps[:3, 2] @ normal_of(affine_lps))), float(y), float(x)


def positions_along_normal(affine_lps: Affine, count: int) -> npt.NDArray[np.float64]:
    """Return the positions of ``count`` slices along the normal in mm, float64 ``[Z]``."""
    normal = normal_of(affine_lps)
    positions: npt.NDArray[np.float64] = affine_lps[:3, 3] @ normal + np.arange(count) * (affine_lps[:3, 2] @ normal)
    return positions


def describe_grid(shape: tuple[int, ...], affine_lps: Affine) -> str:
    """Say size, spacing, first voxel and direction of the axes in a few words."""
    z, y, x = spacing_of(affine_lps)
    origin = ", ".join(f"{value:.1f}" for value in affine_lps[:3, 3])
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    axes = " ".join("(" + " ".join(f"{value:.2f}" for value in axis) + ")" for axis in directions.T)
    size = " x ".join(str(size) for size in shape)
    return f"{size} voxels of {z:.3g} x {y:.3g} x {x:.3g} mm from ({origin}) along {axes}"


def check_affine(affine_lps: Affine, where: str | Path) -> None:
    """Refuse an affine that is singular, not finite, or skews rows against columns.

    Raises:
        GeometryError: It is one of these, or a spacing is out of bounds.
    """
    linear = affine_lps[:3, :3]
    if not np.isfinite(affine_lps).all():
        raise GeometryError(where, found="NaN or infinity in its affine", remedy="export the file again")
    lengths = np.linalg.norm(linear, axis=0)
    if not ((lengths > 1e-4) & (lengths <= MAX_SPACING_MM)).all():
        raise GeometryError(
            where,
            found="spacing " + " x ".join(f"{length:g}" for length in lengths) + " mm",
            expected=f"above 0, up to {MAX_SPACING_MM:g} mm",
            remedy="export the file again with its true spacing",
        )
    unit = linear / lengths
    if abs(np.linalg.det(unit)) < 0.1 or abs(unit[:, 0] @ unit[:, 1]) > 1e-3:
        raise GeometryError(
            where,
            found="axes that are skewed",
            expected="rows perpendicular to columns",
            remedy="resample it to a grid with right angles",
        )
