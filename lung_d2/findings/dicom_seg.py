"""Lesions as DICOM Segmentation objects, by highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt

from lung_d2 import __version__
from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import OutputError
from lung_d2.files import create_folder
from lung_d2.findings.dicom_object import (
    ABNORMAL_STRUCTURE,
    ARTIFICIAL_INTELLIGENCE,
    LUNG,
    MAKER,
    NOTE,
    build_object,
    category_code,
    new_uid,
    save_object,
)
from lung_d2.findings.source_images import SourceImages, build_source_images
from lung_d2.lesions.lesion import Lesion, shared_voxels

SERIES_NUMBER = 9100
"""Base of the series numbers: a category has this plus its ``coco_id``."""


def write_segmentations(
    lesions: Sequence[Lesion],
    volume: CTVolume,
    folder: str | Path,
    *,
    per_lesion: bool = True,
    write_empty: bool = False,
    parameters: Mapping[str, str] | None = None,
    categories: Categories = CATEGORIES,
) -> list[Path]:
    """Write the lesions of each category as a BINARY segmentation over the source images.

    Each object is a series of its own, because viewers show one object of a series. Its segments never overlap: a
    lesion that shares voxels with another of its category goes to another object of the same category. Only frames with
    voxels are written. Code, colour and name of a segment are those of its :class:`~lung_d2.categories.Category`.

    Args:
        lesions: May be none.
        volume: The volume on which they were found, read from DICOM files.
        folder: Where to write ``segmentation_<category>.dcm``, and ``segmentation_<category>_2.dcm`` where lesions
            overlap; created if missing.
        per_lesion: A segment for each lesion; else one for all lesions of a category.
        write_empty: Whether to write an object for a category without lesions: one empty segment with one empty frame,
            because an object needs a frame.
        parameters: What the algorithm was run with, as ``{"weights": "sha256:..."}``.
        categories: The categories of the model.

    Returns:
        The files, by category; none if there are no lesions and no empty objects are requested.

    Raises:
        OutputError: The images cannot be referred to, see :func:`~lung_d2.findings.source_images.build_source_images`;
            they share no frame of reference; or a file cannot be written. All objects are built before the first is
            written.
    """
    if not lesions and not write_empty:
        return []
    images = build_source_images(volume)
    if not images.frame_of_reference_uid:
        raise OutputError(
            images.name,
            found="no legal FrameOfReferenceUID shared by all images",
            expected="one, in which the segmentation lies",
            remedy="give the series as the scanner or the archive exports it",
        )
    builder = _Builder(images, volume, per_lesion, parameters)
    objects = {}
    for category in categories:
        own = [lesion for lesion in lesions if lesion.category == category]
        layers = _layers(own) if per_lesion or not own else [own]
        if not layers and write_empty:
            layers = [[]]
        for number, layer in enumerate(layers, start=1):
            objects[category.name + (f"_{number}" if number > 1 else "")] = builder.build(category, layer)
    create_folder(Path(folder))
    paths = {name: Path(folder) / f"segmentation_{name}.dcm" for name in objects}
    for name, path in paths.items():
        save_object(objects[name], path)
    return list(paths.values())


def tracking_id(lesion: Lesion, volume: CTVolume) -> str:
    """Return the name of a lesion in SEG and SR; the hash distinguishes it from those of other series."""
    return f"{lesion.category.title} {lesion.number} ({MAKER} {volume.series_hash[:8]})"


def _layers(lesions: Sequence[Lesion]) -> list[list[Lesion]]:
    """Distribute lesions over layers in which none overlaps another."""
    layers: list[list[Lesion]] = []
    for lesion in lesions:
        for layer in layers:
            if not any(shared_voxels(lesion, other) for other in layer):
                layer.append(lesion)
                break
        else:
            layers.append([lesion])
    return layers


@dataclass(frozen=True, eq=False)
class _Builder:
    """What the segmentations of one volume share: the arguments of :func:`write_segmentations`."""

    images: SourceImages
    volume: CTVolume
    per_lesion: bool
    parameters: Mapping[str, str] | None

    def build(self, category: Category, lesions: Sequence[Lesion]) -> hd.seg.Segmentation:
        """Build one object of lesions that do not overlap; without lesions it has the first plane only."""
        first_alone = {} if lesions else {"plane_positions": [_first_position(self.images)]}
        return build_object(
            hd.seg.Segmentation,
            f"segmentation of {self.images.name}",
            source_images=self.images.datasets,
            pixel_array=self._draw(lesions),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=self._describe(category, lesions),
            series_number=SERIES_NUMBER + category.coco_id,
            series_description=f"{category.title} ({MAKER})",
            content_label="LUNG_LESIONS",
            content_description=NOTE,
            **first_alone,
        )

    def _draw(self, lesions: Sequence[Lesion]) -> npt.NDArray[np.unsignedinteger]:
        """Draw lesions into the planes of the images, as 1..n or all as 1; memory does not grow with their number."""
        size = self.volume.hu.shape[1:]
        if not lesions:
            return np.zeros((1, *size), np.uint8)
        planes = np.zeros((self.images.plane_count, *size), np.uint8 if len(lesions) <= 255 else np.uint16)
        for number, lesion in enumerate(lesions, start=1):
            for slice_index, window, mask in lesion.patches():
                planes[self.images.plane_index(slice_index)][window][mask] = number if self.per_lesion else 1
        return planes

    def _describe(self, category: Category, lesions: Sequence[Lesion]) -> list[hd.seg.SegmentDescription]:
        if not lesions or not self.per_lesion:
            return [_segment(category, 1, self.parameters)]
        segments = []
        for number, lesion in enumerate(lesions, start=1):
            segment = _segment(category, number, self.parameters)
            segment.SegmentLabel = f"{category.title} {lesion.number}"
            segment.SegmentDescription = f"Score {lesion.score:.3f}. {NOTE}"
            segment.TrackingID, segment.TrackingUID = tracking_id(lesion, self.volume), new_uid()
            segments.append(segment)
        return segments


def _segment(category: Category, number: int, parameters: Mapping[str, str] | None) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=MAKER,
        family=ARTIFICIAL_INTELLIGENCE,
        version=__version__,
        source=MAKER,
        parameters=dict(parameters) if parameters else None,
    )
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=category.title,
        segmented_property_category=ABNORMAL_STRUCTURE,
        segmented_property_type=category_code(category),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[LUNG],
        display_color=hd.color.CIELabColor.from_rgb(*category.color),
    )
    segment.SegmentDescription = NOTE
    return segment


def _first_position(images: SourceImages) -> hd.PlanePositionSequence:
    first = images.datasets[0]
    if "NumberOfFrames" in first:
        first = first.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    return hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, first.ImagePositionPatient)
