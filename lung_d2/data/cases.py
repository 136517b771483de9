"""What every importer yields: cases of annotated slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.masks import Mask


@dataclass(frozen=True, eq=False)
class AnnotatedSlice:
    """One slice and its lesions.

    Attributes:
        plane: ``(H, W)``, int16 in HU, or uint8 grey where the source has no HU.
        instances: Category and bool ``(H, W)`` mask of each lesion.
        slice_index: 0-based, along the normal where the source has one.
        pixel_spacing_mm: Row and column spacing, or None where unknown.
        slice_position_mm: Position along the normal, or None where unknown.
        undecided: bool ``(H, W)``, where the source does not say whether there is a lesion; None: nowhere.
        lungs: bool ``(H, W)``, the lung field; None where it is unknown.
        specks: Parts of masks that were left out as too small.
        name: What messages call it, as its file; empty where it goes by its case and index.
    """

    plane: npt.NDArray[np.generic]
    instances: tuple[tuple[Category, Mask], ...]
    slice_index: int
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_position_mm: float | None = None
    undecided: Mask | None = None
    lungs: Mask | None = None
    specks: int = 0
    name: str = ""


@dataclass(frozen=True)
class Case:
    """One series or slice folder of one patient.

    Attributes:
        name: What error messages and the progress call it.
        patient: Hashed or anonymous id; the splits go by it.
        series: Hashed or anonymous id, fit for a folder name.
        load: Reads the slices, in order; picklable, so that worker processes can.
        contiguous: Whether neighbouring slices of the list are neighbours in the body.
        fingerprint: :func:`~lung_d2.files.hash_file_stats` of the files that it reads: a case whose files have changed
            is imported again.
        split: What the source itself says, where the user asks for that; empty: nothing.
        categories: What its lesions can be; those of a data set are the union over its cases.
    """

    name: str
    patient: str
    series: str
    load: Callable[[], Iterable[AnnotatedSlice]]
    contiguous: bool
    fingerprint: str = ""
    split: str = ""
    categories: Categories = CATEGORIES
