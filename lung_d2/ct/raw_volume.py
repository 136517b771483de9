"""What every reader of volume files gives: values in the axes of DICOM, with their scale and place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from lung_d2.ct.affine import check_affine
from lung_d2.ct.planes import MAX_POSITION_MM, MAX_SIDE, MAX_VOXELS
from lung_d2.errors import GeometryError, InputError

_orientations: Any = orientations  # It has no types.

Affine = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RawVolume:
    """The voxels of a volume file before they are scaled.

    Attributes:
        path: The file.
        values: Real numbers of any type, ``[Z, Y, X]``.
        affine_lps: float64 ``(4, 4)``; index (x, y, z, 1) to LPS mm; its axes run to +L, +P and +S as nearly as they
            can.
        slope: HU, or label, per value.
        intercept: HU, or label, of value 0.
    """

    path: Path
    values: npt.NDArray[Any]
    affine_lps: Affine
    slope: float = 1.0
    intercept: float = 0.0

    def slices(self) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the scaled slices ``[Y, X]``, lowest first.

        Raises:
            InputError: A slice holds NaN or infinity.
        """
        for picture in self.values:
            scaled = picture.astype(np.float64) * self.slope + self.intercept
            if not np.isfinite(scaled).all():
                raise InputError(
                    self.path, found="NaN or infinity among its voxels", expected="numbers", remedy="fill them first"
                )
            yield scaled


def check_size(shape: tuple[int, ...], path: Path) -> None:
    """Refuse a size that is not 3-D, or that no CT has, before anything is allocated.

    Args:
        shape: Size along each axis; a fourth axis and those above it may be of size 1.
        path: The file.
    """
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise InputError(path, found=f"{len(shape)} dimensions {shape}", expected="3-D", remedy="split the file")
    if min(shape) < 1 or max(shape) > MAX_SIDE or math.prod(map(int, shape)) > MAX_VOXELS:
        raise InputError(
            path, found=f"size {shape}", expected=f"1 to {MAX_SIDE} a side, 2^30 voxels", remedy="resample it"
        )


def to_dicom_axes(
    values: npt.NDArray[np.generic], affine_lps: Affine, path: Path
) -> tuple[npt.NDArray[np.generic], Affine]:
    """Permute and flip voxels so that their axes run to +L, +P and +S as nearly as they can.

    Args:
        values: ``[x, y, z]``, in whatever order and direction the file has its axes.
        affine_lps: float64 ``(4, 4)``; index of ``values`` to LPS mm.
        path: The file.

    Returns:
        The voxels ``[Z, Y, X]`` and their affine.

    Raises:
        GeometryError: The affine makes no grid of perpendicular rows and columns.
    """
    check_affine(affine_lps, path)
    orientation = _orientations.io_orientation(affine_lps)
    if np.isnan(orientation).any():
        raise GeometryError(path, found="a singular affine", expected="three axes", remedy="export the file again")
    # Each wanted axis is a coordinate axis of LPS in its positive direction, so nothing is left to compose.
    moved = _orientations.apply_orientation(values, orientation)
    placed = affine_lps @ _orientations.inv_ornt_aff(orientation, values.shape)
    check_affine(placed, path)
    if np.abs(placed[:3, 3]).max() > MAX_POSITION_MM:
        raise GeometryError(path, found="a position beyond 100 m", remedy="export the file again")
    return moved.transpose(2, 1, 0), placed


def damaged(path: Path, kind: str, expected: str = "a whole file") -> InputError:
    """Return the error of a file that its reader gives up on."""
    return InputError(
        path, found=f"damaged or no {kind} file", expected=expected, remedy="copy or export the file again"
    )


def no_orientation(path: Path, why: str) -> GeometryError:
    """Return the error of a file that does not say how its axes lie in the patient."""
    return GeometryError(
        path,
        found=f"no orientation ({why})",
        expected="a position in the patient, so that left and right are known",
        remedy="export it with its orientation",
    )
