"""The DICOM images behind a volume, as SEG and SR refer to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom, read_header, show_uid, text_of
from lung_d2.ct.planes import Plane, read_planes
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError, OutputError
from lung_d2.findings.source_headers import classic_image, enhanced_image, shared_geometry
from lung_d2.findings.source_identity import read_identity

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
_Files = dict[Path, dict[int | None, Plane]]
"""The planes of each file by their frame."""


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The images of a volume by their headers.

    Attributes:
        name: What messages call them.
        datasets: Patient, study, UIDs and geometry, no pixels. Classic images: one for each slice, in the order of the
            volume. Enhanced images: the one file.
        frame_numbers: For each slice of the volume its 1-based frame; None for classic images.
        frame_of_reference_uid: Empty where they do not share a legal one.
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


def read_source_images(volume: CTVolume) -> SourceImages:
    """Read the headers of the images of a volume again, and check that other objects can refer to them.

    Raises:
        OutputError: The volume comes from no DICOM files; they are gone or changed; UIDs are missing, doubled or
            illegal; or they are neither classic images nor one enhanced image.
    """
    name = f"series {show_uid(volume.series_instance_uid)}"
    if not volume.source_files:
        raise OutputError(
            name,
            found="not read from DICOM files",
            expected="a DICOM series, whose patient, study and images DICOM objects name",
            remedy="give the DICOM series, or do without these objects",
        )
    with quiet_pydicom():
        files, identity = _read(volume)
        planes = [files[path][number] for path, number in zip(volume.source_files, volume.frame_numbers, strict=True)]
        _check_uids(planes, volume)
        enhanced = _check_kind(planes)
        frame_of_reference = _shared_frame_of_reference(planes)
        identity.StudyInstanceUID, identity.SeriesInstanceUID = volume.study_instance_uid, volume.series_instance_uid
        identity.Modality = "CT"
        if frame_of_reference:
            identity.FrameOfReferenceUID = frame_of_reference
        geometry = shared_geometry(planes, volume)
        if enhanced:
            images = [enhanced_image(identity, list(files[planes[0].path].values()), geometry)]
        else:
            images = [classic_image(identity, plane, geometry) for plane in planes]
    return SourceImages(name, tuple(images), volume.frame_numbers, frame_of_reference)


def _read(volume: CTVolume) -> tuple[_Files, Dataset]:
    try:
        return _read_files(volume), read_identity(volume.source_files[0])
    except InputError as error:
        raise OutputError(error.where, found=error.found, expected=error.expected, remedy=error.remedy) from None
    except READ_ERRORS:
        raise _changed(volume.source_files[0]) from None


def _read_files(volume: CTVolume) -> _Files:
    files: _Files = {}
    for path, number, uid in zip(volume.source_files, volume.frame_numbers, volume.sop_instance_uids, strict=True):
        if path not in files:
            header = read_header(path)
            files[path] = {plane.frame_number: plane for plane in read_planes(header)} if header else {}
        if number not in files[path] or files[path][number].sop_instance_uid != uid:
            raise _changed(path)
    return files


def _changed(path: Path) -> OutputError:
    return OutputError(path, found="gone or changed since it was read", remedy="leave the series in place, and repeat")


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
                expected="one of its own for each image, which DICOM objects name",
                remedy=_REMEDY,
            )


def _check_uid(kind: str, uid: str, path: Path) -> None:
    """Refuse what no UID field can hold (PS3.5 9.1); leading zeros, which it also forbids, are kept as they are."""
    if not uid or len(uid) > 64 or not _UID.fullmatch(uid):
        raise OutputError(
            path,
            found=f"an illegal {kind}" if uid else f"no {kind}",
            expected="numbers and dots, at most 64, which DICOM objects name",
            remedy=_REMEDY,
        )


def _check_kind(planes: Sequence[Plane]) -> bool:
    """Tell enhanced from classic images; refuse a mixture, several enhanced ones, and what is neither."""
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
                expected="single slices, or one enhanced image, which a SEG can name",
                remedy="convert the series to single slices",
            )
    return enhanced


def _shared_frame_of_reference(planes: Sequence[Plane]) -> str:
    found = {text_of(plane.header.dataset, "FrameOfReferenceUID") for plane in planes}
    uid = found.pop()
    return uid if not found and len(uid) <= 64 and _UID.fullmatch(uid) else ""
