"""What all importers of pictures share: from pictures and their annotations to cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.picture_files import Spacing, is_dicom_slice
from lung_d2.data.importers.registry import Request, name_below
from lung_d2.data.instances import InstanceRule, Region, annotate_slice
from lung_d2.errors import DatasetError
from lung_d2.files import hash_file_stats, hash_identity
from lung_d2.masks import Mask


@dataclass(frozen=True)
class Drawing:
    """A picture and where its annotations are.

    Attributes:
        picture: 8-bit picture, DICOM file of one slice, or what the importer's own reader takes.
        folder: Where it lies, at any depth; who the patient is goes by the path below it.
        annotations: The files that hold its annotations, each by what it is to the importer.
        key: Which record of these files is the picture's; empty where there is one alone.
        patient: Hash of the patient that the source names; None where it names none.
        split: The split that the source puts it in; empty where it counts for nothing.
    """

    picture: Path
    folder: Path
    annotations: tuple[tuple[str, Path], ...] = ()
    key: str = ""
    patient: str | None = None
    split: str = ""


ReadSlice = Callable[[Drawing, int], AnnotatedSlice]
"""Reads a drawing as the slice of that index; picklable."""


def annotate_picture(
    plane: npt.NDArray[np.generic],
    regions: Sequence[Region],
    rule: InstanceRule,
    index: int,
    spacing_mm: Spacing | None,
    lungs: Mask | None = None,
) -> AnnotatedSlice:
    """Turn the regions of a picture into instances; a lesion that holds no pixel's centre counts as a speck."""
    item = annotate_slice(plane, regions, rule, index, pixel_spacing_mm=spacing_mm, lungs=lungs)
    empty = sum(isinstance(region.meaning, Category) and not region.mask.any() for region in regions)
    return replace(item, specks=item.specks + empty)


def build_picture_cases(drawings: Sequence[Drawing], read: ReadSlice, request: Request) -> list[Case]:
    """Group drawings by patient.

    Args:
        drawings: In the order that their slices get.
        read: Reads one.
        request: Its ``patients`` name the patient of every picture; DICOM and drawings may name their own.

    Returns:
        One case for each patient; its slices make no neighbours, and are named by their pictures' paths in the source.

    Raises:
        DatasetError: A picture has no patient, or is there twice; or a patient is in two splits.
    """
    base = request.source if request.source.is_dir() else request.source.parent
    groups: dict[str, list[Drawing]] = defaultdict(list)
    seen: set[Path] = set()
    for drawing in drawings:
        real = drawing.picture.resolve()
        if real in seen:
            raise DatasetError(
                drawing.picture, found="annotated twice, in two records or files", remedy="join or remove one"
            )
        seen.add(real)
        groups[_patient_of(drawing, request)].append(drawing)
    return [
        Case(
            name=f"slices of {patient}",
            patient=patient,
            series=hash_identity("series", patient),
            load=partial(_load, tuple(members), read, base),
            contiguous=False,
            fingerprint=hash_file_stats(
                [*(one.picture for one in members), *sorted({path for one in members for _, path in one.annotations})]
            ),
            split=_split_of(members),
        )
        for patient, members in sorted(groups.items())
    ]


def _load(drawings: Sequence[Drawing], read: ReadSlice, base: Path) -> Iterator[AnnotatedSlice]:
    for index, drawing in enumerate(drawings):
        yield replace(read(drawing, index), name=name_below(base, drawing.picture))


def _split_of(members: Sequence[Drawing]) -> str:
    first = members[0]
    for other in members:
        if other.split != first.split:
            raise DatasetError(
                other.picture,
                found=f"in split {other.split}, while {first.picture.name} of the same patient is in {first.split}",
                expected="each patient in one split",
                remedy="let the splits be dealt by patient: leave --splits-from-names out",
            )
    return first.split


def _patient_of(drawing: Drawing, request: Request) -> str:
    request.patients.check_in_folder(drawing.picture, drawing.folder)
    own = drawing.patient
    if own is None and is_dicom_slice(drawing.picture):
        from lung_d2.ct.scan import find_series
        from lung_d2.ct.series import choose_series

        own = choose_series(find_series(drawing.picture), None, str(drawing.picture)).patient_hash
    return request.patients.patient_of(drawing.picture, drawing.folder, own)
