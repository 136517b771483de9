"""What all importers of volumes share: finding the CT, and the regions of its slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lung_d2.ct import find_series, load_series
from lung_d2.ct.headers import is_dicom, list_files, volume_suffix
from lung_d2.ct.series import CTSeries
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.registry import Request
from lung_d2.data.instances import InstanceRule, Region, annotate_volume
from lung_d2.data.labels import LabelTable, Meaning
from lung_d2.errors import DatasetError, SeriesChoiceError
from lung_d2.files import hash_file_stats

_DICOMDIR = "DICOMDIR"  # the index of a medium (PS3.10), which holds no image

RegionsOf = Callable[[int], Sequence[Region]]
"""Gives the regions of a slice by its index."""
Annotation = TypeVar("Annotation")


def build_volume_case(
    name: str,
    *,
    patient: str,
    series: str,
    read_ct: Callable[[], CTVolume],
    annotations: Sequence[Annotation],
    read: Callable[[Annotation, LabelTable, CTVolume], RegionsOf],
    request: Request,
    files: Sequence[Path],
) -> Case:
    """Build the case of one annotated volume.

    Args:
        name: Its name in messages.
        patient: Hashed patient.
        series: Hashed series.
        read_ct: Reads the CT; picklable (a ``functools.partial`` of a module's function).
        annotations: What annotates it; may be empty.
        read: Reads one annotation onto the grid of the CT; picklable.
        request: What one instance is, and the categories.
        files: All files that it reads.
    """
    return Case(
        name=name,
        patient=patient,
        series=series,
        load=partial(_load, read_ct, tuple(annotations), read, request.labels, request.rule),
        contiguous=True,
        fingerprint=hash_file_stats(files),
        categories=request.labels.categories,
    )


def build_series_case(
    series: CTSeries,
    annotations: Sequence[Path],
    read: Callable[[Path, LabelTable, CTVolume], RegionsOf],
    request: Request,
    *,
    folder: Path,
    name: str = "",
) -> Case:
    """Build the case of a DICOM series; see :func:`build_volume_case`.

    Args:
        series: The CT.
        annotations: The files that annotate it.
        read: Reads one of them.
        request: What is asked of any importer.
        folder: The case's folder, whose path can name the patient.
        name: Its name in messages; empty: that of the folder.
    """
    inner = folder.relative_to(request.source).as_posix()
    return build_volume_case(
        name or (folder.resolve().name if inner == "." else inner),
        patient=request.patients.patient_of(folder, request.source, series.patient_hash),
        series=series.series_hash,
        read_ct=partial(load_series, series),
        annotations=annotations,
        read=read,
        request=request,
        files=[*series.files, *annotations],
    )


def _load(
    read_ct: Callable[[], CTVolume],
    annotations: Sequence[Annotation],
    read: Callable[[Annotation, LabelTable, CTVolume], RegionsOf],
    labels: LabelTable,
    rule: InstanceRule,
) -> Iterator[AnnotatedSlice]:
    volume = read_ct()
    yield from annotate_volume(volume, join_regions([read(one, labels, volume) for one in annotations]), rule)


def check_annotated(where: Path, annotations: Sequence[Path], what: str, request: Request) -> None:
    """Raise :class:`DatasetError` if a CT has no annotation, unless the user allows it."""
    if not annotations and not request.allow_unannotated:
        raise DatasetError(
            where,
            found=f"no {what}",
            expected="one or more over each CT",
            remedy="add it, or give --allow-unannotated to take it as a case without lesions",
        )


def case_folders(root: Path, is_ct: Callable[[Path], bool], is_annotation: Callable[[Path], bool]) -> list[Path]:
    """Return the folders in ``root`` that hold CT or annotations; or ``root`` itself if it is a case.

    It is a case if such files lie directly in it, or if its folders hold either CT or annotations, but no folder both.
    """
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    ct = {path for path in folders if any(map(is_ct, path.rglob("*")))}
    marked = {path for path in folders if any(map(is_annotation, path.rglob("*")))}
    if any(is_ct(path) or is_annotation(path) for path in entries) or not ct or (marked and not ct & marked):
        return [root]
    return sorted(ct | marked)


def may_be_image(path: Path) -> bool:
    """Tell whether a path is a DICOM file that may hold an image."""
    return path.is_file() and path.name.upper() != _DICOMDIR and is_dicom(path)


def find_case_series(folder: Path) -> CTSeries:
    """Find the one CT series in a case folder, at any depth, beside the volume files that annotate it.

    Raises:
        InputError: There is none, or a header is damaged; see :func:`lung_d2.ct.scan.find_series`.
        SeriesChoiceError: There are several.
    """
    files = list_files(folder)
    others = [path for path in files if not volume_suffix(path)]
    series = find_series(others or files, str(folder))
    if len(series) != 1:
        raise SeriesChoiceError(
            folder, found=f"{len(series)} CT series", expected="one in each case", remedy="one folder for each series"
        )
    return series[0]


def regions_of_labels(
    values: npt.NDArray[np.integer[Any]], labels: Mapping[int, Meaning]
) -> Callable[[int], list[Region]]:
    """Return the regions of a label map: each value has a meaning.

    Args:
        values: ``[Z, Y, X]`` on the grid of the CT.
        labels: Meaning by value; other values are background.
    """
    return lambda index: [
        Region(meaning, values[index] == value) for value, meaning in labels.items() if value in values[index]
    ]


def regions_of_instances(values: npt.NDArray[np.integer[Any]], meaning: Meaning) -> Callable[[int], list[Region]]:
    """Return the regions of a mask of one category: 0 is outside, each other value is a lesion."""
    return lambda index: [
        Region(meaning, values[index] == value, str(value)) for value in np.unique(values[index]) if value
    ]


def meanings_of_values(values: npt.NDArray[np.integer[Any]], labels: LabelTable, where: Path) -> dict[int, Meaning]:
    """Look up what the values of a label map mean.

    Raises:
        DatasetError: Some have no meaning; it lists them.
    """
    return labels.meanings({int(value): (int(value),) for value in np.unique(values) if value}, where)


def join_regions(readers: Sequence[Callable[[int], Sequence[Region]]]) -> Callable[[int], list[Region]]:
    """Return the regions of several annotations together."""
    return lambda index: [region for reader in readers for region in reader(index)]
