"""Tiny DICOM CT files whose HU are known by hand."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from lung_d2.ct import read_volume
from lung_d2.errors import InputError, LungD2Error

NAME, PATIENT_ID, BIRTH_DATE = "PLANTED^PATIENT", "PLANTED-ID-77", "19010203"
PLANTED = ("PLANTED", "19010203")
SERIES_UID, STUDY_UID = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_slice(stored: npt.NDArray[Any], z: float = 0.0, **tags: Any) -> Dataset:
    """Make a classic CT image of 16-bit stored values; a tag given as None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = tags.pop("transfer_syntax", ExplicitVRLittleEndian)
    signed = stored.dtype.kind == "i"
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Modality": "CT",
        "SeriesDescription": NAME,
        "PatientName": NAME,
        "PatientID": PATIENT_ID,
        "PatientBirthDate": BIRTH_DATE,
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "ImagePositionPatient": [0.0, 0.0, z],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 8 * stored.itemsize,
        "BitsStored": 8 * stored.itemsize,
        "HighBit": 8 * stored.itemsize - 1,
        "PixelRepresentation": int(signed),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": stored.tobytes(),
    }
    for name, value in {**values, **tags}.items():
        if value is not None:
            setattr(dataset, name, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def write(dataset: Dataset, path: Path) -> Path:
    """Write a data set as it is, right or wrong."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def stored_slices(count: int, rows: int = 6, columns: int = 5) -> list[npt.NDArray[np.uint16]]:
    """Make stored values that differ in every voxel and slice."""
    grid = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    return [(grid + 100 * index).astype(np.uint16) for index in range(count)]


def write_series(
    folder: Path, count: int = 4, step_mm: float = 2.0, names: Sequence[str] | None = None, **tags: Any
) -> list[Path]:
    """Write an axial series; slice k lies at z = k x step and holds ``stored_slices(count)[k]``."""
    names = names or [f"{index:03d}.dcm" for index in range(count)]
    stored = stored_slices(count)
    return [write(make_slice(stored[k], z=k * step_mm, **tags), folder / names[k]) for k in range(count)]


def expected_hu(count: int) -> npt.NDArray[np.int16]:
    """Return the HU of ``write_series(count)``, ``[Z, Y, X]``."""
    return (np.stack(stored_slices(count)).astype(int) - 1024).astype(np.int16)


def _item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def make_enhanced(
    stored: Sequence[npt.NDArray[Any]],
    positions: Sequence[float],
    rescales: Sequence[tuple[float, float]],
    **tags: Any,
) -> Dataset:
    """Make an enhanced CT whose frames have positions and rescales of their own."""
    none = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    none |= dict.fromkeys(("SliceThickness", "RescaleSlope", "RescaleIntercept"))
    dataset = make_slice(np.stack(stored), SOPClassUID=EnhancedCTImageStorage, **{**none, **tags})
    dataset.NumberOfFrames = len(stored)
    dataset.SharedFunctionalGroupsSequence = Items(
        [
            _item(
                PlaneOrientationSequence=Items([_item(ImageOrientationPatient=list(AXIAL))]),
                PixelMeasuresSequence=Items([_item(PixelSpacing=[0.5, 0.75], SliceThickness=2.0)]),
            )
        ]
    )
    dataset.PerFrameFunctionalGroupsSequence = Items(
        _item(
            PlanePositionSequence=Items([_item(ImagePositionPatient=[0.0, 0.0, z])]),
            PixelValueTransformationSequence=Items(
                [_item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")]
            ),
        )
        for z, (slope, intercept) in zip(positions, rescales, strict=True)
    )
    return dataset


def refused(source: object, kind: type[LungD2Error] = InputError) -> str:
    """Return the message of a refusal, having checked that it names no patient."""
    with pytest.raises(kind) as caught:
        read_volume(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    return message
