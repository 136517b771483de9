"""Write a phantom as a DICOM series with its masks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lung_d2.phantom.patient import PhantomPatient
from lung_d2.phantom.spec import PhantomSpec
from lung_d2.phantom.uids import phantom_uid, spec_hash

CT_FOLDER, MASK_FOLDER, RECORD_NAME = "ct", "masks", "phantom.json"
_INTERCEPT = -1024
_DATE, _TIME = "20000101", "120000"


def write_patient(patient: PhantomPatient, folder: str | Path, spec: PhantomSpec) -> None:
    """Write a patient: ``ct/*.dcm``, ``masks/<category>.nii.gz`` and ``phantom.json``, which lists the lesions.

    The values of a mask are the instances: 0 background, 1..n a lesion.

    Args:
        patient: The patient.
        folder: Where to write; made where it is missing.
        spec: The cohort it was built from.
    """
    # Here, because nibabel is slow to load and who only builds a patient does not need it.
    from lung_d2.ct.nifti import write_nifti

    folder = Path(folder)
    for name in (CT_FOLDER, MASK_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(len(patient.volume.hu)):
        dataset = ct_dataset(patient, index, spec)
        dataset.save_as(folder / CT_FOLDER / f"{index:04d}.dcm", enforce_file_format=True)
    for name, instances in patient.instances.items():
        write_nifti(instances, patient.volume.affine_lps, folder / MASK_FOLDER / f"{name}.nii.gz")
    record = {
        "spec_hash": spec_hash(spec),
        "number": patient.number,
        "kernel": patient.kernel.name,
        "lesions": [asdict(lesion) for lesion in patient.lesions],
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def ct_dataset(patient: PhantomPatient, slice_index: int, spec: PhantomSpec) -> Dataset:
    """Return one slice as CT Image Storage with all attributes of type 1 and 2 (DICOM PS3.3 A.3).

    Args:
        patient: The patient.
        slice_index: 0-based from the lowest slice.
        spec: The cohort.

    Returns:
        The dataset with its file meta information, explicit VR little endian.
    """
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = patient.volume.sop_instance_uids[slice_index]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    _set_identity(dataset, patient, spec)
    _set_plane(dataset, patient, slice_index)
    _set_pixels(dataset, patient.volume.hu[slice_index])
    return dataset


def _set_identity(dataset: Dataset, patient: PhantomPatient, spec: PhantomSpec) -> None:
    dataset.PatientName = f"PHANTOM^{patient.number:03d}"
    dataset.PatientID = f"PHANTOM-{patient.number:03d}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyInstanceUID = patient.volume.study_instance_uid
    dataset.StudyDate, dataset.StudyTime = _DATE, _TIME
    dataset.ReferringPhysicianName = ""
    dataset.StudyID, dataset.AccessionNumber = str(patient.number), ""
    dataset.StudyDescription = "Synthetic chest CT"
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = patient.volume.series_instance_uid
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "Phantom, no patient"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFP" if patient.prone else "HFS"
    dataset.FrameOfReferenceUID = phantom_uid(spec, patient.number, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "lung_d2 phantom"
    dataset.ManufacturerModelName = "phantom"


def _set_plane(dataset: Dataset, patient: PhantomPatient, slice_index: int) -> None:
    volume = patient.volume
    affine = volume.affine_lps
    position = affine @ np.array([0.0, 0.0, slice_index, 1.0])
    sign = float(np.sign(affine[0, 0]))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = slice_index + 1
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.AcquisitionTime = dataset.ContentTime = _TIME
    dataset.ImagePositionPatient = [_decimal(value) for value in position[:3]]
    dataset.ImageOrientationPatient = [sign, 0.0, 0.0, 0.0, sign, 0.0]
    dataset.PixelSpacing = [_decimal(volume.spacing_mm[1]), _decimal(volume.spacing_mm[2])]
    dataset.SliceThickness = _decimal(patient.slice_thickness_mm)
    dataset.SliceLocation = _decimal(position[2])
    dataset.KVP = "120"
    dataset.ConvolutionKernel = patient.kernel.name


def _decimal(value: float) -> str:
    """Return a decimal string of at most 16 characters (DICOM PS3.5 6.2, VR DS)."""
    return f"{value:.10g}"


def _set_pixels(dataset: Dataset, hu: np.ndarray) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(_INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-600", "1500"
    dataset.PixelData = (hu.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
