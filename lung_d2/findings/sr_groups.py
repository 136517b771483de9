"""Measurement groups of a DICOM SR of template TID 1500, by highdicom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lung_d2 import __version__
from lung_d2.categories import CATEGORIES, Category
from lung_d2.findings import codes
from lung_d2.findings.dicom_object import MAKER, NOTE, new_uid
from lung_d2.findings.outlines import trace_outlines
from lung_d2.findings.source_images import SourceImages
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.measure import Measurement

Group = (
    hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.MeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, eq=False)
class SegmentReference:
    """Where a lesion has a segment of its own.

    Attributes:
        segmentation: Header of the DICOM SEG.
        number: Of the segment.
        tracking_uid: What the segment is tracked by.
    """

    segmentation: Dataset
    number: int
    tracking_uid: str


@dataclass(frozen=True, eq=False)
class GroupBuilder:
    """What all groups of one report share.

    Attributes:
        images: What the lesions were found on.
        parameters: What the algorithm was run with.
    """

    images: SourceImages
    parameters: Mapping[str, str]

    def lesion_groups(
        self, lesion: Lesion, measurement: Measurement, name: str, segment: SegmentReference | None
    ) -> list[Group]:
        """Return the two groups of a lesion, which share its tracking UID.

        Args:
            lesion: The lesion.
            measurement: Its measures.
            name: What it is tracked by.
            segment: Where it is drawn; None: its outlines on all slices are part of the group.

        Returns:
            The volumetric group (TID 1411) with the measures, and the planar group (TID 1410) with the outline of its
            largest part on its key slice, for viewers that draw outlines but no segments.
        """
        shared: dict[str, Any] = {
            "tracking_identifier": hd.sr.TrackingIdentifier(segment.tracking_uid if segment else new_uid(), name),
            "finding_category": codes.ABNORMAL_STRUCTURE,
            "finding_type": codes.category_code(lesion.category),
            "finding_sites": [_site(measurement.side)],
            "algorithm_id": self._algorithm(),
        }
        drawn: dict[str, Any]
        if segment is None:
            drawn = {"referenced_regions": self._all_regions(lesion)}
        else:
            drawn = {"referenced_segment": self._segment(segment)}
        key = next(plane for index, plane in lesion.planes() if index == lesion.key_slice_index)
        return [
            hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                **shared, **drawn, measurements=list(_measures(measurement))
            ),
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                **shared, referenced_region=self._regions(lesion, lesion.key_slice_index, key)[0]
            ),
        ]

    def summary_group(self, found: Sequence[Category], lesion_count: int) -> Group:
        """Return the group (TID 1501) that says which categories were found, and that none was, where none was."""
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(new_uid(), f"Both lungs ({MAKER})"),
            finding_sites=[_site("both")],
            algorithm_id=self._algorithm(),
            qualitative_evaluations=[
                hd.sr.QualitativeEvaluation(
                    codes.category_code(category), codes.PRESENT if category in found else codes.ABSENT
                )
                for category in CATEGORIES
            ],
        )
        lesions = f"{lesion_count} lesion{'s' if lesion_count > 1 else ''}" if lesion_count else "No lesion"
        # A text beside the codes: the template is extensible (PS3.16 TID 1501).
        group[0].ContentSequence.append(
            hd.sr.TextContentItem(codes.COMMENT, f"{lesions} found. {NOTE}.", hd.sr.RelationshipTypeValues.CONTAINS)
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

    def _segment(self, segment: SegmentReference) -> hd.sr.ReferencedSegment:
        return hd.sr.ReferencedSegment(
            sop_class_uid=segment.segmentation.SOPClassUID,
            sop_instance_uid=segment.segmentation.SOPInstanceUID,
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(self.images.datasets[0].SeriesInstanceUID),
        )

    def _all_regions(self, lesion: Lesion) -> list[hd.sr.ImageRegion]:
        return [region for index, plane in lesion.planes() for region in self._regions(lesion, index, plane)]

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
    width, depth, height = measured.extent_lps_mm
    rows: list[tuple[Code, float | None, Code, Code | None]] = [
        (codes.VOLUME, measured.volume_ml, codes.MILLILITER, None),
        (codes.LONG_AXIS, measured.long_axis_mm, codes.MILLIMETER, None),
        (codes.SHORT_AXIS, measured.short_axis_mm, codes.MILLIMETER, None),
        (codes.WIDTH, width, codes.MILLIMETER, None),  # right to left
        (codes.DEPTH, depth, codes.MILLIMETER, None),  # front to back
        (codes.HEIGHT, height, codes.MILLIMETER, None),  # foot to head
        (codes.ATTENUATION, measured.mean_hu, codes.HOUNSFIELD, codes.MEAN),
        (codes.ATTENUATION, measured.median_hu, codes.HOUNSFIELD, codes.MEDIAN),
        (codes.ATTENUATION, measured.sd_hu, codes.HOUNSFIELD, codes.STANDARD_DEVIATION),
        (codes.LUNG_SHARE, measured.lung_share_percent, codes.PERCENT, None),
        (codes.CERTAINTY, 100.0 * measured.score, codes.PERCENT, None),
    ]
    for name, value, unit, derivation in rows:
        if value is not None:
            yield hd.sr.Measurement(name, float(f"{value:.6g}"), unit, derivation=derivation)
