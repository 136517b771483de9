"""DICOM trees: which CT series they hold, and which annotation objects lie over each.

Files may have any name and lie at any depth, an object beside its series or apart from it. It goes to the CT series
that it names; one that names none, to the series that holds the images it names; else to the only one in its frame of
reference. Several objects over one series are joined.
"""

from __future__ import annotations

import filecmp
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from tqdm import tqdm

from lung_d2.ct.headers import Header, list_files, read_header, show_uid, text_of
from lung_d2.ct.series import build_series, foreign_kind, is_side_image
from lung_d2.data.cases import Case
from lung_d2.data.importers.dicom_objects import REMEDY, AnnotationKind, follow, read_tags, refuse_damage, show_uid_name
from lung_d2.data.importers.registry import Request, check_folder
from lung_d2.data.importers.volumes import ReadRegions, build_volume_case, read_series_files
from lung_d2.errors import DatasetError, InputError
from lung_d2.files import hash_identity

logger = logging.getLogger(__name__)

_STUDY = ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence")
_SERIES_PATHS = (
    ("ReferencedSeriesSequence",),
    ("StudiesContainingOtherReferencedInstancesSequence", "ReferencedSeriesSequence"),
    _STUDY,
)
"""Where annotation objects name series: SEG (PS3.3 C.12.4), RTSTRUCT (C.8.8.5)."""
_IMAGE_PATHS = (
    *((*path, name) for path in _SERIES_PATHS for name in ("ReferencedInstanceSequence", "ContourImageSequence")),
    ("SharedFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
    ("ROIContourSequence", "ContourSequence", "ContourImageSequence"),
)
"""Where they name images."""


@dataclass(frozen=True)
class AnnotatedSeries:
    """A CT series and the objects that annotate it.

    Attributes:
        series_instance_uid: May be empty.
        patient_hash: 16 hexadecimal digits that stand for the patient.
        series_hash: 16 hexadecimal digits that stand for the series.
        files: Its images.
        annotations: The objects over it; none where it is taken as free of lesions.
    """

    series_instance_uid: str
    patient_hash: str
    series_hash: str
    files: tuple[Path, ...] = field(repr=False)
    annotations: tuple[Path, ...] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The folder that holds all its images."""
        return Path(os.path.commonpath([path.parent for path in self.files]))

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"series {show_uid(self.series_instance_uid)} in {self.folder}"


@dataclass(eq=False)
class _Images:
    """The images of a series, as they are found."""

    series_instance_uid: str
    patient_hash: str
    series_hash: str
    files: list[Path] = field(default_factory=list)
    sop_instance_uids: set[str] = field(default_factory=set)
    frames_of_reference: set[str] = field(default_factory=set)
    annotations: list[Path] = field(default_factory=list)
    side_images_only: bool = True

    def freeze(self) -> AnnotatedSeries:
        """Return what is kept of it."""
        return AnnotatedSeries(
            self.series_instance_uid, self.patient_hash, self.series_hash, tuple(self.files), tuple(self.annotations)
        )


def find_annotated_series(
    source: Path, kind: AnnotationKind, *, allow_unannotated: bool = False
) -> list[AnnotatedSeries]:
    """Find the CT series of a tree and the annotation objects of one kind over them.

    Args:
        source: The folder.
        kind: What counts as annotation.
        allow_unannotated: Take a series without annotation as one without lesions.

    Returns:
        The series, sorted by folder and UID. Of the headers only paths, UIDs and hashes are kept.

    Raises:
        DatasetError: There is no CT series; one has no annotation and may not be without; or an annotation is of a
            series that is not there, or cannot be told of which.
        InputError: A file is damaged.
    """
    check_folder(source, f"CT series and {kind.modality}")
    groups, objects, others = _scan(source, kind)
    if not groups:
        raise DatasetError(
            source, found="no CT series", expected=f"CT series and {kind.modality} over them", remedy="check the folder"
        )
    for path in sorted(_drop_copies(objects)):
        _series_of(path, groups).annotations.append(path)
    found = sorted((group.freeze() for group in groups), key=lambda one: (one.folder, one.series_instance_uid))
    bare = [one for one in found if not one.annotations]
    if bare and not allow_unannotated:
        there = ", ".join(f"{count} {name}" for name, count in sorted(others.items())) or "nothing else"
        raise DatasetError(
            bare[0].name,
            found=f"no {kind.modality} over it, as {len(bare)} of {len(found)} CT series",
            expected=f"one or more (beside CT and {kind.modality} there is {there})",
            remedy="add it, remove the series, or give --allow-unannotated to take it as one without lesions",
        )
    return found


def build_cases(
    found: Iterable[AnnotatedSeries], request: Request, read_regions: Callable[[tuple[Path, ...]], ReadRegions]
) -> list[Case]:
    """Build the case of each annotated series.

    Args:
        found: The series.
        request: What is asked of any importer.
        read_regions: Gives the reader of some annotation files, which must be picklable.
    """
    return [
        build_volume_case(
            one.name,
            patient=request.patients.patient_of(one.folder, request.source, one.patient_hash),
            series=one.series_hash,
            read_ct=partial(read_series_files, one.files, one.series_instance_uid),
            read_regions=read_regions(one.annotations),
            rule=request.rule,
            files=[*one.files, *one.annotations],
        )
        for one in found
    ]


def _scan(source: Path, kind: AnnotationKind) -> tuple[list[_Images], list[tuple[str, Path]], Counter[str]]:
    """Sort the files of a tree into CT images, annotation objects with their UIDs, and a count of the others."""
    groups: dict[tuple[str, str, str], _Images] = {}
    objects: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    for path in tqdm(list_files(source), desc="scan", unit="file", delay=2, leave=False):
        header = read_header(path)
        if header is None:
            continue
        with refuse_damage(path):
            if _is_annotation(header, kind):
                objects.append((text_of(header.dataset, "SOPInstanceUID"), path))
            elif foreign := foreign_kind(header):
                others[foreign] += 1
            else:
                _add_image(header, groups)
    images = [group for group in groups.values() if not group.side_images_only]
    return images or list(groups.values()), objects, others


def _is_annotation(header: Header, kind: AnnotationKind) -> bool:
    sop_class = text_of(header.dataset, "SOPClassUID")
    if sop_class in kind.classes:
        return True
    if text_of(header.dataset, "Modality").upper() != kind.modality:
        return False
    raise InputError(
        header.path,
        found=f"{kind.modality} of class {show_uid_name(sop_class)}",
        expected=" or ".join(kind.classes.values()),
        remedy=REMEDY,
    )


def _add_image(header: Header, groups: dict[tuple[str, str, str], _Images]) -> None:
    one = build_series([header])
    key = (one.series_instance_uid, one.study_instance_uid, hash_identity("patient", header.patient_key))
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Images(one.series_instance_uid, one.patient_hash, one.series_hash)
    group.files.append(header.path)
    group.sop_instance_uids.add(text_of(header.dataset, "SOPInstanceUID"))
    group.frames_of_reference.add(text_of(header.dataset, "FrameOfReferenceUID"))
    group.side_images_only &= is_side_image(header)


def _drop_copies(objects: Iterable[tuple[str, Path]]) -> list[Path]:
    """Leave out files that hold the same bytes as another: the annotation would only be read twice."""
    kept: dict[str, list[Path]] = {}
    for uid, path in objects:
        alike = kept.setdefault(uid, [])
        twin = next((other for other in alike if filecmp.cmp(path, other, shallow=False)), None)
        if twin is None:
            alike.append(path)
        else:
            logger.warning("%s: left out, a copy of %s", path, twin)
    return [path for alike in kept.values() for path in alike]


def _series_of(path: Path, groups: Sequence[_Images]) -> _Images:
    """Return the series that an annotation object is of."""
    dataset = read_tags(path, ["FrameOfReferenceUID", *{steps[0] for steps in _SERIES_PATHS + _IMAGE_PATHS}])
    with refuse_damage(path):
        fitting = _named_series(path, dataset, groups)
        frames = {text_of(item, "FrameOfReferenceUID") for item in [dataset, *follow(dataset, _STUDY[0])]} - {""}
        if len(fitting) != 1 or not _uids(dataset, _SERIES_PATHS, "SeriesInstanceUID"):
            fitting = _series_by_images(path, dataset, frames, fitting)
    if len(fitting) != 1:
        uids = ", ".join(sorted(show_uid(group.series_instance_uid) for group in fitting))
        raise DatasetError(
            path,
            found=f"references that fit {len(fitting)} CT series: {uids}",
            expected="one",
            remedy="give each object with its own series in a folder of its own",
        )
    known = fitting[0].frames_of_reference
    if frames and known - {""} and not frames & known:
        logger.warning("%s: another FrameOfReferenceUID than that of the series it names", path)
    return fitting[0]


def _uids(dataset: Dataset, paths: Iterable[Sequence[str]], keyword: str) -> set[str]:
    return {text_of(item, keyword) for steps in paths for item in follow(dataset, *steps)} - {""}


def _named_series(path: Path, dataset: Dataset, groups: Sequence[_Images]) -> list[_Images]:
    """Return the series that an object names; all where it names none."""
    named = _uids(dataset, _SERIES_PATHS, "SeriesInstanceUID")
    fitting = [group for group in groups if not named or group.series_instance_uid in named]
    if not fitting:
        raise _not_here(path, "series", named)
    return fitting


def _series_by_images(path: Path, dataset: Dataset, frames: set[str], groups: Sequence[_Images]) -> list[_Images]:
    """Choose among series by the images that an object names, else by its frame of reference."""
    images = _uids(dataset, _IMAGE_PATHS, "ReferencedSOPInstanceUID")
    if images:
        fitting = [group for group in groups if not images.isdisjoint(group.sop_instance_uids)]
    else:
        fitting = [group for group in groups if frames & group.frames_of_reference]
    if not fitting:
        raise _not_here(path, "image" if images else "frame of reference", images or frames)
    return fitting


def _not_here(path: Path, what: str, uids: set[str]) -> DatasetError:
    first = show_uid(min(uids)) if uids else ""
    more = f" (and {len(uids) - 1} more)" if len(uids) > 1 else ""
    return DatasetError(
        path,
        found=f"an annotation of {what} {first}{more}, not here" if uids else f"it names no series, image or {what}",
        expected="its CT series in the same folder tree",
        remedy="add the series, or remove this file",
    )
