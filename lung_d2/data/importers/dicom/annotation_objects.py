"""DICOM annotation objects: which CT series each belongs to, and what their readers share.

Files may have any name and lie at any depth, an object beside its series or elsewhere. It belongs to the CT series that
it names; if it names none, to the series of the images that it names; else to the only series in its frame of
reference. Several objects over one series are joined.
"""

from __future__ import annotations

import filecmp
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, UID_dictionary

from lung_d2.ct.headers import READ_ERRORS, list_files, quiet_pydicom, show_uid, text_of
from lung_d2.ct.scan import DicomObject, scan_files
from lung_d2.ct.series import CTSeries
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import Case
from lung_d2.data.importers.registry import Request, check_folder
from lung_d2.data.importers.volume_cases import RegionsOf, build_series_case
from lung_d2.data.labels import LabelTable
from lung_d2.errors import DatasetError, InputError

REMEDY = "copy or export the file again, or remove it"
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
class AnnotationKind:
    """A kind of annotation object.

    Attributes:
        modality: Modality of its files, also for messages.
        classes: Names of the SOP classes that can be read, by their UIDs.
    """

    modality: str
    classes: Mapping[str, str]


class ImageReference(NamedTuple):
    """An image that an annotation names.

    Attributes:
        sop_instance_uid: Of its file.
        frame_number: 1-based; None: any frame of the file.
    """

    sop_instance_uid: str
    frame_number: int | None = None


@contextmanager
def refuse_damage(path: Path) -> Iterator[None]:
    """Turn pydicom's errors about damaged files into our own, and silence its warnings, which quote values of the file.

    Raises:
        InputError: The file is damaged, or not what it should be.
    """
    try:
        with quiet_pydicom():
            yield
    except DatasetError:
        raise
    except InputError as error:  # of the CT's reader, whose remedy would be another CT
        raise type(error)(error.where, found=error.found, expected=error.expected, remedy=REMEDY) from error
    except READ_ERRORS as error:
        raise InputError(path, found="damaged DICOM", expected="a whole file", remedy=REMEDY) from error


def read_tags(path: Path, keywords: Sequence[str]) -> Dataset:
    """Read some tags of a DICOM file, none of which may identify the patient.

    Raises:
        InputError: The file is damaged or cannot be opened.
    """
    with refuse_damage(path):
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))


def follow(item: Dataset, *keywords: str) -> list[Dataset]:
    """Return the items of a sequence, of a sequence in those, and so on; missing sequences are empty."""
    items = [item]
    for keyword in keywords:
        items = [inner for outer in items for inner in outer.get(keyword) or ()]
    return items


def show_uid_name(uid: str) -> str:
    """Return the name of a UID of the standard for a message; a damaged file may hold any text."""
    return UID(uid).name if uid in UID_dictionary else "unknown"


def read_references(items: Sequence[Dataset]) -> tuple[ImageReference, ...]:
    """Read the images, or frames of images, that items name.

    Raises:
        ValueError: A frame number is malformed.
    """
    found = []
    for item in items:
        uid = text_of(item, "ReferencedSOPInstanceUID")
        frames = [int(text) for text in text_of(item, "ReferencedFrameNumber").split("\\") if text]
        if uid:
            found += [ImageReference(uid, frame) for frame in frames] or [ImageReference(uid)]
    return tuple(found)


@dataclass(frozen=True)
class AnnotatedSeries:
    """A CT series and the objects that annotate it.

    Attributes:
        series: The CT series.
        annotations: The objects over it; empty if it is taken as free of lesions.
    """

    series: CTSeries
    annotations: tuple[Path, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"series {show_uid(self.series.series_instance_uid)} in {self.series.folder}"


def find_annotated_series(
    source: Path, kind: AnnotationKind, *, allow_unannotated: bool = False
) -> list[AnnotatedSeries]:
    """Find the CT series of a tree and the annotation objects of one kind over them.

    Args:
        source: The folder.
        kind: What counts as annotation.
        allow_unannotated: Take a series without annotation as one without lesions.

    Returns:
        The series, sorted by folder and UID.

    Raises:
        DatasetError: There is no CT series, or one lacks its annotation; or the series of an annotation is missing or
            ambiguous.
        InputError: A file is damaged.
    """
    check_folder(source, f"CT series and {kind.modality}")
    scan = scan_files(list_files(source))
    if scan.unreadable:
        raise scan.unreadable[0]
    objects = [(one.sop_instance_uid, one.path) for one in scan.objects if _is_annotation(one, kind)]
    if not scan.series:
        raise DatasetError(
            source, found="no CT series", expected=f"CT series and {kind.modality} over them", remedy="check the folder"
        )
    annotations: dict[int, list[Path]] = {id(one): [] for one in scan.series}
    for path in sorted(_drop_copies(objects)):
        annotations[id(_series_of(path, scan.series))].append(path)
    found = [AnnotatedSeries(one, tuple(annotations[id(one)])) for one in scan.series]
    found.sort(key=lambda one: (one.series.folder, one.series.series_instance_uid))
    unannotated = [one for one in found if not one.annotations]
    if unannotated and not allow_unannotated:
        others = Counter(one.kind for one in scan.objects if not _is_annotation(one, kind))
        there = ", ".join(f"{count} {name}" for name, count in sorted(others.items())) or "nothing else"
        raise DatasetError(
            unannotated[0].name,
            found=f"no {kind.modality} over it, as {len(unannotated)} of {len(found)} CT series",
            expected=f"one or more (beside CT and {kind.modality} there is {there})",
            remedy="add it, remove the series, or give --allow-unannotated to take it as one without lesions",
        )
    return found


def find_annotated_cases(
    request: Request,
    kind: AnnotationKind,
    names_of: Callable[[Path, LabelTable], Mapping[int, tuple[str, ...]]],
    read: Callable[[Path, LabelTable, CTVolume], RegionsOf],
) -> list[Case]:
    """Find the annotated series, check that all labels have a meaning, and build the cases.

    Args:
        request: What is asked of any importer.
        kind: What counts as annotation.
        names_of: Returns what each label of an annotation file is called.
        read: Reads an annotation file onto the grid of its CT; picklable.

    Raises:
        DatasetError: Labels have no meaning; or see :func:`find_annotated_series`.
        InputError: A file is damaged.
    """
    found = find_annotated_series(request.source, kind, allow_unannotated=request.allow_unannotated)
    files = [path for one in found for path in one.annotations]
    named = {(path, key): names for path in files for key, names in names_of(path, request.labels).items()}
    request.labels.meanings(named, files[0] if len(files) == 1 else request.source)
    return [
        build_series_case(one.series, one.annotations, read, request, folder=one.series.folder, name=one.name)
        for one in found
    ]


def _is_annotation(one: DicomObject, kind: AnnotationKind) -> bool:
    if one.sop_class_uid in kind.classes:
        if not one.sop_instance_uid:
            raise InputError(one.path, found="damaged DICOM: no SOPInstanceUID", expected="a whole file", remedy=REMEDY)
        return True
    if one.modality != kind.modality:
        return False
    raise InputError(
        one.path,
        found=f"{kind.modality} of class {show_uid_name(one.sop_class_uid)}",
        expected=" or ".join(kind.classes.values()),
        remedy=REMEDY,
    )


def _drop_copies(objects: Iterable[tuple[str, Path]]) -> list[Path]:
    """Leave out copies of other files: an annotation would be read twice."""
    kept: dict[str, list[Path]] = {}
    for uid, path in objects:
        alike = kept.setdefault(uid, [])
        twin = next((other for other in alike if filecmp.cmp(path, other, shallow=False)), None)
        if twin is None:
            alike.append(path)
        else:
            logger.warning("%s: left out, a copy of %s", path, twin)
    return [path for alike in kept.values() for path in alike]


def _series_of(path: Path, groups: Sequence[CTSeries]) -> CTSeries:
    """Return the series that an annotation object belongs to."""
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


def _named_series(path: Path, dataset: Dataset, groups: Sequence[CTSeries]) -> list[CTSeries]:
    """Return the series that an object names; all of them if it names none."""
    named = _uids(dataset, _SERIES_PATHS, "SeriesInstanceUID")
    fitting = [group for group in groups if not named or group.series_instance_uid in named]
    if not fitting:
        raise _not_here(path, "series", named)
    return fitting


def _series_by_images(path: Path, dataset: Dataset, frames: set[str], groups: Sequence[CTSeries]) -> list[CTSeries]:
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
