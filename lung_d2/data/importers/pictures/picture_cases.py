"""What all importers of pictures share: JSON records, finding and reading pictures, and building cases."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.ct.headers import is_dicom
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.registry import Request, name_below
from lung_d2.data.instances import InstanceRule, Region, annotate_slice
from lung_d2.data.planes import PICTURES, read_picture
from lung_d2.errors import DatasetError
from lung_d2.files import hash_file_stats, hash_identity
from lung_d2.masks import Mask

Spacing = tuple[float, float]
_SHOWN = 80  # characters of a wrong name that a message shows
T = TypeVar("T")
Record = Mapping[str, Any]

_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Shape:
    """What a tool drew.

    Attributes:
        where: File and record, for messages.
        names: What :class:`LabelTable` knows it by; its label first.
        kind: As the tool calls it.
        record: Its points or pixels, as in the file.
        lesion: What the shapes of one lesion share; None: it is alone.
        is_undecided: Whether it marks where lesions are undecided, whatever its label.
    """

    where: str
    names: tuple[str | int, ...]
    kind: str
    record: Record
    lesion: str | None = None
    is_undecided: bool = False


@dataclass(frozen=True)
class Drawing:
    """A picture and its annotations.

    Attributes:
        picture: 8-bit picture, DICOM file of one slice, or what the importer's own reader takes.
        folder: Where it lies, at any depth; the path below it can name the patient.
        annotations: The files that hold its annotations, each with its role for the importer.
        shapes: What a tool drew on it, the lowest first.
        size: Rows and columns of the picture that was annotated; None or 0: not stated.
        where: Its record, for messages; empty if it has none.
        patient: Hash of the patient that the source names, or None.
        split: The split that the source puts it in; empty if that is not used.
    """

    picture: Path
    folder: Path
    annotations: tuple[tuple[str, Path], ...] = ()
    shapes: tuple[Shape, ...] = ()
    size: tuple[object, object] = (None, None)
    where: str = ""
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
    """Turn the regions of a picture into instances; a lesion without a pixel centre inside counts as a speck."""
    item = annotate_slice(plane, regions, rule, index, pixel_spacing_mm=spacing_mm, lungs=lungs)
    empty = sum(isinstance(region.meaning, Category) and not region.mask.any() for region in regions)
    return replace(item, specks=item.specks + empty)


def build_picture_cases(drawings: Sequence[Drawing], read: ReadSlice, request: Request) -> list[Case]:
    """Group drawings by patient.

    Args:
        drawings: In the order of their slices.
        read: Reads one.
        request: Its ``patients`` name the patient of every picture; DICOM and drawings may name their own.

    Returns:
        One case for each patient. Its slices are not neighbours, and are named by their pictures' paths in the source.

    Raises:
        DatasetError: A picture has no patient or occurs twice, or a patient is in two splits.
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
            categories=request.labels.categories,
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


def find_inside(folder: Path, name: object, where: str | Path) -> Path:
    """Return the path of a picture that an annotation file names, which must lie in a folder.

    Args:
        folder: The folder of the pictures.
        name: What the annotations say: a relative path with ``/``.
        where: File and record that messages name.

    Raises:
        DatasetError: The file is missing, is a link out of the folder, or its name leads elsewhere (see
            :func:`path_inside`).
    """
    path = path_inside(folder, name, where)
    if not path.is_file():
        raise DatasetError(
            where, found=f"no picture {path}", remedy="name the folder of the pictures by --images, or add the file"
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(
            where,
            found=f"picture {name}, a link that leads out of {folder}",
            remedy="put the picture itself there, or name its folder by --images",
        )
    return path


def path_inside(folder: Path, name: object, where: str | Path) -> Path:
    r"""Return the path that a name stands for in a folder; the file may be missing.

    Args:
        folder: The folder of the pictures.
        name: What the annotations say.
        where: File and record that messages name.

    Raises:
        DatasetError: The name is empty, not a text or absolute, or holds ``..`` or ``\``.
    """
    finding = _unsafe(name)
    if finding:
        raise DatasetError(
            where,
            found=f"{finding} {str(name)[:_SHOWN]!a}",
            expected="a file name or a path below the folder of the pictures",
            remedy="correct it, or export again with relative names; or name the folder of the pictures by --images",
        )
    return folder / str(name)


def _unsafe(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return "no file name:"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return "the absolute path"
    if ".." in PureWindowsPath(name).parts:
        return "a path that leads upwards:"
    return "a path with backslashes:" if "\\" in name else ""


def list_pictures_below(folder: Path) -> list[Path]:
    """List the pictures in and below a folder by path; hidden files and folders are skipped."""
    return [path for path in files_below(folder) if path.suffix.lower() in PICTURES]


def list_slice_files(folder: Path) -> list[Path]:
    """List the files in and below a folder that :func:`read_slice_file` reads, by path."""
    return [path for path in files_below(folder) if path.suffix.lower() in PICTURES or is_dicom_slice(path)]


def files_below(folder: Path) -> list[Path]:
    """List the files in and below a folder by path, except hidden ones; links are followed.

    Raises:
        DatasetError: A folder cannot be opened.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        # A link to a folder above would never end.
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [Path(place, name) for name in files if not name.startswith(".")]
        seen.add(real)
    return sorted(path for path in found if path.is_file())


def _refuse(error: OSError) -> None:
    raise DatasetError(error.filename, found="a folder that cannot be opened", remedy="check its permissions")


def read_slice_file(path: Path) -> tuple[npt.NDArray[np.generic], Spacing | None]:
    """Read the picture of a slice, or a DICOM file of one slice.

    Returns:
        uint8 ``(H, W)`` in grey and None; or int16 in HU and the spacing of rows and columns in mm.

    Raises:
        InputError: It is neither a picture in 8-bit grey levels nor a CT slice.
    """
    if not is_dicom_slice(path):
        return read_picture(path), None
    from lung_d2.ct.volume import read_volume  # here: it loads more than pictures need

    volume = read_volume(path)
    if len(volume.hu) != 1:
        raise DatasetError(path, found=f"{len(volume.hu)} slices", expected="one", remedy="write each as a file")
    return volume.hu[0], (volume.spacing_mm[1], volume.spacing_mm[2])


def is_dicom_slice(path: Path) -> bool:
    """Tell a DICOM file from a picture."""
    return path.suffix.lower() not in PICTURES and is_dicom(path)


def check_size(shape: tuple[int, ...], height: object, width: object, where: str | Path) -> None:
    """Check the size of the picture on which annotations were drawn; None or 0: it is not stated.

    Raises:
        DatasetError: They differ.
    """
    stated = (height or shape[0], width or shape[1])
    if stated != tuple(shape):
        raise DatasetError(
            where,
            found=f"annotations of a picture of {stated[0]} x {stated[1]}",
            expected=f"{shape[0]} x {shape[1]} (rows x columns), its picture's size",
            remedy="give the picture that was annotated",
        )


def read_json(path: Path, what: str) -> Record:
    """Read a JSON object.

    Args:
        path: The file; UTF-8, with or without a byte order mark.
        what: What it should be, for messages.

    Raises:
        DatasetError: It cannot be opened, is broken, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(
            path, found="cannot be opened", expected=what, remedy="check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise DatasetError(path, found="broken JSON", expected=what, remedy="export it again") from error
    if not isinstance(content, dict):
        raise DatasetError(path, found=f"a JSON {type(content).__name__}", expected=what, remedy="give another file")
    return content


def take(record: Record, key: str, kind: type[T], where: str | Path) -> T:
    """Return a value that a record must have.

    Raises:
        DatasetError: It is missing or of another type.
    """
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = f"{type(value).__name__} as {key!r}" if key in record else f"no {key!r}"
        raise DatasetError(where, found=found, expected=_NAMES[kind], remedy="correct it, or export it again")
    return value


def take_objects(record: Record, key: str, where: str | Path) -> list[dict[str, Any]]:
    """Return a list of objects that a record must have.

    Raises:
        DatasetError: It is missing, is not a list, or holds something else.
    """
    values = take(record, key, list, where)
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise DatasetError(
                where,
                found=f"{type(value).__name__} as item {number} of {key!r}",
                expected="objects",
                remedy="correct it, or export it again",
            )
    return values
