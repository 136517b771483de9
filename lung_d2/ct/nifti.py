"""NIfTI in and out, in the axes of DICOM: x to the left, y to the back, z to the head, LPS mm."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from lung_d2.ct.geometry import no_orientation
from lung_d2.ct.headers import nifti_suffix
from lung_d2.ct.raw_volume import Affine, RawVolume, check_size, damaged, to_dicom_axes
from lung_d2.errors import InputError
from lung_d2.files import hash_content

_nib: Any = nibabel  # Most of it has no types.

NIFTI_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    HeaderDataError,
    ImageFileError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What nibabel and the decompressors under it raise on damaged bytes."""

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MM_PER_UNIT = {"meter": 1000.0, "micron": 1e-3}


def read_raw_nifti(path: Path) -> RawVolume:
    """Read a NIfTI file, without scaling its values.

    Raises:
        GeometryError: It has no orientation, or its affine makes no grid of perpendicular rows and columns.
        InputError: It is damaged, not 3-D, too large, or holds no numbers.
    """
    try:
        image = _nib.load(path)
        if not isinstance(image, _nib.Nifti1Image):
            raise InputError(path, found=f"a {type(image).__name__}", expected="NIfTI", remedy="convert it to .nii.gz")
        _check_header(image, path)
        proxy = image.dataobj
        values = np.asarray(proxy.get_unscaled())
        placed, affine = to_dicom_axes(values.reshape(values.shape[:3]), _affine_lps(image, path), path)
        return RawVolume(path, placed, affine, slope=float(proxy.slope), intercept=float(proxy.inter))
    except InputError:
        raise
    except NIFTI_ERRORS as error:
        raise damaged(path, "NIfTI", "a whole .nii or .nii.gz") from error


def _check_header(image: Any, path: Path) -> None:
    kind = image.get_data_dtype()
    check_size(image.shape, path)
    if kind.kind not in "iufb":
        raise InputError(path, found=f"values of type {kind}", expected="one number a voxel", remedy="give the CT")
    declared = int(image.dataobj.offset) + math.prod(map(int, image.shape)) * int(kind.itemsize)
    if path.suffix.lower() == ".nii" and path.stat().st_size < declared:
        raise InputError(path, found="shorter than declared", expected="a whole file", remedy="copy the file again")


def _affine_lps(image: Any, path: Path) -> Affine:
    header = image.header
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise no_orientation(path, "sform and qform codes are 0")
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    return affine


def write_nifti(array: npt.NDArray[np.generic], affine_lps: Affine, path: str | os.PathLike[str]) -> None:
    """Write a volume as NIfTI, whole or not at all.

    The sform holds the affine exactly, with the shear of a tilted stack. The qform cannot hold shear: it has the same
    grid where there is none, and else the code 0 (unknown).

    Args:
        array: ``[Z, Y, X]``; bool is written as uint8, 64-bit integers in the narrowest type that holds them.
        affine_lps: float64 ``(4, 4)``; index (x, y, z, 1) to LPS mm.
        path: A ``.nii`` or ``.nii.gz`` file; replaced where it exists.

    Raises:
        InputError: The file has another suffix or cannot be written.
    """
    path = Path(path)
    suffix = nifti_suffix(path)
    if not suffix:
        raise InputError(path, found="another suffix", expected=".nii or .nii.gz", remedy="rename it")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype in (np.int64, np.uint64) and array.size:
        array = array.astype(np.result_type(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))
    image = _nib.Nifti1Image(array.transpose(2, 1, 0), RAS_TO_LPS @ affine_lps)
    image.header.set_xyzt_units("mm")
    image.set_sform(RAS_TO_LPS @ affine_lps, code=1)
    unit = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    if np.allclose(unit.T @ unit, np.eye(3), atol=1e-4):
        image.set_qform(RAS_TO_LPS @ affine_lps, code=1)
    else:
        image.header["qform_code"] = 0
    temporary = path.with_name(f".{os.getpid()}-{hash_content(path.name)}{suffix}")
    try:
        _nib.save(image, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(path, found="cannot be written", remedy="check the folder and its free space") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
