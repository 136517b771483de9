"""CT volumes in files that are no DICOM: NIfTI, NRRD, MetaImage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.ct.affine import positions_along_normal, spacing_of
from lung_d2.ct.headers import VOLUME_SUFFIXES, nifti_suffix, volume_suffix
from lung_d2.ct.hounsfield import INT16, JUDGED_FIELD_MM, NORMALISED_SPAN, check_hu
from lung_d2.ct.itk_files import read_raw_itk
from lung_d2.ct.nifti import read_raw_nifti
from lung_d2.ct.raw_volume import RawVolume
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError
from lung_d2.files import hash_identity


def read_raw_volume(path: str | os.PathLike[str]) -> RawVolume:
    """Read the voxels of a volume file, reordered without loss to the axes of an axial DICOM series.

    Args:
        path: A file with one of :data:`lung_d2.ct.headers.VOLUME_SUFFIXES`.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is missing, damaged, not 3-D, too large, or holds no numbers.
    """
    path = Path(path)
    if not volume_suffix(path):
        raise InputError(path, found="another suffix", expected=", ".join(VOLUME_SUFFIXES), remedy="convert it")
    try:
        there, readable = path.is_file(), os.access(path, os.R_OK)
    except (OSError, ValueError):
        there = readable = False
    if not there or not readable:
        found, remedy = ("may not be read", "check its permissions") if there else ("no such file", "check the path")
        raise InputError(path, found=found, remedy=remedy)
    return read_raw_nifti(path) if nifti_suffix(path) else read_raw_itk(path)


def read_volume_file(path: str | os.PathLike[str]) -> CTVolume:
    """Read a CT volume in HU from a volume file.

    Such files know no patient: the hashes are those of the contents.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is missing, damaged, not 3-D, too large, holds NaN, or its values are no HU.
    """
    return build_volume(read_raw_volume(path))


def build_volume(raw: RawVolume) -> CTVolume:
    """Build the CT volume of voxels that are HU once they are scaled; see :func:`read_volume_file`.

    Raises:
        InputError: They hold NaN, or are no HU.
    """
    hu: npt.NDArray[np.int16] = np.empty(raw.values.shape, dtype=np.int16)
    low, high = np.inf, -np.inf
    for index, values in enumerate(raw.slices()):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        hu[index] = np.clip(np.rint(values), INT16.min, INT16.max)
    spacing = spacing_of(raw.affine_lps)
    count = len(hu)
    field_mm = (hu.shape[1] * spacing[1], hu.shape[2] * spacing[2])
    # A label map is no CT, however small.
    judged_field_mm = 0.0 if 0 < high - low < NORMALISED_SPAN else JUDGED_FIELD_MM
    check_hu(hu, field_mm, where=str(raw.path), judged_field_mm=judged_field_mm, span=high - low)
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
