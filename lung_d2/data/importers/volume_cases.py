"""What all importers of volumes share: finding the CT, and the regions of its slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.ct import find_series
from lung_d2.ct.headers import is_dicom, list_files, volume_suffix
from lung_d2.ct.series import CTSeries
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.registry import Request
from lung_d2.data.instances import InstanceRule, Region, annotate_volume
from lung_d2.data.labels import LabelTable, Meaning
from lung_d2.errors import SeriesChoiceError
from lung_d2.files import hash_file_stats

_DICOMDIR = "DICOMDIR"  # the index of a medium (PS3.10), which holds no image

ReadRegions = Callable[[CTVolume], Callable[[int], Sequence[Region]]]
"""Reads the annotations of a volume; the result gives the regions of a slice by its index."""


def build_volume_case(
    name: str,
    *,
    patient: str,
    series: str,
    read_ct: Callable[[], CTVolume],
    read_regions: ReadRegions,
    request: Request,
    files: Sequence[Path],
) -> Case:
    """Build the case of one annotated volume.

    Args:
        name: Its name in messages.
        patient: Hashed patient.
        series: Hashed series.
        read_ct: Reads the CT; picklable (a ``functools.partial`` of a module's function).
        read_regions: Reads the annotations; picklable.
        request: What one instance is, and the categories.
        files: All files that it reads.
    """
    return Case(
        name=name,
        patient=patient,
        series=series,
        load=partial(_load, read_ct, read_regions, request.rule),
        contiguous=True,
        fingerprint=hash_file_stats(files),
        categories=request.labels.categories,
    )


def _load(read_ct: Callable[[], CTVolume], read_regions: ReadRegions, rule: InstanceRule) -> Iterator[AnnotatedSlice]:
    volume = read_ct()
    yield from annotate_volume(volume, read_regions(volume), rule)


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
