"""Lesions and their measures as a DICOM structured report of template TID 1500, by highdicom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lung_d2 import __version__
from lung_d2.categories import CATEGORIES, PRIVATE_SCHEME, Categories
from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import OutputError
from lung_d2.files import create_folder
from lung_d2.findings import dicom_object as codes
from lung_d2.findings.dicom_object import MAKER, NOTE, build_object, device_uid, new_uid, quiet_highdicom, save_object
from lung_d2.findings.dicom_seg import tracking_id
from lung_d2.findings.source_images import SourceImages, build_source_images
from lung_d2.lesions import measure as measures
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.measure import Measurement

FILE_NAME = "structured_report.dcm"
SERIES_NUMBER = 9100

_SEG_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("ReferencedSeriesSequence", "SegmentSequence"),
]
Group = (
    hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.MeasurementsAndQualitativeEvaluations
)
Outline = npt.NDArray[np.float64]

MAX_POINTS = 8000
"""GraphicData is FL, of which an explicit VR holds 65534 bytes (PS3.5 7.1.2): 8191 points."""


def write_structured_report(
    lesions: Sequence[Lesion],
    measurements: Sequence[Measurement],
    volume: CTVolume,
    folder: str | Path,
    segmentations: Sequence[str | Path] = (),
    *,
    parameters: Mapping[str, str] | None = None,
    categories: Categories = CATEGORIES,
) -> Path:
    """Write the lesions as a Comprehensive 3D SR of template TID 1500 (PS3.16).

    A first group (TID 1501) says for each category whether it was found. Then each lesion has a volumetric group (TID
    1411) with its measures, and a planar one (TID 1410) with its outline on its key slice. The report is complete,
    preliminary, and not verified: no person has looked at it.

    Args:
        lesions: May be none; the report then says that no lesion was found.
        measurements: One for each lesion, in any order.
        volume: The volume on which they were found, read from DICOM files.
        folder: Where to write ``structured_report.dcm``; created if missing.
        segmentations: What :func:`~lung_d2.findings.dicom_seg.write_segmentations` wrote. A lesion without a segment of
            its own is drawn in the report, by its outlines on all slices.
        parameters: What the algorithm was run with, as ``{"weights": "sha256:..."}``.
        categories: The categories of the model.

    Returns:
        The file.

    Raises:
        OutputError: The images cannot be referred to, see :func:`lung_d2.findings.source_images.build_source_images`; a
            segmentation is not of them; or the file cannot be written.
    """
    images = build_source_images(volume)
    headers = [_read_segmentation(Path(path), volume) for path in segmentations]
    segments = {
        item.TrackingID: (header, item) for header in headers for item in header.SegmentSequence if "TrackingID" in item
    }
    measured = {one.lesion_number: one for one in measurements}
    builder = GroupBuilder(images, parameters or {}, categories)
    with quiet_highdicom():
        groups = [builder.summary_group(lesions)]
        for lesion in lesions:
            name = tracking_id(lesion, volume)
            groups += builder.lesion_groups(lesion, measured[lesion.number], name, segments.get(name))
        report = _build(groups, images, headers)
    path = Path(folder) / FILE_NAME
    create_folder(path.parent)
    save_object(report, path)
    return path


def _read_segmentation(path: Path, volume: CTVolume) -> Dataset:
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_SEG_TAGS)
            series = {item.SeriesInstanceUID for item in header.ReferencedSeriesSequence}
    except READ_ERRORS:
        raise OutputError(path, found="not a readable segmentation", remedy="write it again") from None
    if series != {volume.series_instance_uid} or header.StudyInstanceUID != volume.study_instance_uid:
        raise OutputError(path, found="a segmentation of another series", remedy="give those of this series")
    return header


def _build(groups: Sequence[Group], images: SourceImages, segmentations: Sequence[Dataset]) -> hd.sr.Comprehensive3DSR:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(), name=MAKER, manufacturer_name=MAKER, model_name=MAKER, serial_number=__version__
    )
    observer = hd.sr.ObserverContext(hd.sr.CodedConcept.from_code(codes.DEVICE), device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.CT_CHEST,
        imaging_measurements=groups,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            hd.sr.CodedConcept.from_code(codes.ENGLISH)
        ),
    )
    return build_object(
        hd.sr.Comprehensive3DSR,
        f"structured report of {images.name}",
        evidence=[*images.datasets, *segmentations],
        content=content,
        series_number=SERIES_NUMBER,
        series_description=f"Lung lesions ({MAKER})",
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(PRIVATE_SCHEME, name=f"Concepts of {MAKER}", responsible_organization=MAKER)
        ],
    )


@dataclass(frozen=True, eq=False)
class GroupBuilder:
    """What all groups of one report share.

    Attributes:
        images: What the lesions were found on.
        parameters: What the algorithm was run with.
        categories: The categories of the model.
    """

    images: SourceImages
    parameters: Mapping[str, str]
    categories: Categories

    def lesion_groups(
        self, lesion: Lesion, measurement: Measurement, name: str, segment: tuple[Dataset, Dataset] | None
    ) -> list[Group]:
        """Return the two groups of a lesion, which share its tracking UID.

        Args:
            lesion: The lesion.
            measurement: Its measures.
            name: Its tracking identifier.
            segment: Header of the DICOM SEG, and its item there; None: the group holds its outlines on all slices.

        Returns:
            The volumetric group (TID 1411) with the measures, and the planar group (TID 1410) with the outline of its
            largest part on its key slice, for viewers that draw outlines but no segments.
        """
        uid = str(segment[1].TrackingUID) if segment else new_uid()
        shared: dict[str, Any] = {
            "tracking_identifier": hd.sr.TrackingIdentifier(uid, name),
            "finding_category": codes.ABNORMAL_STRUCTURE,
            "finding_type": codes.category_code(lesion.category),
            "finding_sites": [_site(measurement.side)],
            "algorithm_id": self._algorithm(),
        }
        drawn: dict[str, Any]
        if segment is None:
            regions = [region for index, plane in lesion.planes() for region in self._regions(lesion, index, plane)]
            drawn = {"referenced_regions": regions}
        else:
            drawn = {"referenced_segment": self._segment(*segment)}
        key = next(plane for index, plane in lesion.planes() if index == lesion.key_slice_index)
        return [
            hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                **shared, **drawn, measurements=list(_measures(measurement))
            ),
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                **shared, referenced_region=self._regions(lesion, lesion.key_slice_index, key)[0]
            ),
        ]

    def summary_group(self, lesions: Sequence[Lesion]) -> Group:
        """Return the group (TID 1501) that says which categories are present and which are absent."""
        found = {lesion.category for lesion in lesions}
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(new_uid(), f"Both lungs ({MAKER})"),
            finding_sites=[_site("both")],
            algorithm_id=self._algorithm(),
            qualitative_evaluations=[
                hd.sr.QualitativeEvaluation(
                    codes.category_code(category), codes.PRESENT if category in found else codes.ABSENT
                )
                for category in self.categories
            ],
        )
        count = f"{len(lesions)} lesion{'s' if len(lesions) > 1 else ''}" if lesions else "No lesion"
        # A text beside the codes: the template is extensible (PS3.16 TID 1501).
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(codes.COMMENT, f"{count} found. {NOTE}.", hd.sr.RelationshipTypeValues.CONTAINS)
        )
        return group

    def _algorithm(self) -> hd.sr.AlgorithmIdentification:
        return hd.sr.AlgorithmIdentification(
            name=MAKER,
            version=__version__,
            parameters=[f"{name}={value}" for name, value in self.parameters.items()],
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MAKER,
        )

    def _segment(self, segmentation: Dataset, item: Dataset) -> hd.sr.ReferencedSegment:
        return hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=int(item.SegmentNumber),
            source_series=hd.sr.SourceSeriesForSegmentation(self.images.datasets[0].SeriesInstanceUID),
        )

    def _regions(self, lesion: Lesion, slice_index: int, plane: npt.NDArray[np.bool_]) -> list[hd.sr.ImageRegion]:
        image, frame = self.images.image_of(slice_index), self.images.frame_numbers[slice_index]
        source = hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, [frame] if frame else None)
        _, top, left = lesion.offset_zyx
        return [
            hd.sr.ImageRegion(hd.sr.GraphicTypeValues.POLYLINE, outline + np.array([left, top]), source)
            for outline in trace_outlines(plane)
        ]


def _site(side: str | None) -> hd.sr.FindingSite:
    return hd.sr.FindingSite(codes.LUNG, laterality=codes.LATERALITY[side] if side else None)


def _measures(measured: Measurement) -> Iterable[hd.sr.Measurement]:
    """Yield the measures that have a code (TID 300), in the order of their table."""
    for measure in measures.MEASURES:
        value = measured.values[measure.name]
        numbers = value if isinstance(value, tuple) else (value,) * len(measure.coded)
        for coded, number in zip(measure.coded, numbers, strict=False):
            if number is not None:
                derivation = None if coded.derivation is None else Code(*coded.derivation)
                shown = float(f"{coded.factor * number:.6g}")
                yield hd.sr.Measurement(Code(*coded.concept), shown, Code(*coded.unit), derivation=derivation)


def trace_outlines(mask: npt.NDArray[np.bool_]) -> list[Outline]:
    """Return the outer outline of each connected part of a mask, largest part first.

    It runs along the edges of pixels, and cuts inner corners by half a pixel at most: the pixels whose centre it
    surrounds are those of the part and of its holes, which have no outline.

    Args:
        mask: bool ``[y, x]``.

    Returns:
        float64 ``(N, 2)`` each, x and y in pixels, the first point repeated at the end; (0, 0) is the upper left corner
        of the first pixel, (0.5, 0.5) its centre (PS3.3 C.18.6.1.1).
    """
    height, width = mask.shape
    # Corners, edges and centres of pixels, at half a pixel: a pixel is a block of 3 x 3 that shares its rim.
    grid = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    for row in range(3):
        for column in range(3):
            grid[row : row + 2 * height : 2, column : column + 2 * width : 2] |= mask
    contours, _ = cv2.findContours(grid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest_first = sorted(contours, key=cv2.contourArea, reverse=True)
    return [_to_pixels(np.asarray(contour, np.int32)) for contour in largest_first]


def _to_pixels(contour: npt.NDArray[np.integer]) -> Outline:
    """Close a contour of the grid, ``(N, 1, 2)``; if it has too many points, drop some, for half a pixel or more."""
    tolerance = 1.0
    while len(contour) >= MAX_POINTS:
        contour = np.asarray(cv2.approxPolyDP(contour, tolerance, True), np.int32)
        tolerance *= 2
    points = contour[:, 0].astype(np.float64) / 2
    return np.concatenate([points, points[:1]])
