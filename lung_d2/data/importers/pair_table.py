"""Pairs of an image and its label volumes, and the CSV file that lists them."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lung_d2.ct.headers import volume_suffix
from lung_d2.data.importers.pairing import inner_path
from lung_d2.data.labels import Meaning, parse_meaning
from lung_d2.errors import DatasetError


@dataclass(frozen=True)
class LabelFile:
    """One label volume.

    Attributes:
        path: The file.
        meaning: What each of its values but 0 is; None: it is a label map, whose values have meanings of their own.
    """

    path: Path
    meaning: Meaning | None = None


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        image: The file.
        labels: Its labels; none where it has none.
        patient: Whom the source names as the patient; empty: nobody.
    """

    image: Path
    labels: tuple[LabelFile, ...] = ()
    patient: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs from a CSV file.

    Args:
        path: A CSV file with the columns ``image`` and ``label``, paths relative to it, and where wanted ``patient``
            and ``category`` (of a label file of one category). An image with several labels has several rows; one
            without has an empty ``label``.

    Raises:
        DatasetError: It is no such file, a path leaves its folder or leads nowhere, or rows contradict each other.
    """
    labels: dict[Path, list[LabelFile]] = defaultdict(list)
    patients: dict[Path, str] = {}
    for number, row in enumerate(_rows(path), 2):
        where = f"{path} row {number}"
        image = _listed_file(row["image"], path, where)
        patient = row.get("patient", "")
        if patients.setdefault(image, patient) != patient:
            raise DatasetError(where, found="another patient than above", expected="one an image", remedy="correct it")
        if row["label"]:
            meaning = parse_meaning(row["category"]) if row.get("category") else None
            labels[image].append(LabelFile(_listed_file(row["label"], path, where), meaning))
    for image, files in labels.items():
        if len({file.path for file in files}) < len(files):
            raise DatasetError(path, found=f"a label of {image.name} twice", remedy="remove one of the rows")
    return [Pair(image, tuple(labels[image]), patient) for image, patient in patients.items()]


def _listed_file(text: str, listing: Path, where: str) -> Path:
    path = listing.parent / inner_path(text, where)
    try:
        there = path.is_file()
    except OSError:  # as a name that is too long
        there = False
    if not there:
        raise DatasetError(where, found=f"no file {text!a}", expected="paths relative to the CSV", remedy="correct it")
    if not volume_suffix(path):
        raise DatasetError(where, found=f"no volume, {text!a}", expected="e.g. .nii.gz or .nrrd", remedy="convert it")
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [
                {str(name).strip(): (value or "").strip() for name, value in row.items() if name is not None}
                for row in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            path, found="no CSV that can be read", expected="text in UTF-8", remedy="correct --pairs"
        ) from error
    columns = sorted(rows[0]) if rows else []
    if not {"image", "label"}.issubset(columns):
        raise DatasetError(
            path, found=f"columns {columns}", expected="image, label and rows of them", remedy="name them in row 1"
        )
    return rows
