"""Volumes in NRRD (``.nrrd``, ``.nhdr``) and MetaImage (``.mha``, ``.mhd``), read by ITK in LPS."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from lung_d2.ct.codec import quiet_itk, stderr_in
from lung_d2.ct.headers import NRRD_SUFFIXES, volume_suffix
from lung_d2.ct.meta_header import check_meta_header
from lung_d2.ct.nrrd_header import check_nrrd_header
from lung_d2.ct.planes import MAX_SPACING_MM
from lung_d2.ct.raw_volume import Affine, RawVolume, check_size, damaged, to_dicom_axes
from lung_d2.ct.text_headers import VoxelData, not_scalar_3d
from lung_d2.errors import GeometryError, InputError

_itk: Any = SimpleITK  # It has no types.

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
    is_nrrd = volume_suffix(path) in NRRD_SUFFIXES
    kind, io = ("NRRD", "NrrdImageIO") if is_nrrd else ("MetaImage", "MetaImageIO")
    _check_name(path)
    try:
        data = check_nrrd_header(path) if is_nrrd else check_meta_header(path)
        with quiet_itk():
            reader = _itk.ImageFileReader()
            reader.SetImageIO(io)
            reader.SetFileName(str(path))
            _read_information(reader)
            _check(reader, data, path)
            values = _itk.GetArrayFromImage(reader.Execute())
    # ITK raises RuntimeError for everything.
    except (RuntimeError, OSError) as error:
        raise damaged(path, kind) from error
    placed, affine = to_dicom_axes(values.transpose(2, 1, 0), _affine_lps(reader, path), path)
    return RawVolume(path, placed, affine)


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


def _check(reader: Any, data: VoxelData, path: Path) -> None:
    """Refuse what the header declares before ITK allocates it."""
    size = tuple(reader.GetSize())
    check_size(size, path)
    voxel = _itk.Image([1, 1, 1], reader.GetPixelID())
    if reader.GetNumberOfComponents() != 1 or len(size) != 3 or "vector" in voxel.GetPixelIDTypeAsString():
        raise not_scalar_3d(path, f"{len(size)} dimensions, {reader.GetNumberOfComponents()} components a voxel")
    if _itk.GetArrayFromImage(voxel).dtype.kind not in "iuf":
        raise InputError(path, found=voxel.GetPixelIDTypeAsString(), expected="real numbers", remedy="give the CT")
    data.check(math.prod(size) * voxel.GetSizeOfPixelComponent(), path)
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
