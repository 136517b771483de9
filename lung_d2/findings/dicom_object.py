"""What SEG and SR share: codes (PS3.16), equipment, and how they are built and written."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from lung_d2 import __version__
from lung_d2.categories import Category
from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.errors import OutputError
from lung_d2.files import replace_file

MAKER = "lung_d2"
NOTE = "Research use only"

T = TypeVar("T", bound=Dataset)
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
LUNG = Code("39607008", "SCT", "Lung")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
CT_CHEST = Code("24627-2", "LN", "CT Chest")
DEVICE = Code("121007", "DCM", "Device")  # CID 270
ENGLISH = Code("en", "RFC5646", "English")

LATERALITY = {  # CID 244
    "right": Code("24028007", "SCT", "Right"),
    "left": Code("7771000", "SCT", "Left"),
    "both": Code("51440002", "SCT", "Bilateral"),
}
"""By the side of a lesion, see :data:`lung_d2.lesions.measure.MEASURES`."""

PRESENT = Code("52101004", "SCT", "Present")  # CID 240
ABSENT = Code("272519000", "SCT", "Absent")
COMMENT = Code("121106", "DCM", "Comment")


def new_uid() -> str:
    """Return a new UID: a random UUID under 2.25 (PS3.5 B.2)."""
    return str(generate_uid(prefix=None))


def device_uid() -> str:
    """Return the UID of this version of the software, under 2.25; it is the same in all its reports."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{MAKER} {__version__}').int}"


@contextmanager
def quiet_highdicom() -> Iterator[None]:
    """Silence highdicom and pydicom, whose log lines and warnings may quote the name of a patient."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    with quiet_pydicom():
        logger.setLevel(logging.CRITICAL + 1)  # also for the loggers below it, which have no level
        try:
            yield
        finally:
            logger.setLevel(level)


def build_object(kind: Callable[..., T], where: str | Path, **arguments: Any) -> T:
    """Build an object of a new series by highdicom, marked as research (Content Qualification, PS3.3 C.12.1).

    Args:
        kind: A class of highdicom.
        where: What is built, for messages.
        arguments: Its arguments other than equipment, UIDs and character set.

    Raises:
        OutputError: highdicom refuses a value of the source.
    """
    try:
        with quiet_highdicom():
            return kind(
                series_instance_uid=new_uid(),
                sop_instance_uid=new_uid(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=MAKER,
                software_versions=__version__,
                device_serial_number=__version__,
                content_qualification="RESEARCH",
                specific_character_set="ISO_IR 192",  # UTF-8 holds whatever :mod:`source_images` decoded
                **arguments,
            )
    except READ_ERRORS as error:
        raise _refused(where, error) from None


def save_object(dataset: Dataset, path: Path) -> None:
    """Write an object atomically.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        with replace_file(path) as temporary, quiet_highdicom():
            dataset.save_as(temporary, enforce_file_format=True)
    except READ_ERRORS as error:
        raise _refused(path, error) from None


def _refused(where: str | Path, error: Exception) -> OutputError:
    # Its message, and the error itself as a cause, may quote the name of the patient.
    found = f"the headers of the series cannot be carried over ({type(error).__name__})"
    return OutputError(where, found=found, expected="CT headers that conform to DICOM", remedy="export it again")


def category_code(category: Category) -> Code:
    """Return the code of a category."""
    return Code(*category.code)
