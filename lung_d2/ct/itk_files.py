"""Volumes in NRRD (``.nrrd``, ``.nhdr``) and MetaImage (``.mha``, ``.mhd``), read by ITK in LPS."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from lung_d2.ct.codec import quiet_itk, stderr_in
from lung_d2.ct.headers import NRRD_SUFFIXES, volume_suffix
from lung_d2.ct.meta_header import check_meta_header
from lung_d2.ct.nrrd_header import check_nrrd_header
from lung_d2.ct.planes import MAX_SPACING_MM, MAX_VOXELS
from lung_d2.ct.raw_volume import Affine, RawVolume, check_size, damaged, to_dicom_axes
from lung_d2.ct.text_headers import VoxelData, not_scalar_3d
from lung_d2.errors import GeometryError, InputError

_itk: Any = SimpleITK  # It has no types.

READERS = {"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}
"""What ITK calls the reader of each format."""
COSINE_TOLERANCE = 0.01
"""By how much the length of a direction may differ from 1: files are written with few digits."""


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
        with quiet_itk():
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


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # ITK would end the process.
        where = ascii(str(path))
        raise InputError(
            where, found="a name that is no UTF-8", expected="a path in UTF-8", remedy="rename it"
        ) from error


def _read_information(reader: Any) -> None:
    """Read the header; what MetaImage's parser prints to standard error stays in a file that goes."""
    with tempfile.TemporaryDirectory(prefix="lung_d2_") as folder, stderr_in(Path(folder, "stderr")):
        reader.ReadImageInformation()


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
    return affine
