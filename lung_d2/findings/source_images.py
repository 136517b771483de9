"""The DICOM images behind a volume, as SEG and SR refer to them: patient, study, UIDs and geometry, cleaned."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from lung_d2.ct.headers import KEPT_OF_PATIENT, NEEDED_OF_PATIENT, READ_ERRORS, quiet_pydicom, show_uid, text_of
from lung_d2.ct.planes import Plane, read_planes
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import OutputError

CLASSIC_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    }
)
MULTIFRAME_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    }
)
_REMEDY = "give the series as the scanner or the archive exports it"
_UID = re.compile(r"\d+(\.\d+)*")
_CODES = {
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientIdentityRemoved": r"YES|NO",
    "LossyImageCompression": r"00|01",
    "LossyImageCompressionRatio": r"[\d.]{1,16}(\\[\d.]{1,16})*",
    "LossyImageCompressionMethod": r"[A-Z0-9_ ]{1,16}(\\[A-Z0-9_ ]{1,16})*",
}
_NAMES = ("PatientName", "ReferringPhysicianName")
# Also with the dots and colons of ACR-NEMA, which readers must accept (PS3.5 6.2).
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?")


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The headers of the images of a volume.

    Attributes:
        name: Name in messages.
        datasets: Patient, study, UIDs and geometry, no pixels. Classic images: one for each slice, in the order of the
            volume. Enhanced images: the one file.
        frame_numbers: For each slice of the volume its 1-based frame; None for classic images.
        frame_of_reference_uid: Empty if they do not share a legal one.
    """

    name: str
    datasets: tuple[Dataset, ...] = field(repr=False)
    frame_numbers: tuple[int | None, ...] = field(repr=False)
    frame_of_reference_uid: str

    @property
    def plane_count(self) -> int:
        """Number of planes that an object over all of them has: slices of classic, frames of enhanced images."""
        return int(self.datasets[0].get("NumberOfFrames", len(self.datasets)))

    def plane_index(self, slice_index: int) -> int:
        """Return which of these planes a slice of the volume is."""
        number = self.frame_numbers[slice_index]
        return slice_index if number is None else number - 1

    def image_of(self, slice_index: int) -> Dataset:
        """Return the header of the file that holds a slice of the volume."""
        return self.datasets[slice_index if self.frame_numbers[slice_index] is None else 0]


def build_source_images(volume: CTVolume) -> SourceImages:
    """Check that DICOM objects can refer to the images of a volume, and build their headers; no file is read again.

    Raises:
        OutputError: The volume was not read from DICOM files; UIDs are missing, duplicated or illegal; or the files are
            neither classic images nor one enhanced image.
    """
    name = f"series {show_uid(volume.series_instance_uid)}"
    if volume.dicom is None:
        raise OutputError(
            name,
            found="not read from DICOM files",
            expected="a DICOM series: DICOM objects name its patient, study and images",
            remedy="give the DICOM series, or do without DICOM output",
        )
    with quiet_pydicom():
        planes = volume.dicom.planes
        _check_uids(planes, volume)
        enhanced = _check_kind(planes)
        frame_of_reference = _shared_frame_of_reference(planes)
        try:
            identity = clean_identity(volume.dicom.patient)
        except READ_ERRORS:  # it may quote the patient's name
            found = "damaged patient or study in the header"
            raise OutputError(planes[0].path, found=found, remedy="export it again") from None
        identity.StudyInstanceUID, identity.SeriesInstanceUID = volume.study_instance_uid, volume.series_instance_uid
        identity.Modality = "CT"
        if frame_of_reference:
            identity.FrameOfReferenceUID = frame_of_reference
        geometry = _shared_geometry(planes, volume)
        if enhanced:
            images = [_enhanced_image(identity, read_planes(planes[0].header), geometry)]
        else:
            images = [_classic_image(identity, plane, geometry) for plane in planes]
    return SourceImages(name, tuple(images), volume.frame_numbers, frame_of_reference)


def _check_uids(planes: Sequence[Plane], volume: CTVolume) -> None:
    _check_uid("StudyInstanceUID", volume.study_instance_uid, planes[0].path)
    _check_uid("SeriesInstanceUID", volume.series_instance_uid, planes[0].path)
    files = {plane.path: plane.sop_instance_uid for plane in planes}
    shared = Counter(files.values())
    for path, uid in files.items():
        _check_uid("SOPInstanceUID", uid, path)
        if shared[uid] > 1:
            raise OutputError(
                path,
                found=f"SOPInstanceUID {show_uid(uid)}, as {shared[uid]} of the {len(files)} files",
                expected="a different one for each image: DICOM objects name it",
                remedy=_REMEDY,
            )


def _check_uid(kind: str, uid: str, path: Path) -> None:
    """Refuse what cannot be a UID (PS3.5 9.1); leading zeros, which it also forbids, are kept."""
    if not uid or len(uid) > 64 or not _UID.fullmatch(uid):
        raise OutputError(
            path,
            found=f"an illegal {kind}" if uid else f"no {kind}",
            expected="numbers and dots, at most 64 characters: DICOM objects name it",
            remedy=_REMEDY,
        )


def _check_kind(planes: Sequence[Plane]) -> bool:
    """Return whether it is one enhanced image, not classic ones; refuse a mixture, several, and anything else."""
    enhanced = planes[0].frame_number is not None
    for plane in planes:
        sop_class = text_of(plane.header.dataset, "SOPClassUID")
        classes = CLASSIC_CLASSES if plane.frame_number is None else MULTIFRAME_CLASSES
        if sop_class not in classes:
            found = f"SOP class {show_uid(sop_class)}" + (" with frames" if plane.frame_number else "")
            raise OutputError(plane.path, found=found, expected="CT or Enhanced CT Image Storage", remedy=_REMEDY)
        if (enhanced or plane.frame_number is not None) and plane.path != planes[0].path:
            raise OutputError(
                plane.path,
                found="one of several files with frames",
                expected="single slices, or one enhanced image, to which a SEG can refer",
                remedy="convert the series to single slices",
            )
    return enhanced


def _shared_frame_of_reference(planes: Sequence[Plane]) -> str:
    found = {text_of(plane.header.dataset, "FrameOfReferenceUID") for plane in planes}
    uid = found.pop()
    return uid if not found and len(uid) <= 64 and _UID.fullmatch(uid) else ""


def _shared_geometry(planes: Sequence[Plane], volume: CTVolume) -> Dataset:
    """Return what all planes share, as in a classic image; the thickness is that of a slice of a mask."""
    shared = Dataset()
    orientations = {plane.image_orientation_patient for plane in planes}
    if len(orientations) == 1:
        shared.ImageOrientationPatient = _decimals(orientations.pop())
    else:  # They differ by rounding: take the mean, as the volume does.
        directions = volume.affine_lps[:3, :2] / np.linalg.norm(volume.affine_lps[:3, :2], axis=0)
        shared.ImageOrientationPatient = _decimals(directions.T.ravel())
    shared.PixelSpacing = _decimals(planes[0].pixel_spacing_mm)
    shared.SliceThickness = shared.SpacingBetweenSlices = format_number_as_ds(volume.spacing_mm[0])
    shared.Rows, shared.Columns = planes[0].size
    return shared


def _classic_image(identity: Dataset, plane: Plane, geometry: Dataset) -> Dataset:
    """Return the header of one slice, given what all slices share."""
    image = _image(identity, plane)
    image.update(geometry)
    image.ImagePositionPatient = _decimals(plane.image_position_patient)
    return image


def _enhanced_image(identity: Dataset, planes: Sequence[Plane], geometry: Dataset) -> Dataset:
    """Return the header of an enhanced file; ``planes`` are all its frames, even those that are not in the volume."""
    image = _image(identity, planes[0])
    image.NumberOfFrames = len(planes)
    image.Rows, image.Columns = geometry.Rows, geometry.Columns
    shared = Dataset()
    shared.PlaneOrientationSequence = [_pick(geometry, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_pick(geometry, "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for plane in planes:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _decimals(plane.image_position_patient)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    return image


def _image(identity: Dataset, plane: Plane) -> Dataset:
    image = Dataset()
    image.update(identity)
    image.SOPClassUID = text_of(plane.header.dataset, "SOPClassUID")
    image.SOPInstanceUID = plane.sop_instance_uid
    return image


def _decimals(numbers: Iterable[float]) -> list[str]:
    """Return decimal strings of at most 16 characters (PS3.5 6.2, VR DS)."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _pick(dataset: Dataset, *names: str) -> Dataset:
    part = Dataset()
    for name in names:
        part.add(dataset[name])
    return part


def clean_identity(source: Dataset) -> Dataset:
    """Return patient and study as derived objects must have them.

    Invalid dates, times and codes are left empty or out. Text is kept even if it is too long, because it identifies the
    patient; only control characters, which it may not contain, are removed.

    Args:
        source: Patient and study as a file has them. The caller uses :func:`lung_d2.ct.headers.quiet_pydicom`.

    Returns:
        All attributes of type 2 and those of type 3 that the source has, decoded.
    """
    identity = Dataset()
    for name in (*NEEDED_OF_PATIENT, *KEPT_OF_PATIENT):
        value = _clean(name, text_of(source, name))
        if value or name in NEEDED_OF_PATIENT:
            setattr(identity, name, value)
    if "DeidentificationMethod" not in identity and "PatientIdentityRemoved" in identity:
        del identity.PatientIdentityRemoved  # it requires the method
    return identity


def _clean(name: str, text: str) -> str:
    text = "".join(character for character in text if character.isprintable()).strip()
    if name in _CODES:
        return text if re.fullmatch(_CODES[name], text) else ""
    if name.endswith("Date"):
        return _clean_date(text)
    if name.endswith("Time"):
        match = _TIME.fullmatch(text)
        return "".join(filter(None, match.groups())) if match else ""
    return text.replace("\\", " ") if name in _NAMES else text


def _clean_date(text: str) -> str:
    match = _DATE.fullmatch(text)
    if match is None:
        return ""
    try:
        datetime.date(*map(int, match.groups()))
    except ValueError:
        return ""
    return "".join(match.groups())
