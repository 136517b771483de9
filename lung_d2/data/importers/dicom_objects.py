"""What the readers of DICOM annotation objects share: tags, sequences, the images that are named, and damage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, UID_dictionary

from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom, text_of
from lung_d2.errors import DatasetError, InputError

REMEDY = "copy or export the file again, or remove it"


@dataclass(frozen=True)
class AnnotationKind:
    """A kind of annotation object.

    Attributes:
        modality: What its files state, and what messages call it.
        classes: Names of the SOP classes that can be read, by their UIDs.
    """

    modality: str
    classes: Mapping[str, str]


class ImageReference(NamedTuple):
    """An image that an annotation names.

    Attributes:
        sop_instance_uid: Of its file.
        frame_number: 1-based; None: any frame of the file.
    """

    sop_instance_uid: str
    frame_number: int | None = None


@contextmanager
def refuse_damage(path: Path) -> Iterator[None]:
    """Turn what pydicom raises on damaged bytes into an error of ours, and keep it quiet about values of the file.

    Raises:
        InputError: The file is damaged, or not what it should be.
    """
    try:
        with quiet_pydicom():
            yield
    except DatasetError:
        raise
    except InputError as error:  # of the CT's reader, whose remedy would be another CT
        raise type(error)(error.where, found=error.found, expected=error.expected, remedy=REMEDY) from error
    except READ_ERRORS as error:
        raise InputError(path, found="damaged DICOM", expected="a whole file", remedy=REMEDY) from error


def read_tags(path: Path, keywords: Sequence[str]) -> Dataset:
    """Read some tags of a DICOM file, none of which may tell of the patient.

    Raises:
        InputError: The file is damaged or cannot be opened.
    """
    with refuse_damage(path):
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))


def follow(item: Dataset, *keywords: str) -> list[Dataset]:
    """Return the items of a sequence of an item, of a sequence of those, and so on; absent sequences hold none."""
    items = [item]
    for keyword in keywords:
        items = [inner for outer in items for inner in outer.get(keyword) or ()]
    return items


def show_uid_name(uid: str) -> str:
    """Return the name of a UID of the standard, fit for a message; a damaged file may hold anything."""
    return UID(uid).name if uid in UID_dictionary else "unknown"


def read_references(items: Sequence[Dataset]) -> tuple[ImageReference, ...]:
    """Read the images, or frames of images, that items name.

    Raises:
        ValueError: A frame number is none.
    """
    found = []
    for item in items:
        uid = text_of(item, "ReferencedSOPInstanceUID")
        frames = [int(text) for text in text_of(item, "ReferencedFrameNumber").split("\\") if text]
        if uid:
            found += [ImageReference(uid, frame) for frame in frames] or [ImageReference(uid)]
    return tuple(found)
