"""The planes of a DICOM file: one for a classic CT image, one for each frame of an enhanced one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from lung_d2.ct.headers import READ_ERRORS, Header, quiet_pydicom, show_code, text_of
from lung_d2.errors import GeometryError, InputError

MAX_SIDE = 8192
"""Most rows or columns of an image that are read (CT has 512 to 2048)."""
MAX_VOXELS = 2**30
"""Most voxels of a volume that are read: 2 GiB as int16."""
MAX_SPACING_MM = 100.0
MAX_POSITION_MM = 1e5
"""A hundred metres: positions further off are damage."""

HU_RESCALE_TYPES = frozenset({"", "HU", "US", "UNSPECIFIED", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})
"""Rescale types that may be HU (PS3.3 C.11.1.1.2: absent means HU for CT; US is unspecified)."""
KNOWN_RESCALE_TYPES = frozenset({"OD", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})
PHOTOMETRIC = frozenset(
    {
        *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420"),
        *("YBR_ICT", "YBR_RCT", "ARGB", "CMYK", "HSV", "YBR_PARTIAL_422", "XYB"),
    }
)
NOT_HU_IMAGE_TYPES = frozenset(
    {
        *("PERFUSION", "RCBF", "RCBV", "CBF", "CBV", "MTT", "RMTT", "TTP", "TMAX", "PERMEABILITY", "VALUE_MAP"),
        *("MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "MAT_MODIFIED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"),
        *("MATERIAL_FRACTION", "LABEL", "STRUCTREP"),
    }
)
"""Image types whose values are not HU (PS3.3 C.8.2.1.1.1 for multi-energy, C.8.15.2 and C.8.16 for enhanced CT)."""
SIDE_IMAGE_TYPES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "DOSE INFO"})
"""Image types of the pictures that ride along with a CT stack."""

_FIELDS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
}


@dataclass(frozen=True)
class Plane:
    """One image plane: where it lies and how its stored values become HU.

    Attributes:
        header: Header of the file that holds it.
        frame_number: 1-based frame of a multi-frame file; None for a classic image.
        sop_instance_uid: May be empty.
        size: Rows and columns.
        image_position_patient: LPS mm of the centre of the first pixel.
        image_orientation_patient: Direction cosines along a row, then along a column.
        pixel_spacing_mm: Between rows, between columns.
        slice_spacing_mm: Spacing or thickness that the header states, for a plane that is alone; may be None.
        rescale_slope: HU per stored value; None where the file does not say.
        rescale_intercept: HU of stored value 0; None where the file does not say.
        rescale_type: Upper case; empty where the file does not say.
        image_type: Values of ImageType and FrameType, upper case.
        real_world_units: Unit codes of real world value mappings, upper case.
    """

    header: Header
    frame_number: int | None
    sop_instance_uid: str
    size: tuple[int, int]
    image_position_patient: tuple[float, ...]
    image_orientation_patient: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    slice_spacing_mm: float | None
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str
    image_type: frozenset[str]
    real_world_units: frozenset[str]

    @property
    def path(self) -> Path:
        """The file that holds the plane."""
        return self.header.path

    @property
    def name(self) -> str:
        """File and, for a multi-frame file, frame: what messages call the plane."""
        return str(self.path) if self.frame_number is None else f"{self.path} frame {self.frame_number}"


def read_planes(header: Header) -> list[Plane]:
    """Read geometry and rescale of the planes of one file.

    Args:
        header: Header of a CT file.

    Returns:
        One plane for each frame, in the order of the file.

    Raises:
        InputError: The file holds no single-channel image, is too large, or its rescale cannot be read.
        GeometryError: Position, orientation or spacing are missing or impossible.
    """
    try:
        with quiet_pydicom():
            return _read_planes(header)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(header.path, found="damaged DICOM header", remedy="copy or export the file again") from error


def _read_planes(header: Header) -> list[Plane]:
    dataset, path = header.dataset, header.path
    _check_image(dataset, path)
    frames = whole_number(dataset, "NumberOfFrames", path, default=1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        if frames > 1:
            raise GeometryError(
                path,
                found=f"{frames} frames without per-frame functional groups, so without positions",
                expected="enhanced CT or one image for each slice",
                remedy="export the series as enhanced CT or as single slices",
            )
        return [_plane(header, None, [dataset])]
    if len(groups) != frames:
        raise InputError(
            path,
            found=f"{frames} frames declared but {len(groups)} functional groups",
            remedy="export the file again",
        )
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    return [_plane(header, number, [group, *shared, dataset]) for number, group in enumerate(groups, start=1)]


def _check_image(dataset: Dataset, path: Path) -> None:
    """Refuse what is not a single-channel image of a sensible size."""
    rows, columns = (whole_number(dataset, name, path) for name in ("Rows", "Columns"))
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise InputError(
            path, found=f"{rows} x {columns} pixels", expected=f"1 to {MAX_SIDE} a side", remedy="resample the series"
        )
    frames = whole_number(dataset, "NumberOfFrames", path, default=1)
    if frames < 1 or frames * rows * columns > MAX_VOXELS:
        raise InputError(
            path, found=f"{frames} frames of {rows} x {columns}", expected="1 to 2^30 voxels", remedy="split the file"
        )
    samples = whole_number(dataset, "SamplesPerPixel", path, default=1)
    photometric = text_of(dataset, "PhotometricInterpretation").upper()
    if samples != 1 or photometric not in ("MONOCHROME2", ""):
        raise InputError(
            path,
            found=f"PhotometricInterpretation {show_code(photometric, PHOTOMETRIC)}, {samples} samples per pixel",
            expected="MONOCHROME2, one sample: an image in HU",
            remedy="give the original CT images, not a picture of them",
        )


def _plane(header: Header, frame_number: int | None, places: list[Dataset]) -> Plane:
    """Read one plane; ``places`` are where its values may stand, first come first served."""
    path, dataset = header.path, header.dataset
    position, orientation, spacing = read_geometry(places, path)
    types = {text_of(dataset, "ImageType"), _text(places, "FrameType", path)}
    slope, intercept = (_optional_number(places, name, path) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0 or not all(math.isfinite(number) for number in (slope, intercept) if number is not None):
        raise InputError(
            path,
            found=f"rescale slope {slope}, intercept {intercept}",
            expected="finite, slope not 0",
            remedy="correct it",
        )
    return Plane(
        header=header,
        frame_number=frame_number,
        sop_instance_uid=text_of(dataset, "SOPInstanceUID"),
        size=(whole_number(dataset, "Rows", path), whole_number(dataset, "Columns", path)),
        image_position_patient=position,
        image_orientation_patient=orientation,
        pixel_spacing_mm=spacing,
        slice_spacing_mm=_stated_spacing(places, path),
        rescale_slope=slope,
        rescale_intercept=intercept,
        rescale_type=_text(places, "RescaleType", path).upper(),
        image_type=frozenset(value for text in types for value in text.upper().split("\\") if value),
        real_world_units=_real_world_units(places),
    )


def read_geometry(
    places: list[Dataset], path: Path
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]:
    """Read where a plane lies.

    Args:
        places: Where the values may stand, first come first served: functional groups of a frame, the data set.
        path: The file, for messages.

    Returns:
        ImagePositionPatient, ImageOrientationPatient and PixelSpacing, checked.

    Raises:
        GeometryError: One of them is missing or impossible.
    """
    position = _numbers(places, "ImagePositionPatient", 3, path)
    orientation = _numbers(places, "ImageOrientationPatient", 6, path)
    spacing = _numbers(places, "PixelSpacing", 2, path)
    _check_geometry(path, position, orientation, spacing)
    return position, orientation, (spacing[0], spacing[1])


def _check_geometry(
    path: Path, position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]
) -> None:
    if not all(math.isfinite(number) for number in (*position, *orientation, *spacing)):
        raise GeometryError(path, found="NaN or infinity in its geometry", remedy="export the series again")
    if max(map(abs, position)) > MAX_POSITION_MM:
        raise GeometryError(path, found="a position beyond 100 m", remedy="export the series again")
    if not all(0 < number <= MAX_SPACING_MM for number in spacing):
        raise GeometryError(
            path,
            found=f"PixelSpacing {spacing[0]:g} x {spacing[1]:g} mm",
            expected=f"above 0, up to {MAX_SPACING_MM:g} mm",
            remedy="export the series again with its true spacing",
        )
    row, column = orientation[:3], orientation[3:]
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    if max(abs(math.hypot(*row) - 1), abs(math.hypot(*column) - 1), abs(dot)) > 1e-3:
        raise GeometryError(
            path,
            found="ImageOrientationPatient is not orthonormal",
            expected="two perpendicular unit vectors",
            remedy="export the series again",
        )


def _text(places: list[Dataset], name: str, path: Path) -> str:
    """Return the first text of a tag: in its functional group, or at top level (classic)."""
    try:
        for place in places:
            group = place.get(_FIELDS[name])
            for holder in (group[0] if group else None, place):
                text = text_of(holder, name) if holder is not None else ""
                if text:
                    return text
    except READ_ERRORS as error:
        raise InputError(path, found=f"{name} cannot be read", remedy="give the original CT images") from error
    return ""


def _numbers(places: list[Dataset], name: str, count: int, path: Path) -> tuple[float, ...]:
    text = _text(places, name, path)
    try:
        numbers = tuple(float(part) for part in text.split("\\")) if text else ()
    except ValueError:
        numbers = (math.nan,)
    if len(numbers) != count:
        raise GeometryError(
            path,
            found=f"{name} with {len(numbers)} values" if numbers else f"no {name}",
            expected=f"{count} numbers",
            remedy="give the original CT images, which have it",
        )
    return numbers


def _optional_number(places: list[Dataset], name: str, path: Path) -> float | None:
    text = _text(places, name, path)
    try:
        return float(text) if text else None
    except ValueError as error:
        raise InputError(path, found=f"{name} is not a single number", remedy="give the original CT images") from error


def _stated_spacing(places: list[Dataset], path: Path) -> float | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            number = _optional_number(places, name, path)
        except InputError:
            continue
        if number is not None and 0 < number <= MAX_SPACING_MM:
            return number
    return None


def _real_world_units(places: list[Dataset]) -> frozenset[str]:
    units = set()
    for place in places:
        for mapping in place.get("RealWorldValueMappingSequence") or []:
            for code in mapping.get("MeasurementUnitsCodeSequence") or []:
                units.add(text_of(code, "CodeValue").upper())
    return frozenset(units)


def whole_number(dataset: Dataset, name: str, path: str | Path, default: int | None = None) -> int:
    """Return a tag as an integer.

    Raises:
        InputError: It is absent and there is no default, or it is not an integer.
    """
    text = ""
    try:
        text = text_of(dataset, name)
        return default if default is not None and not text else int(text)
    except READ_ERRORS as error:
        found = f"{name} is not an integer" if text else f"no {name}"
        raise InputError(path, found=found, expected="an image", remedy="give the original CT images") from error
