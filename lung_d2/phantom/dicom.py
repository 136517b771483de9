"""Write a phantom as a DICOM series with its masks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lung_d2.ct.volume import CTVolume
from lung_d2.phantom.patient import PhantomPatient
from lung_d2.phantom.spec import PhantomSpec, phantom_uid, spec_hash

CT_FOLDER, MASK_FOLDER, RECORD_NAME = "ct", "masks", "phantom.json"
_INTERCEPT = -1024
_SAME_FOR_ALL = {
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyDate": "20000101",
    "StudyTime": "120000",
    "ReferringPhysicianName": "",
    "AccessionNumber": "",
    "Modality": "CT",
    "SeriesNumber": 1,
    "BodyPartExamined": "CHEST",
    "PositionReferenceIndicator": "",
    "Manufacturer": "lung_d2 phantom",
    "ManufacturerModelName": "phantom",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "AcquisitionNumber": 1,
    "AcquisitionDate": "20000101",
    "AcquisitionTime": "120000",
    "ContentDate": "20000101",
    "ContentTime": "120000",
    "KVP": "120",
}


def write_patient(patient: PhantomPatient, folder: str | Path, spec: PhantomSpec) -> None:
    """Write a patient: ``ct/*.dcm``, ``masks/<category>.nii.gz`` and ``phantom.json``, which lists the lesions.

    The values of a mask are the instances: 0 background, 1..n a lesion.

    Args:
        patient: The patient.
        folder: Where to write; made where it is missing.
        spec: The cohort it was built from.
    """
    header = {
        "PatientName": f"PHANTOM^{patient.number:03d}",
        "PatientID": f"PHANTOM-{patient.number:03d}",
        "StudyID": str(patient.number),
        "StudyDescription": "Synthetic chest CT",
        "SeriesDescription": "Phantom, no patient",
        "FrameOfReferenceUID": phantom_uid(spec, patient.number, "frame of reference"),
        "PatientPosition": "HFP" if patient.prone else "HFS",
        "SliceThickness": _decimal(patient.slice_thickness_mm),
        "ConvolutionKernel": patient.kernel.name,
    }
    record = {
        "spec_hash": spec_hash(spec),
        "number": patient.number,
        "kernel": patient.kernel.name,
        "lesions": [asdict(lesion) for lesion in patient.lesions],
    }
    # Imported here because nibabel is slow to load and is not needed to build a patient.
    from lung_d2.ct.nifti import write_nifti

    folder = Path(folder)
    for name in (CT_FOLDER, MASK_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(len(patient.volume.hu)):
        path = folder / CT_FOLDER / f"{index:04d}.dcm"
        ct_dataset(patient.volume, index, header).save_as(path, enforce_file_format=True)
    for name, values in patient.instances.items():
        write_nifti(values, patient.volume.affine_lps, folder / MASK_FOLDER / f"{name}.nii.gz")
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def ct_dataset(volume: CTVolume, slice_index: int, header: dict[str, Any]) -> Dataset:
    """Return one slice as CT Image Storage with all attributes of type 1 and 2 (DICOM PS3.3 A.3)."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = volume.sop_instance_uids[slice_index]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    for keyword, value in {**_SAME_FOR_ALL, **header}.items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = volume.study_instance_uid, volume.series_instance_uid
    _set_plane(dataset, volume, slice_index)
    _set_pixels(dataset, volume, slice_index)
    return dataset


def _set_plane(dataset: Dataset, volume: CTVolume, slice_index: int) -> None:
    affine = volume.affine_lps
    position = affine @ np.array([0.0, 0.0, slice_index, 1.0])
    directions = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    dataset.InstanceNumber = slice_index + 1
    dataset.ImagePositionPatient = [_decimal(value) for value in position[:3]]
    dataset.ImageOrientationPatient = [round(float(value), 10) for value in directions.T.ravel()]
    dataset.PixelSpacing = [_decimal(volume.spacing_mm[1]), _decimal(volume.spacing_mm[2])]
    dataset.SliceLocation = _decimal(position[2])


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters (DICOM PS3.5 6.2, VR DS)."""
    return f"{value:.10g}"


def _set_pixels(dataset: Dataset, volume: CTVolume, slice_index: int) -> None:
    hu = volume.hu[slice_index]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(_INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-600", "1500"
    dataset.PixelData = (hu.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
