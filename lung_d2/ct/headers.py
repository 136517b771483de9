"""DICOM headers: which files of a source are DICOM, and the few tags that a CT volume needs.

pydicom reads the headers; its warnings and log lines are held back here, because they quote values of the file, and
a value can be a patient's name.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from lung_d2.errors import InputError

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)
"""File names of volumes that are not DICOM end so, in letters of any case."""

READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged bytes: parsing is lazy, so it may be raised wherever a value is first looked at."""

HEADER_TAGS = [
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "AcquisitionNumber"),
    *("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "RealWorldValueMappingSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
IDENTITY_TAGS = ("PatientID", "IssuerOfPatientID")
NEEDED_OF_PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): in every derived object, if only empty."""
KEPT_OF_PATIENT = (
    *("IssuerOfPatientID", "PatientAge", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""In derived objects if the source has them; the last three say that it is not what the scanner made (C.7.6.1)."""

_PREAMBLE = 132
_quiet_lock = threading.RLock()


@dataclass(frozen=True)
class Header:
    """The header of one DICOM file, without identity.

    Attributes:
        path: The file.
        dataset: The tags of ``HEADER_TAGS`` that the file has, without those that identify the patient.
        patient_key: ``IssuerOfPatientID`` and ``PatientID`` joined; empty if the file has no patient ID. It is only
            ever hashed; neither ``repr`` nor :meth:`pack` gives it.
        transfer_syntax: Transfer syntax UID; empty where the file does not say.
        little_endian: Byte order of the native pixel cells.
    """

    path: Path
    dataset: Dataset = field(repr=False)
    patient_key: str = field(repr=False)
    transfer_syntax: str
    little_endian: bool

    def pack(self) -> bytes:
        """Return the header without path and patient in about 1.2 kB, a tenth of what pydicom's objects take."""
        shared = replace(self, path=Path(), patient_key="")
        return zlib.compress(pickle.dumps(shared, pickle.HIGHEST_PROTOCOL), 1)

    @staticmethod
    def unpack(packed: bytes, path: Path) -> Header:
        """Return the header of a file from what :meth:`pack` made of it."""
        header: Header = pickle.loads(zlib.decompress(packed))  # noqa: S301  bytes of our own making
        return replace(header, path=path)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings and log lines, which may quote a patient's name, from going anywhere."""
    pydicom_logger = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = config.settings.reading_validation_mode
        disabled, propagate = pydicom_logger.disabled, pydicom_logger.propagate
        config.settings.reading_validation_mode = config.IGNORE
        # The second stops what the loggers below it say.
        pydicom_logger.disabled, pydicom_logger.propagate = True, False
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            pydicom_logger.disabled, pydicom_logger.propagate = disabled, propagate


def list_files(source: Source) -> list[Path]:
    """List the regular files of a source: a file, a folder (with what lies under it), or a list of either.

    Raises:
        InputError: A path of the source does not exist, is not a regular file, or cannot be listed.
    """
    sources: Iterable[str | os.PathLike[str]] = [source] if isinstance(source, (str, os.PathLike)) else source
    files: dict[Path, None] = {}
    for item in sources:
        path = Path(item)
        try:
            if path.is_dir():
                files.update(dict.fromkeys(_walk(path)))
            elif path.is_file():
                files[path] = None
            else:
                raise InputError(path, found="no such file or folder", remedy="check the path")
        except (OSError, ValueError) as error:
            raise InputError(path, found="cannot be opened", remedy="check the path and its permissions") from error
    return list(files)


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file():
                yield path


def nifti_suffix(path: str | os.PathLike[str]) -> str:
    """Return ``.nii`` or ``.nii.gz`` where a file name ends so, in letters of any case; else an empty text."""
    return _suffix_of(path, NIFTI_SUFFIXES)


def volume_suffix(path: str | os.PathLike[str]) -> str:
    """Return which of ``VOLUME_SUFFIXES`` a file name ends with, in letters of any case; else an empty text."""
    return _suffix_of(path, VOLUME_SUFFIXES)


def _suffix_of(path: str | os.PathLike[str], suffixes: Iterable[str]) -> str:
    name = os.fspath(path).lower()
    return next((suffix for suffix in suffixes if name.endswith(suffix)), "")


def is_dicom(path: Path) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    try:
        with open(path, "rb") as file:
            return _looks_like_dicom(file.read(_PREAMBLE))
    except OSError as error:
        raise InputError(path, found="cannot be opened", remedy="check its permissions") from error


def read_header(path: Path) -> Header | None:
    """Read the header of a file, stopping before its pixels.

    Args:
        path: A regular file of any name.

    Returns:
        The header, or None where the file is not DICOM.

    Raises:
        InputError: The file is DICOM but its header is damaged, or it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_PREAMBLE)
            if not _looks_like_dicom(start):
                return None
            file.seek(0)
            with quiet_pydicom():
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*HEADER_TAGS])
                return _strip_identity(path, dataset, has_prefix=start[128:] == b"DICM")
    except PermissionError as error:
        raise InputError(path, found="may not be read", remedy="check its permissions") from error
    except READ_ERRORS as error:
        raise InputError(path, found="damaged DICOM header", remedy="copy or export the file again") from error


def _looks_like_dicom(start: bytes) -> bool:
    """Tell DICOM by its prefix or, for files without a preamble, by a first element of group 0002 or 0008."""
    if start[128:132] == b"DICM":
        return True
    group, element = start[:2], start[2:4]
    if group not in (b"\x02\x00", b"\x08\x00") or len(start) < _PREAMBLE or element[1:] not in (b"\x00", b"\x01"):
        return False
    return start[4:6].isalpha() or int.from_bytes(start[4:8], "little") <= 64


def _strip_identity(path: Path, dataset: Dataset, has_prefix: bool) -> Header | None:
    meta = getattr(dataset, "file_meta", Dataset())
    if "SOPClassUID" not in dataset and "MediaStorageSOPClassUID" in meta:
        dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    if not has_prefix and "SOPClassUID" not in dataset and "Rows" not in dataset:
        return None
    parts = [_identity(dataset, name) for name in reversed(IDENTITY_TAGS)]
    for name in IDENTITY_TAGS:
        if name in dataset:
            del dataset[name]
    little_endian = dataset.original_encoding[1]
    return Header(
        path=path,
        dataset=Dataset(dataset),  # without what pydicom keeps of the file, as its path
        patient_key="\0".join(parts) if parts[1] else "",
        transfer_syntax=str(meta.get("TransferSyntaxUID") or ""),
        little_endian=little_endian is not False,
    )


def _identity(dataset: Dataset, name: str) -> str:
    try:
        return text_of(dataset, name)
    except READ_ERRORS:
        # Its bytes are in no character set: they identify the patient all the same.
        return str(dataset.get_item(name).value)


def text_of(dataset: Dataset, name: str) -> str:
    r"""Return a tag as stripped text, values joined by ``\``; empty where it is absent."""
    value: Any = dataset.get(name)
    if value is None:
        return ""
    values = value if isinstance(value, MutableSequence) else [value]
    return "\\".join(str(item).strip(" \0") for item in values)


def text_or_empty(dataset: Dataset, name: str) -> str:
    """Return a tag as :func:`text_of` does; empty where it is damaged."""
    try:
        return text_of(dataset, name)
    except READ_ERRORS:
        return ""


def show_code(text: str, known: Collection[str]) -> str:
    """Return a code of the file fit for a message: only one that is known, since a damaged tag may hold anything."""
    return text if text in known else "an unknown code" if text else "nothing"


def show_uid(uid: str) -> str:
    """Return a UID fit for a message: as it is where it could be one (or a hash in its place)."""
    return uid if re.fullmatch(r"[0-9a-f.]{1,64}", uid) else "(illegal UID)" if uid else "(no UID)"
