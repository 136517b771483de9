"""A CT volume in HU, and the one function that reads it from any source: DICOM, NIfTI, NRRD, MetaImage."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGLSNearLossless

from lung_d2.ct.geometry import Stack, positions_along_normal, spacing_of
from lung_d2.ct.headers import VOLUME_SUFFIXES, Source, nifti_suffix, quiet_pydicom, volume_suffix
from lung_d2.ct.hounsfield import INT16, JUDGED_FIELD_MM, NORMALISED_SPAN, SCANNER_INTERCEPT, STATED_FIELD_MM, check_hu
from lung_d2.ct.nifti import read_raw_nifti
from lung_d2.ct.pixels import check_file, read_hu
from lung_d2.ct.planes import Plane, whole_number
from lung_d2.ct.raw_volume import RawVolume, read_raw_itk
from lung_d2.ct.scan import find_series
from lung_d2.ct.series import CTSeries, choose_series
from lung_d2.errors import GeometryError, InputError
from lung_d2.files import hash_identity

logger = logging.getLogger(__name__)

LOSSY_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG baseline
        "1.2.840.10008.1.2.4.51",  # JPEG extended
        "1.2.840.10008.1.2.4.91",  # JPEG 2000, may be lossy
        JPEGLSNearLossless,
    }
)
READING_THREADS = 4


@dataclass(frozen=True, eq=False)
class DicomSource:
    """What was read of the DICOM files of a volume, for DICOM objects over it; no ``repr`` shows it.

    Attributes:
        planes: The plane of each slice, with the header of its file.
        patient: Patient and study as the file of the first slice has them, uncleaned.
    """

    planes: tuple[Plane, ...] = field(repr=False)
    patient: Dataset = field(repr=False)


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A series in HU: parallel, evenly spaced slices, lowest along their normal first.

    Attributes:
        hu: HU, int16 ``[Z, Y, X]``, read-only.
        spacing_mm: (z, y, x); z is along the slice normal.
        slice_positions_mm: Position of each slice along the normal, float64 ``[Z]``, ascending.
        affine_lps: float64 ``(4, 4)`` that maps the index (x=column, y=row, z=slice, 1) of a voxel centre to LPS mm.
            A tilted gantry shows as shear in its third column.
        series_instance_uid: Empty where the source has none, as a volume file.
        study_instance_uid: The same.
        sop_instance_uids: For each slice; the file's for all frames of a multi-frame file; may be empty.
        frame_numbers: For each slice its 1-based frame, None for classic images.
        patient_hash: 16 hexadecimal digits that stand for the patient.
        series_hash: 16 hexadecimal digits that stand for the series.
        source_files: For each slice the DICOM file that holds it; empty where the volume comes from elsewhere.
        dicom: What was read of these files; None where the volume comes from elsewhere.

    Raises:
        GeometryError: The parts do not fit together.
    """

    hu: npt.NDArray[np.int16] = field(repr=False)
    spacing_mm: tuple[float, float, float]
    slice_positions_mm: npt.NDArray[np.float64] = field(repr=False)
    affine_lps: npt.NDArray[np.float64] = field(repr=False)
    series_instance_uid: str
    study_instance_uid: str
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    frame_numbers: tuple[int | None, ...] = field(repr=False)
    patient_hash: str
    series_hash: str
    source_files: tuple[Path, ...] = field(default=(), repr=False)
    dicom: DicomSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check that the parts fit together, and make the arrays read-only."""
        count = len(self.hu)
        parts = {
            "hu": self.hu.ndim == 3 and self.hu.dtype == np.int16 and self.hu.size > 0,
            "spacing_mm": len(self.spacing_mm) == 3 and all(0 < mm < np.inf for mm in self.spacing_mm),
            "slice_positions_mm": self.slice_positions_mm.shape == (count,)
            and bool(np.isfinite(self.slice_positions_mm).all())
            and bool((np.diff(self.slice_positions_mm) > 0).all()),
            "affine_lps": self.affine_lps.shape == (4, 4)
            and bool(np.isfinite(self.affine_lps).all())
            and abs(float(np.linalg.det(self.affine_lps))) > 0,
            "sop_instance_uids": len(self.sop_instance_uids) == count,
            "frame_numbers": len(self.frame_numbers) == count,
            "source_files": len(self.source_files) in (0, count),
            "dicom": self.dicom is None or len(self.dicom.planes) == count,
        }
        wrong = ", ".join(name for name, right in parts.items() if not right)
        if wrong:
            raise GeometryError("CTVolume", found=f"{wrong} that fit no volume", remedy="see its documentation")
        for array in (self.hu, self.slice_positions_mm, self.affine_lps):
            array.setflags(write=False)


def read_volume(source: Source, series_uid: str | None = None) -> CTVolume:
    """Read a CT series in HU.

    Args:
        source: A folder of DICOM files, a DICOM file, a list of either, or one volume file (``.nii``, ``.nii.gz``,
            ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``).
        series_uid: SeriesInstanceUID of the series to read, where the source holds several.

    Returns:
        The checked volume.

    Raises:
        SeriesChoiceError: Several series, and none chosen or not that one.
        GeometryError: The slices make no volume: gaps, duplicates, differing geometry.
        InputError: No CT, damaged or unsupported files, or values that are not HU.
    """
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    files = [path for path in paths if volume_suffix(path) and not Path(path).is_dir()]
    if files:
        first = str(files[0])
        if len(paths) > 1:
            raise InputError(
                first, found=f"one of {len(paths)} paths", expected="one volume file", remedy="give it alone"
            )
        if series_uid is not None:
            raise InputError(
                first, found=f"{volume_suffix(first)} has no series UID", remedy="leave the series UID out"
            )
        return read_volume_file(first)
    name = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    return load_series(choose_series(find_series(paths), series_uid, name))


def load_series(series: CTSeries) -> CTVolume:
    """Read the pixels of a series found by :func:`lung_d2.ct.scan.find_series`.

    Raises:
        GeometryError: Its slices make no volume.
        InputError: Its files are damaged, unsupported or no HU.
    """
    with quiet_pydicom():
        stack = series.stack()
        hu, patient = _read_pixels(stack)
    _check_values(hu, stack, series.name)
    return CTVolume(
        hu=hu,
        spacing_mm=stack.spacing_mm,
        slice_positions_mm=stack.slice_positions_mm,
        affine_lps=stack.affine_lps,
        series_instance_uid=series.series_instance_uid,
        study_instance_uid=series.study_instance_uid,
        sop_instance_uids=tuple(plane.sop_instance_uid for plane in stack.planes),
        frame_numbers=tuple(plane.frame_number for plane in stack.planes),
        patient_hash=series.patient_hash,
        series_hash=series.series_hash,
        source_files=tuple(plane.path for plane in stack.planes),
        dicom=DicomSource(stack.planes, patient),
    )


def _read_pixels(stack: Stack) -> tuple[npt.NDArray[np.int16], Dataset]:
    """Return the HU, and patient and study of the file of the first slice."""
    files: dict[Path, list[int]] = {}
    for index, plane in enumerate(stack.planes):
        files.setdefault(plane.path, []).append(index)
    for path, indices in files.items():
        header = stack.planes[indices[0]].header
        try:
            check_file(header, whole_number(header.dataset, "NumberOfFrames", path, default=1))
        except OSError as error:
            raise InputError(path, found="gone while it was read", remedy="try again") from error
    lossy = sorted({UID(plane.header.transfer_syntax).name for plane in stack.planes if _is_lossy(plane)})
    if lossy:
        logger.warning("%s: compressed with loss (%s): HU are those of the decoded image", path, ", ".join(lossy))
    hu = np.empty((len(stack.planes), *stack.planes[0].size), dtype=np.int16)

    def read(indices: Sequence[int]) -> Dataset:
        pictures, patient = read_hu([stack.planes[index] for index in indices])
        for index, picture in zip(indices, pictures, strict=True):
            hu[index] = picture
        return patient

    with ThreadPoolExecutor(min(READING_THREADS, len(files))) as pool:
        patients = pool.map(read, files.values())  # the first file is that of the first slice
        patient = next(patients)
        list(patients)
    return hu, patient


def _is_lossy(plane: Plane) -> bool:
    return plane.header.transfer_syntax in LOSSY_SYNTAXES


def _check_values(hu: npt.NDArray[np.int16], stack: Stack, name: str) -> None:
    """Refuse HU that cannot be; see :func:`lung_d2.ct.hounsfield.check_hu`."""
    intercepts = [plane.rescale_intercept for plane in stack.planes]
    absent = any(plane.rescale_slope is None or plane.rescale_intercept is None for plane in stack.planes)
    if absent:
        logger.warning("%s: no RescaleSlope or RescaleIntercept: taken as 1 and 0", name)
    _, y, x = stack.spacing_mm
    check_hu(
        hu,
        (hu.shape[1] * y, hu.shape[2] * x),
        where=name,
        judged_field_mm=JUDGED_FIELD_MM if absent else STATED_FIELD_MM,
        trusted=not absent and all(value is not None and value <= SCANNER_INTERCEPT for value in intercepts),
        padded=any("PixelPaddingValue" in plane.header.dataset for plane in stack.planes),
    )


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
        InputError: It is missing, damaged, not 3-D, too large, holds NaN, or its values are not HU.
    """
    return build_volume(read_raw_volume(path))


def build_volume(raw: RawVolume) -> CTVolume:
    """Build the CT volume of voxels that are HU once they are scaled; see :func:`read_volume_file`.

    Raises:
        InputError: They hold NaN, or are not HU.
    """
    hu: npt.NDArray[np.int16] = np.empty(raw.values.shape, dtype=np.int16)
    low, high = np.inf, -np.inf
    for index, values in enumerate(raw.slices()):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        hu[index] = np.clip(np.rint(values), INT16.min, INT16.max)
    spacing = spacing_of(raw.affine_lps)
    count = len(hu)
    field_mm = (hu.shape[1] * spacing[1], hu.shape[2] * spacing[2])
    # A label map is not a CT, however small.
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
