"""Lesions and their measures as a DICOM structured report, by highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom as hd
import pydicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset

from lung_d2 import __version__
from lung_d2.categories import CATEGORIES
from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import OutputError
from lung_d2.files import create_folder
from lung_d2.findings import codes
from lung_d2.findings.dicom_object import MAKER, build_object, device_uid, quiet_highdicom, save_object
from lung_d2.findings.dicom_seg import tracking_id
from lung_d2.findings.source_images import SourceImages, read_source_images
from lung_d2.findings.sr_groups import Group, GroupBuilder, SegmentReference
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.measure import Measurement

FILE_NAME = "structured_report.dcm"
SERIES_NUMBER = 9100

_SEG_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("ReferencedSeriesSequence", "SegmentSequence"),
]


def write_structured_report(
    lesions: Sequence[Lesion],
    measurements: Sequence[Measurement],
    volume: CTVolume,
    folder: str | Path,
    segmentations: Sequence[str | Path] = (),
    *,
    parameters: Mapping[str, str] | None = None,
) -> Path:
    """Write the lesions as a Comprehensive 3D SR of template TID 1500 (PS3.16).

    A first group (TID 1501) says for each category whether it was found. Then each lesion has a volumetric group (TID
    1411) with its measures, and a planar one (TID 1410) with its outline on its key slice. The report is complete,
    preliminary, and not verified: no person has looked at it.

    Args:
        lesions: May be none; the report then says that no lesion was found.
        measurements: One for each lesion, in any order.
        volume: The volume on which they were found, read from DICOM files that are still there.
        folder: Where to write ``structured_report.dcm``; made where it is missing.
        segmentations: What :func:`~lung_d2.findings.dicom_seg.write_segmentations` wrote. A lesion without a segment of
            its own is drawn in the report, by its outlines on all slices.
        parameters: What the algorithm was run with, as ``{"weights": "sha256:..."}``.

    Returns:
        The file.

    Raises:
        OutputError: The images cannot be referred to, see :func:`lung_d2.findings.source_images.read_source_images`; a
            segmentation is not of them; or the file cannot be written.
    """
    images = read_source_images(volume)
    headers = [_read_segmentation(Path(path), volume) for path in segmentations]
    segments = {item.TrackingID: _refer(header, item) for header in headers for item in _tracked(header)}
    measured = {one.lesion_number: one for one in measurements}
    builder = GroupBuilder(images, parameters or {})
    found = [category for category in CATEGORIES if any(lesion.category == category for lesion in lesions)]
    with quiet_highdicom():
        groups = [builder.summary_group(found, len(lesions))]
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
        raise OutputError(path, found="no readable segmentation", remedy="write it again") from None
    if series != {volume.series_instance_uid} or header.StudyInstanceUID != volume.study_instance_uid:
        raise OutputError(path, found="a segmentation of another series", remedy="give those of the same series")
    return header


def _tracked(segmentation: Dataset) -> list[Dataset]:
    return [item for item in segmentation.SegmentSequence if "TrackingID" in item]


def _refer(segmentation: Dataset, item: Dataset) -> SegmentReference:
    return SegmentReference(segmentation, int(item.SegmentNumber), str(item.TrackingUID))


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
            CodingSchemeIdentificationItem(
                codes.OWN_SCHEME, name=f"Concepts of {MAKER}", responsible_organization=MAKER
            )
        ],
    )
