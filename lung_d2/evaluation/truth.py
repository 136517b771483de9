"""What is there to be found: the slices, lesions and undecided regions of one or more prepared data sets."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Place = tuple[int, int]
"""The number of a slice in :attr:`Truth.slices`, and of a category in :data:`lung_d2.categories.CATEGORIES`."""


@dataclass(frozen=True)
class Source:
    """A prepared data set on disk.

    Attributes:
        name: As it is registered, e.g. ``covid_slices_val``.
        json_file: Its COCO JSON, see :mod:`lung_d2.data.dataset`.
        image_root: The folder that its file names are in.
    """

    name: str
    json_file: Path
    image_root: Path


@dataclass(frozen=True)
class SliceRecord:
    """A slice of a data set.

    Attributes:
        dataset: Name of the data set.
        image_id: Its id there.
        file_name: Below ``image_root``.
        path: The picture.
        shape: Rows and columns.
        patient: Hash.
        series: Hash.
        slice_index: 0-based along the normal.
        pixel_spacing_mm: Of rows and columns; None where unknown.
        slice_position_mm: Along the normal; None where unknown.
    """

    dataset: str
    image_id: int
    file_name: str
    path: Path
    shape: tuple[int, int]
    patient: str
    series: str
    slice_index: int
    pixel_spacing_mm: tuple[float, float] | None
    slice_position_mm: float | None


@dataclass(frozen=True, eq=False)
class Region:
    """An annotated region.

    Attributes:
        mask: Compressed COCO RLE.
        box: x, y, width, height in pixels.
        area: Pixels.
    """

    mask: dict[str, Any]
    box: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True, eq=False)
class Truth:
    """The annotated slices that results are measured on.

    Attributes:
        sources: The data sets, in order.
        slices: By data set, then by image id; everywhere in this room a slice is known by its number here.
        lesions: Of each slice and category that has any.
        undecided: The same of regions that are neither lesion nor background (``iscrowd``).
    """

    sources: tuple[Source, ...]
    slices: tuple[SliceRecord, ...]
    lesions: Mapping[Place, Sequence[Region]]
    undecided: Mapping[Place, Sequence[Region]]

    @functools.cached_property
    def patients(self) -> tuple[str, ...]:
        """The patients, in the order of their first slice."""
        return tuple(dict.fromkeys(one.patient for one in self.slices))

    @functools.cached_property
    def series(self) -> tuple[str, ...]:
        """The series, in the order of their first slice; those of two patients are two, be their names the same."""
        return tuple(name for _, name in self._patient_series)

    @functools.cached_property
    def _patient_series(self) -> tuple[tuple[str, str], ...]:
        return tuple(dict.fromkeys((one.patient, one.series) for one in self.slices))

    @functools.cached_property
    def patient_of_slice(self) -> Ints:
        """int64 ``(slices,)``: the number of each slice's patient."""
        return _number([one.patient for one in self.slices], self.patients)

    @functools.cached_property
    def series_of_slice(self) -> Ints:
        """int64 ``(slices,)``: the number of each slice's series."""
        return _number([(one.patient, one.series) for one in self.slices], self._patient_series)

    @functools.cached_property
    def patient_of_series(self) -> Ints:
        """int64 ``(series,)``: the number of each series' patient."""
        found = dict(zip(self.series_of_slice.tolist(), self.patient_of_slice.tolist(), strict=True))
        return np.array([found[number] for number in range(len(self.series))], np.int64)

    def count_patients(self, slices: Sequence[int] | Ints) -> int:
        """Return how many patients these slices are of."""
        return len(np.unique(self.patient_of_slice[np.asarray(slices, np.int64)]))

    def patients_with_lesions(self, category: int | None = None) -> int:
        """Return how many patients have a lesion of this category, by number; None: of any."""
        return self.count_patients([place[0] for place in self.lesions if category in (None, place[1])])


def _number(values: Sequence[Hashable], known: Sequence[Hashable]) -> Ints:
    number_of = {value: number for number, value in enumerate(known)}
    return np.array([number_of[value] for value in values], np.int64)
