"""DICOM SEG files: of the truth by highdicom, and tiny ones by hand, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ct.dicom_files import AXIAL, NAME, PATIENT_ID, SERIES_UID, write
from data.importers.truth import Truth
from lung_d2.categories import CATEGORIES

STUDY = {
    "StudyDate": "20200101",
    "StudyTime": "000000",
    "StudyID": "1",
    "AccessionNumber": "1",
    "ReferringPhysicianName": "",
    "PatientSex": "O",
    "Manufacturer": "m",
    "ManufacturerModelName": "m",
}
"""What highdicom wants of source images."""
ABNORMAL, TISSUE = Code("49755003", "SCT", "Morphologically Abnormal Structure"), Code("85756007", "SCT", "Tissue")
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
BINARY_CLASS, LABELMAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"


def write_truth_seg(truth: Truth, images: Sequence[Path], path: Path, kind: str) -> Path:
    """Write the categories of the truth as segments by highdicom, over its images in the order of its slices."""
    masks = np.stack([truth.mask(category) for category in CATEGORIES], axis=-1)
    pixels = {"LABELMAP": truth.label_map(), "FRACTIONAL": masks * 0.75, "BINARY": masks}[kind]
    descriptions = [
        hd.seg.SegmentDescription(one.coco_id, f"lesions {one.coco_id}", ABNORMAL, Code(*one.code), "MANUAL")
        for one in CATEGORIES
    ]
    segmentation = hd.seg.Segmentation(
        [pydicom.dcmread(image) for image in images],
        pixels,
        kind,
        descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path


def item(**tags: Any) -> Dataset:
    """Make an item of a sequence; a tag given as None is left out."""
    dataset = Dataset()
    for name, value in tags.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def make_frame(
    segment: int | None = 1,
    position: Sequence[float] | None = (0.0, 0.0, 0.0),
    image: str = "",
    frame: int | None = None,
) -> Dataset:
    """Make the functional groups of a frame; what is None or empty is left out."""
    source = item(ReferencedSOPClassUID=CT_CLASS, ReferencedSOPInstanceUID=image, ReferencedFrameNumber=frame)
    return item(
        PlanePositionSequence=None if position is None else [item(ImagePositionPatient=list(position))],
        SegmentIdentificationSequence=None if segment is None else [item(ReferencedSegmentNumber=segment)],
        DerivationImageSequence=[item(SourceImageSequence=[source])] if image else None,
    )


def make_segment(number: int, label: str = "GGO", code: Code = TISSUE) -> Dataset:
    """Make the description of a segment."""
    kind = item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)
    return item(SegmentNumber=number, SegmentLabel=label, SegmentedPropertyTypeCodeSequence=[kind])


def make_seg(
    masks: npt.NDArray[Any],
    frames: Sequence[Dataset],
    segments: Sequence[Dataset] | None = None,
    *,
    series: str = SERIES_UID,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.5, 0.75),
    **tags: Any,
) -> Dataset:
    """Make a SEG over the tiny series of ct/dicom_files.py; ``masks`` is ``(frames, rows, columns)``.

    Bool masks make it BINARY, others a LABELMAP unless a tag says so. A tag given as None is left out.
    """
    binary = masks.dtype == bool
    bits = 1 if binary else 8 * masks.itemsize
    data = np.packbits(masks.ravel(), bitorder="little").tobytes() if binary else masks.tobytes()
    values = {
        "SOPClassUID": BINARY_CLASS if binary or "SegmentationType" in tags else LABELMAP_CLASS,
        "SOPInstanceUID": generate_uid(),
        "Modality": "SEG",
        "PatientName": NAME,
        "PatientID": PATIENT_ID,
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": "1.2.3.4",
        "SegmentationType": "BINARY" if binary else "LABELMAP",
        "SegmentSequence": [make_segment(1)] if segments is None else list(segments),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": len(masks),
        "Rows": masks.shape[1],
        "Columns": masks.shape[2],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "ReferencedSeriesSequence": [item(SeriesInstanceUID=series)] if series else None,
        "SharedFunctionalGroupsSequence": [
            item(
                PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
                PixelMeasuresSequence=[item(PixelSpacing=list(spacing), SliceThickness=2.0)],
            )
        ],
        "PerFrameFunctionalGroupsSequence": list(frames),
        "PixelData": data + b"\0" * (len(data) % 2),
    }
    dataset = item(**(values | tags))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return dataset


def write_seg(folder: Path, masks: npt.NDArray[Any], frames: Sequence[Dataset], *args: Any, **options: Any) -> Path:
    """Write what :func:`make_seg` makes."""
    return write(make_seg(masks, frames, *args, **options), folder / "seg.dcm")
