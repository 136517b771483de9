"""Whose images they are: the attributes of patient and study that derived objects must carry, cleaned."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from lung_d2.ct.headers import text_of

# Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): there, if only empty.
_NEEDED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
# There where the source has them. The last three say that the source is not what the scanner made (C.7.6.1).
_CARRIED = (
    *("IssuerOfPatientID", "PatientAge", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_CODES = {
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientIdentityRemoved": r"YES|NO",
    "LossyImageCompression": r"00|01",
    "LossyImageCompressionRatio": r"[\d.]{1,16}(\\[\d.]{1,16})*",
    "LossyImageCompressionMethod": r"[A-Z0-9_ ]{1,16}(\\[A-Z0-9_ ]{1,16})*",
}
_NAMES = ("PatientName", "ReferringPhysicianName")
# With the dots and colons of the predecessor of DICOM, which a reader shall take too (PS3.5 6.2).
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?")


def read_identity(path: Path) -> Dataset:
    """Read patient and study of a DICOM file.

    Dates, times, and codes that are none are left empty or out. Text is kept as it is, too long or not, because it
    identifies the patient; only control characters, which none may hold, go.

    Args:
        path: A DICOM file. The caller holds :func:`lung_d2.ct.headers.quiet_pydicom` and takes its errors.

    Returns:
        All attributes of type 2 and those of type 3 that the file has, decoded.
    """
    tags = ["SpecificCharacterSet", *_NEEDED, *_CARRIED]
    source = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
    identity = Dataset()
    for name in (*_NEEDED, *_CARRIED):
        value = _clean(name, text_of(source, name))
        if value or name in _NEEDED:
            setattr(identity, name, value)
    if "DeidentificationMethod" not in identity and "PatientIdentityRemoved" in identity:
        del identity.PatientIdentityRemoved  # which needs the method beside it
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
