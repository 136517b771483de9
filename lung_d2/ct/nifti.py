"""NIfTI in and out, in the axes of DICOM: x to the left, y to the back, z to the head, LPS mm."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from lung_d2.ct.affine import check_affine, positions_along_normal, spacing_of
from lung_d2.ct.headers import nifti_suffix
from lung_d2.ct.hounsfield import INT16, JUDGED_FIELD_MM, check_hu
from lung_d2.ct.identity import hash_identity
from lung_d2.ct.planes import MAX_SIDE, MAX_VOXELS
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError, InputError

_nib: Any = nibabel  # Most of it has no types.
_orientations: Any = orientations

Affine = npt.NDArray[np.float64]

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


@dataclass(frozen=True)
class RawVolume:
    """Unscaled values ``[Z, Y, X]`` of a NIfTI file, in the axes of DICOM, with their scale and LPS affine."""

    values: npt.NDArray[Any]
    slope: float
    intercept: float
    affine_lps: Affine


def read_nifti_volume(path: str | os.PathLike[str]) -> CTVolume:
    """Read a CT volume in HU from NIfTI.

    The voxels are reordered without loss to the axes of an axial DICOM series. NIfTI knows no patient: the hashes are
    those of the contents.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.

    Raises:
        GeometryError: Its affine makes no grid of perpendicular rows and columns.
        InputError: It is damaged, not 3-D, too large, holds NaN, or its values are no HU.
    """
    path = Path(path)
    raw = read_raw_nifti(path)
    hu: npt.NDArray[np.int16] = np.empty(raw.values.shape, dtype=np.int16)
    low, high = np.inf, -np.inf
    for index, picture in enumerate(raw.values):
        values = picture.astype(np.float64) * raw.slope + raw.intercept
        check_finite(values, path)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        hu[index] = np.clip(np.rint(values), INT16.min, INT16.max)
    spacing = spacing_of(raw.affine_lps)
    count = len(hu)
    field_mm = (hu.shape[1] * spacing[1], hu.shape[2] * spacing[2])
    check_hu(hu, field_mm, where=str(path), judged_field_mm=JUDGED_FIELD_MM, span=high - low)
    contents = hashlib.sha256(hu.tobytes() + raw.affine_lps.tobytes()).hexdigest()
    return CTVolume(
        hu=hu,
        spacing_mm=spacing,
        slice_positions_mm=positions_along_normal(raw.affine_lps, count),
        affine_lps=raw.affine_lps,
        series_instance_uid="",
        study_instance_uid="",
        sop_instance_uids=("",) * count,
        frame_numbers=(None,) * count,
        patient_hash=hash_identity("patient", contents),
        series_hash=hash_identity("series", contents),
    )


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
    temporary = path.with_name(f".{os.getpid()}-{hash_identity('path', path.name)}{suffix}")
    try:
        _nib.save(image, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(path, found="cannot be written", remedy="check the folder and its free space") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_raw_nifti(path: Path) -> RawVolume:
    """Read a NIfTI file without scaling its values; see :class:`RawVolume`."""
    try:
        image = _nib.load(path)
        if not isinstance(image, _nib.Nifti1Image):
            raise InputError(path, found=f"a {type(image).__name__}", expected="NIfTI", remedy="convert it to .nii.gz")
        _check_header(image, path)
        proxy = image.dataobj
        values = np.asarray(proxy.get_unscaled())
        slope, intercept = float(proxy.slope), float(proxy.inter)
        affine = _affine_lps(image, path)
        return _to_dicom_axes(values.reshape(values.shape[:3]), slope, intercept, affine, path)
    except InputError:
        raise
    except NIFTI_ERRORS as error:
        there = path.is_file()
        raise InputError(
            path,
            found="damaged or no NIfTI file" if there else "no such file",
            expected="a whole .nii or .nii.gz",
            remedy="copy or export the file again" if there else "check the path",
        ) from error


def _check_header(image: Any, path: Path) -> None:
    shape, kind = image.shape, image.get_data_dtype()
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise InputError(path, found=f"{len(shape)} dimensions {shape}", expected="3-D", remedy="split the file")
    voxels = int(shape[0]) * int(shape[1]) * int(shape[2])
    if min(shape) < 1 or max(shape) > MAX_SIDE or voxels > MAX_VOXELS:
        raise InputError(
            path, found=f"size {shape}", expected=f"1 to {MAX_SIDE} a side, 2^30 voxels", remedy="resample it"
        )
    if kind.kind not in "iufb":
        raise InputError(path, found=f"values of type {kind}", expected="one number a voxel", remedy="give the CT")
    offset = int(image.dataobj.offset)
    if path.suffix.lower() == ".nii" and path.stat().st_size < offset + voxels * kind.itemsize:
        raise InputError(path, found="shorter than declared", expected="a whole file", remedy="copy the file again")


def _affine_lps(image: Any, path: Path) -> Affine:
    header = image.header
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise GeometryError(
            path,
            found="no orientation (sform and qform codes are 0)",
            expected="a position in the patient, so that left and right are known",
            remedy="export it with its orientation",
        )
    scale = MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= scale
    check_affine(affine, path)
    return affine


def _to_dicom_axes(
    values: npt.NDArray[np.generic], slope: float, intercept: float, affine: Affine, path: Path
) -> RawVolume:
    """Permute and flip ``[x, y, z]`` so that the axes run to +L, +P and +S as nearly as they can."""
    orientation = _orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        raise GeometryError(path, found="a singular affine", expected="three axes", remedy="export the file again")
    # Each wanted axis is a coordinate axis of LPS in its positive direction, so nothing is left to compose.
    moved = _orientations.apply_orientation(values, orientation)
    placed = affine @ _orientations.inv_ornt_aff(orientation, values.shape)
    check_affine(placed, path)
    return RawVolume(moved.transpose(2, 1, 0), slope, intercept, placed)


def check_finite(values: npt.NDArray[np.float64], path: Path) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(values).all():
        raise InputError(path, found="NaN or infinity among its voxels", expected="numbers", remedy="fill them first")
