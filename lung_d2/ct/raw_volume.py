"""The voxels of volume files in the axes of DICOM, with scale and place; NRRD and MetaImage read by ITK."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from nibabel import orientations

from lung_d2.ct.geometry import check_affine
from lung_d2.ct.headers import NRRD_SUFFIXES, volume_suffix
from lung_d2.ct.itk_headers import VoxelData, check_meta_header, check_nrrd_header, not_scalar_3d
from lung_d2.ct.planes import MAX_POSITION_MM, MAX_SIDE, MAX_SPACING_MM, MAX_VOXELS
from lung_d2.errors import GeometryError, InputError

_orientations: Any = orientations  # It has no types.

Affine = npt.NDArray[np.float64]
_itk: Any = SimpleITK  # It has no types.

_STDERR = 2
_stderr_lock = threading.Lock()

READERS = {"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}
"""What ITK calls the reader of each format."""
COSINE_TOLERANCE = 0.01
"""By how much the length of a direction may differ from 1: files are written with few digits."""


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


def read_raw_itk(path: Path) -> RawVolume:
    """Read an NRRD or MetaImage file.

    Args:
        path: A ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file; the data file of the second and fourth lies beside it.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is damaged, not 3-D, too large, or holds no numbers.
    """
    if volume_suffix(path) in NRRD_SUFFIXES:
        return _read(path, "NRRD", check_nrrd_header)[0]
    return _read(path, "MetaImage", check_meta_header)[0]


def read_raw_layers(path: Path) -> list[RawVolume]:
    """Read an NRRD file that may list several label maps of one grid, as 3D Slicer writes segments that overlap.

    Args:
        path: A ``.nrrd`` file.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is damaged, not 3-D, too large, or holds no numbers.
    """
    return _read(path, "NRRD", partial(check_nrrd_header, layered=True), layered=True)


def _read(
    path: Path, kind: str, check_header: Callable[[Path], VoxelData], *, layered: bool = False
) -> list[RawVolume]:
    _check_name(path)
    try:
        data = check_header(path)
        with _quiet_itk():
            reader = _itk.ImageFileReader()
            reader.SetImageIO(READERS[kind])
            reader.SetFileName(str(path))
            _read_information(reader)
            _check(reader, data, path, layered)
            values = _itk.GetArrayFromImage(reader.Execute())
    # ITK raises RuntimeError for everything.
    except (RuntimeError, OSError) as error:
        raise damaged(path, kind) from error
    layers = values.reshape(*reader.GetSize()[::-1], -1).transpose(3, 2, 1, 0)
    affine = _affine_lps(reader, path)
    return [RawVolume(path, *to_dicom_axes(layer, affine, path)) for layer in layers]


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep the warnings of ITK from the terminal; what matters in them is checked here."""
    shown = _itk.ProcessObject.GetGlobalWarningDisplay()
    _itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        _itk.ProcessObject.SetGlobalWarningDisplay(shown)


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # ITK would end the process.
        where = ascii(str(path))
        raise InputError(
            where, found="a name that is not UTF-8", expected="a path in UTF-8", remedy="rename it"
        ) from error


def _read_information(reader: Any) -> None:
    """Read the header, without what MetaImage's parser prints to standard error."""
    with _stderr_lock, open(os.devnull, "wb") as nowhere:
        try:
            terminal = os.dup(_STDERR)
        except OSError:  # A daemon may have closed it.
            reader.ReadImageInformation()
            return
        try:
            os.dup2(nowhere.fileno(), _STDERR)
            reader.ReadImageInformation()
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)


def _check(reader: Any, data: VoxelData, path: Path, layered: bool) -> None:
    """Refuse what the header declares before ITK allocates it."""
    size, count = tuple(reader.GetSize()), reader.GetNumberOfComponents()
    check_size(size, path)
    voxel = _itk.Image([1, 1, 1], reader.GetPixelID())
    is_vector = count != 1 or "vector" in voxel.GetPixelIDTypeAsString()
    if len(size) != 3 or (is_vector and not layered):
        raise not_scalar_3d(path, f"{len(size)} dimensions, {count} components a voxel")
    if math.prod(size) * count > MAX_VOXELS:
        raise InputError(path, found=f"{count} layers of {size}", expected="2^30 voxels", remedy="save fewer segments")
    if _itk.GetArrayFromImage(voxel).dtype.kind not in "iuf":
        raise InputError(path, found=voxel.GetPixelIDTypeAsString(), expected="real numbers", remedy="give the CT")
    data.check(math.prod(size) * count * voxel.GetSizeOfPixelComponent(), path)
    _affine_lps(reader, path)


def _affine_lps(reader: Any, path: Path) -> Affine:
    spacing, direction = np.array(reader.GetSpacing()), np.array(reader.GetDirection()).reshape(3, 3)
    if not ((spacing > 0) & (spacing <= MAX_SPACING_MM)).all():
        found = "spacing " + " x ".join(f"{length:g}" for length in spacing) + " mm"
        expected = f"above 0, up to {MAX_SPACING_MM:g} mm"
        raise GeometryError(path, found=found, expected=expected, remedy="export it again with its true spacing")
    bounded = np.clip(direction, -2, 2)  # so that no square overflows
    if not (np.abs(np.linalg.norm(bounded, axis=0) - 1) <= COSINE_TOLERANCE).all():
        raise GeometryError(
            path, found="directions that are not of length 1", expected="cosines", remedy="export the file again"
        )
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = reader.GetOrigin()
    check_affine(affine, path)  # ITK's own error would not say what is wrong
    return affine
