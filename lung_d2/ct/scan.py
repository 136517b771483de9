"""One pass over the headers of files: which CT series there are, and what else."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID
from tqdm import tqdm

from lung_d2.ct.headers import (
    VOLUME_SUFFIXES,
    Header,
    Source,
    list_files,
    quiet_pydicom,
    read_header,
    text_or_empty,
    volume_suffix,
)
from lung_d2.ct.series import CTSeries, count_of, is_side_image
from lung_d2.errors import InputError
from lung_d2.files import hash_identity

logger = logging.getLogger(__name__)

CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    }
)
CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture and its multi-frame variants: CT only where it has the geometry and the rescale of CT."""
STORAGE_ROOT = "1.2.840.10008."
MODALITIES = frozenset(
    {
        *("ANN", "AR", "BI", "CR", "DG", "DOC", "DX", "ECG", "EEG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO"),
        *("IVOCT", "IVUS", "KO", "LS", "M3D", "MG", "MR", "NM", "OCT", "OP", "OT", "PR", "PT", "PX", "REG", "RF"),
        *("RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SR", "TG"),
        *("US", "XA", "XC"),
    }
)
"""Modalities that messages may name (PS3.3 C.7.3.1.1.1)."""
ANNOTATION_MODALITIES = frozenset({"SEG", "RTSTRUCT", "SR", "PR", "KO", "ANN"})


@dataclass(frozen=True)
class DicomObject:
    """A DICOM file that is not a CT image, such as a segmentation.

    Attributes:
        path: The file.
        kind: What messages call it: its modality, or the name of its class.
        modality: Upper case; may be empty.
        sop_class_uid: May be empty.
        sop_instance_uid: May be empty.
    """

    path: Path
    kind: str
    modality: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Scan:
    """What some files are.

    Attributes:
        series: The CT series, sorted by UID. Those of localizers alone are left out unless there is nothing else.
        side_series: How many series of localizers were left out.
        objects: DICOM files that are not CT images.
        others: Files that are not DICOM.
        unreadable: One error for each DICOM file whose header is damaged.
    """

    series: tuple[CTSeries, ...]
    side_series: int = 0
    objects: tuple[DicomObject, ...] = ()
    others: tuple[Path, ...] = ()
    unreadable: tuple[InputError, ...] = ()

    def log_left_out(self, name: str) -> None:
        """Log which files are not part of a series."""
        left_out = [f"{count} {kind}" for kind, count in self._kinds().items()]
        if self.others:
            left_out.append(count_of(len(self.others), "file that is not DICOM", "files that are not DICOM"))
        if self.side_series:
            left_out.append(f"{self.side_series} series of localizers or reports")
        if left_out:
            logger.info("%s: left out %s", name, ", ".join(left_out))

    def nothing_found(self, name: str) -> InputError:
        """Return the error that says what there is instead of a CT series."""
        kinds = self._kinds()
        if kinds:
            listed = ", ".join(
                f"{count} {kind}" if count > 1 else f"{_article(kind)} {kind}" for kind, count in kinds.items()
            )
            is_annotation = ANNOTATION_MODALITIES.intersection(kinds)
            remedy = (
                "give it as annotation, and the CT series as input" if is_annotation else "give the CT series itself"
            )
            return InputError(name, found=f"this is {listed}", expected="CT", remedy=remedy)
        count, volume = len(self.others), next(filter(volume_suffix, self.others), None)
        found = "no files" if not count else "not DICOM" if count == 1 else f"{count} files, none of them DICOM"
        formats = f"give CT as DICOM, or as {', '.join(VOLUME_SUFFIXES)}"
        remedy = f"give the volume file itself, {volume}" if volume else formats
        return InputError(name, found=found, expected="a CT series", remedy=remedy)

    def _kinds(self) -> Counter[str]:
        return Counter(one.kind for one in self.objects)


def find_series(source: Source, name: str = "") -> list[CTSeries]:
    """Find the CT series of a source.

    Args:
        source: A folder (searched with all that lies under it), a DICOM file, or a list of either. Files may have any
            name; those that are not DICOM, and DICOM objects that are not CT images, are counted in the log.
        name: What messages call it; empty: its path, or how many files it lists.

    Returns:
        At least one series, sorted by UID. Series that hold localizers only are left out unless there is nothing else.

    Raises:
        InputError: Nothing in the source is a CT image, or a header is damaged.
    """
    name = name or _source_name(source)
    found = scan_files(list_files(source))
    if found.unreadable:
        raise found.unreadable[0]
    if not found.series:
        raise found.nothing_found(name)
    found.log_left_out(name)
    return list(found.series)


def scan_files(files: Sequence[Path]) -> Scan:
    """Read the header of each file once, and sort the CT images into series.

    One header is held at a time; of each CT image about 1.3 kB are kept.

    Args:
        files: Regular files of any name.
    """
    groups: dict[tuple[str, str, str], _Group] = {}
    objects, others, unreadable = [], [], []
    for path in tqdm(files, desc="scan", unit="file", delay=2, leave=False):
        with quiet_pydicom():
            try:
                header = read_header(path)
            except InputError as error:
                unreadable.append(error)
                continue
            if header is None:
                others.append(path)
            elif kind := foreign_kind(header):
                uids = [text_or_empty(header.dataset, name) for name in ("Modality", "SOPClassUID", "SOPInstanceUID")]
                objects.append(DicomObject(path, kind, uids[0].upper(), *uids[1:]))
            else:
                uids = [text_or_empty(header.dataset, f"{name}InstanceUID") for name in ("Series", "Study")]
                groups.setdefault((uids[0], uids[1], header.patient_key), _Group()).add(header)
    series = [group.freeze(*key) for key, group in sorted(groups.items()) if not group.side_images_only]
    side_series = len(groups) - len(series) if series else 0
    if not series:
        series = [group.freeze(*key) for key, group in sorted(groups.items())]
    return Scan(tuple(series), side_series, tuple(objects), tuple(others), tuple(unreadable))


@dataclass(eq=False)
class _Group:
    """The images of a series, as they are found."""

    files: list[Path] = field(default_factory=list)
    sop_instance_uids: list[str] = field(default_factory=list)
    frames_of_reference: set[str] = field(default_factory=set)
    packed_headers: list[bytes] = field(default_factory=list)
    side_images_only: bool = True

    def add(self, header: Header) -> None:
        self.files.append(header.path)
        self.sop_instance_uids.append(text_or_empty(header.dataset, "SOPInstanceUID"))
        self.frames_of_reference.add(text_or_empty(header.dataset, "FrameOfReferenceUID"))
        self.packed_headers.append(header.pack())
        self.side_images_only &= is_side_image(header)

    def freeze(self, series_uid: str, study_uid: str, patient_key: str) -> CTSeries:
        """Return the series; a patient or series without identity is named by what else identifies it."""
        uids = zip(self.sop_instance_uids, self.files, strict=True)
        contents = "\n".join(sorted(uid or path.name for uid, path in uids))
        identity = ("patient", patient_key) if patient_key else ("study", study_uid) if study_uid else ()
        return CTSeries(
            series_instance_uid=series_uid,
            study_instance_uid=study_uid,
            patient_hash=hash_identity(*(identity or ("series", series_uid or contents))),
            series_hash=hash_identity("series", series_uid or contents),
            full_hash=hash_identity("series", "\0".join((series_uid or contents, study_uid, patient_key))),
            files=tuple(self.files),
            sop_instance_uids=tuple(self.sop_instance_uids),
            frames_of_reference=frozenset(self.frames_of_reference),
            packed_headers=tuple(self.packed_headers),
        )


def foreign_kind(header: Header) -> str:
    """Return what a DICOM object is if it is not a CT image; else an empty text."""
    modalities = [value for value in text_or_empty(header.dataset, "Modality").upper().split("\\") if value]
    sop_class = text_or_empty(header.dataset, "SOPClassUID")
    if modalities and "CT" not in modalities:
        return modalities[0] if modalities[0] in MODALITIES else "object of unknown modality"
    if sop_class in CT_CLASSES:
        return ""
    if sop_class.startswith(STORAGE_ROOT) and not sop_class.startswith(CAPTURE_CLASS):
        name = UID(sop_class).name
        # An unknown UID is its own name, and may be anything in a damaged file.
        return "object of unknown class" if name.startswith(STORAGE_ROOT) else f"{name} object"
    if _looks_like_ct(header) and (modalities or not sop_class):
        return ""
    return "secondary capture" if sop_class.startswith(CAPTURE_CLASS) else "object without modality"


def _looks_like_ct(header: Header) -> bool:
    needed = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept")
    return all(text_or_empty(header.dataset, name) for name in needed)


def _article(kind: str) -> str:
    return "an" if kind[0] in "AEIO" or (kind.isupper() and kind[0] in "FHLMNRX") or kind in ("SR", "SM") else "a"


def _source_name(source: Source) -> str:
    files = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return f"{files[0]}" if len(files) == 1 else f"{len(files)} files" if files else "no files"
