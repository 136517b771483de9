"""RTSTRUCT files as the tools write them: contours of masks by the convention of each, and tiny ones by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import contourpy
import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from ct.dicom_files import NAME, PATIENT_ID, SERIES_UID, write
from data.importers.dicom_seg_files import CT_CLASS, item
from data.importers.truth import Truth
from lung_d2.categories import CATEGORIES

Points = npt.NDArray[np.float64]


def centre_contours(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Draw contours through the centres of the outermost pixels, as OpenCV does for rt-utils and TotalSegmentator.

    rt-utils leaves out those of fewer than 3 points.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].astype(np.float64) for contour in contours if len(contour) > 2]


def middle_contours(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Draw contours half-way between inside and outside, as marching squares do for OHIF, Slicer and others."""
    lines = contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.5)
    return [np.asarray(line)[:-1] - 1 for line in lines]


def border_contours(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Draw contours along the borders of the pixels."""
    padded = np.pad(mask, 1)
    following: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for row, column in np.argwhere(padded):
        x, y = column - 1.0, row - 1.0
        corners = [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
        outside = (padded[row - 1, column], padded[row, column + 1], padded[row + 1, column], padded[row, column - 1])
        for k, neighbour in enumerate(outside):
            if not neighbour:
                following.setdefault(corners[k], []).append(corners[(k + 1) % 4])
    contours = []
    while following:
        start = point = next(iter(following))
        ring = []
        while True:
            ring.append(point)
            ends = following[point]
            after = ends.pop()
            if not ends:
                del following[point]
            point = after
            if point == start:
                break
        contours.append(np.array(ring))
    return contours


def make_contour(
    points_mm: npt.ArrayLike, image: str = "", kind: str = "CLOSED_PLANAR", count: int | None = None, decimals: int = 6
) -> Dataset:
    """Make a contour of LPS points ``(N, 3)``; without an image where none is given."""
    points = np.round(np.asarray(points_mm, np.float64), decimals)
    named = item(ReferencedSOPClassUID=CT_CLASS, ReferencedSOPInstanceUID=image)
    return item(
        ContourImageSequence=[named] if image else None,
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points) if count is None else count,
        ContourData=[f"{value:.{decimals}f}" for value in points.ravel()],
    )


def make_structure_set(
    rois: Mapping[tuple[int, str], Sequence[Dataset]], *, series: str = SERIES_UID, **tags: Any
) -> Dataset:
    """Make a structure set of contours by ROI number and name. A tag given as None is left out."""
    referenced = item(RTReferencedStudySequence=[item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=series)])])
    referenced.FrameOfReferenceUID = "1.2.3.4"
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3",
        "SOPInstanceUID": generate_uid(),
        "Modality": "RTSTRUCT",
        "PatientName": NAME,
        "PatientID": PATIENT_ID,
        "SeriesInstanceUID": generate_uid(),
        "StructureSetLabel": NAME,
        "ReferencedFrameOfReferenceSequence": [referenced] if series else None,
        "StructureSetROISequence": [item(ROINumber=number, ROIName=name) for number, name in rois],
        "ROIContourSequence": [
            item(ReferencedROINumber=number, ContourSequence=list(contours)) for (number, _), contours in rois.items()
        ],
    }
    dataset = item(**(values | tags))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def write_structures(folder: Path, rois: Mapping[tuple[int, str], Sequence[Dataset]], **options: Any) -> Path:
    """Write what :func:`make_structure_set` makes."""
    return write(make_structure_set(rois, **options), folder / "rt.dcm")


def write_truth_structures(truth: Truth, images: Sequence[Path], path: Path, draw: Any, decimals: int = 6) -> Path:
    """Write each category of the truth as an ROI, drawn by a function of a mask, over its images in slice order."""
    headers = [pydicom.dcmread(image, stop_before_pixels=True) for image in images]
    rois = {}
    for category in CATEGORIES:
        contours = rois.setdefault((category.coco_id, category.name), [])
        for index, (mask, header) in enumerate(zip(truth.mask(category), headers, strict=True)):
            for ring in draw(mask) if mask.any() else ():
                homogeneous = np.column_stack([ring, np.full(len(ring), index), np.ones(len(ring))])
                points = (homogeneous @ truth.affine_lps.T)[:, :3]
                contours.append(make_contour(points, header.SOPInstanceUID, decimals=decimals))
    return write(make_structure_set(rois, series=headers[0].SeriesInstanceUID), path)
