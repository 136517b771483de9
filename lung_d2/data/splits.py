"""Splits by patient: no patient is in two of them."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lung_d2.errors import DatasetError

_PATIENT_COLUMNS = ("patient", "volume", "series", "case")


def split_by_patient(patients: Iterable[str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Deal patients to splits at random.

    Args:
        patients: Patient ids, in any order, repeats allowed.
        fractions: Share of the patients for each split; they sum to 1.
        seed: The same seed and patients give the same splits.

    Returns:
        The split of each patient. A split with a share above 0 gets at least one patient.

    Raises:
        DatasetError: The shares do not sum to 1, or there are fewer patients than splits.
    """
    ids = sorted(set(patients))
    wanted = {name: share for name, share in fractions.items() if share > 0}
    if abs(sum(wanted.values()) - 1) > 1e-6 or any(share < 0 for share in fractions.values()):
        raise DatasetError(
            "splits", found=f"shares {dict(fractions)}", expected="shares that sum to 1", remedy="correct"
        )
    if len(ids) < len(wanted):
        raise DatasetError(
            "splits",
            found=f"{len(ids)} patient(s) for {len(wanted)} splits",
            expected="at least one patient in each split",
            remedy="add patients, set --val-fraction 0, or where all have the same id give --patients-from folder",
        )
    random.Random(seed).shuffle(ids)
    *smaller, largest = sorted(wanted, key=lambda name: wanted[name])  # the largest split takes what is left
    result: dict[str, str] = {}
    total = len(ids)
    for waiting, name in zip(range(len(smaller), 0, -1), smaller, strict=True):
        count = min(max(1, round(wanted[name] * total)), len(ids) - waiting)
        result.update(dict.fromkeys(ids[:count], name))
        ids = ids[count:]
    return result | dict.fromkeys(ids, largest)


def read_split_file(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV with a ``split`` column and at least one of ``file`` and ``patient`` (or ``volume``, ``series``).

    Returns:
        ``{"split": {patient: split}, "patient": {file: patient}}``; a row without a patient is its own.

    Raises:
        DatasetError: A column or value is missing, or a patient stands in two splits.
    """
    if not path.is_file():
        raise DatasetError(
            path, found="no such file", expected="a CSV with columns patient and split", remedy="correct it"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(path, found="no CSV", expected="text in UTF-8", remedy="export it again") from error
    columns = set(rows[0]) if rows else set()
    patient_column = next((column for column in _PATIENT_COLUMNS if column in columns), None)
    if "split" not in columns or not (patient_column or "file" in columns):
        raise DatasetError(
            path, found=f"columns {sorted(columns)}", expected="split, and patient or file", remedy="name them in row 1"
        )
    split_of: dict[str, str] = {}
    patient_of: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        patient = row[patient_column or "file"]
        if not patient or not re.fullmatch(r"[\w-]+", row["split"] or ""):
            raise DatasetError(
                path,
                found=f"row {number} without a patient or file, or with the split {row['split']!r}",
                expected="both, the split as letters, digits, _ -",
                remedy="fill it in",
            )
        if split_of.setdefault(patient, row["split"]) != row["split"]:
            raise DatasetError(
                path,
                found=f"row {number} in {row['split']}, an earlier row of the same patient in {split_of[patient]}",
                expected="each patient in one split",
                remedy="move all its rows to one",
            )
        if "file" in columns:
            patient_of[row["file"]] = patient
    return {"split": split_of, "patient": patient_of}
