"""Splits by patient: no patient is in two of them, and each split has its share of every kind of patient.

The distribution is greedy, after Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data":
patients come in random order, those with the rarest category first, and each goes to the split that lacks most of what
the patient has. The lesion load is one more trait beside the categories.
"""

from __future__ import annotations

import csv
import logging
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity, pseudonym

# The best of a few deals is a third more even than the first one, where patients are few; more deals bring little.
_DEALS = 16


def deal_evenly(areas: npt.NDArray[np.float64], places: Sequence[int], rng: random.Random) -> npt.NDArray[np.intp]:
    """Deal patients to splits: the most even of a few random deals.

    A category that as many patients carry as there are splits comes to each split, where its places allow it.

    Args:
        areas: ``(patients, categories)``, lesion area of any unit, 0 or more; only the order of the areas counts.
        places: Patients of each split, 1 or more; they sum to the number of patients.
        rng: Source of the random orders.

    Returns:
        ``(patients,)``, number of the split of each.
    """
    carries, features = areas > 0, _features(areas)
    orders = (np.array(rng.sample(range(len(areas)), len(areas))) for _ in range(_DEALS))
    deals = [_deal(carries, features, places, order) for order in orders]
    return min(deals, key=_Deal.unevenness).split_of


def _features(areas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what is shared out: of each patient 1 or 0 for a trait, or a rank from 0 to 1.

    Returns:
        ``(patients, traits)``: being a patient at all, and being without lesions; for each category having it, and
        the rank of its area among those who have it; the same rank of all lesions together, and its upper half.
    """
    total = areas.sum(1)
    ranks = [_rank(column) for column in (*areas.T, total)]
    return np.column_stack([np.ones(len(areas)), total == 0, areas > 0, *ranks, ranks[-1] > 0.5])


def _rank(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the place of each value among those above 0, from 0 (least) to 1; 0 for a value of 0."""
    among = np.sort(values[values > 0])
    below, up_to = np.searchsorted(among, values, "left"), np.searchsorted(among, values, "right")
    return np.where(values > 0, (below + up_to) / max(2 * len(among), 1), 0.0)


def _deal(
    carries: npt.NDArray[np.bool_],
    features: npt.NDArray[np.float64],
    places: Sequence[int],
    order: npt.NDArray[np.intp],
) -> _Deal:
    """Deal patients in an order, but for the rarest categories, whose carriers come first."""
    deal = _Deal(features, places)
    for category in np.argsort(carries.sum(0), kind="stable"):
        if np.count_nonzero(carries[:, category]) >= len(places):
            deal.give_each_split_one_of(carries, int(category), order)
    commonness = np.where(carries, carries.sum(0), len(carries) + 1).min(1)
    for patient in order[np.argsort(commonness[order], kind="stable")].tolist():
        if deal.split_of[patient] < 0:
            deal.give_where_missed(patient)
    return deal


class _Deal:
    """Patients, by number, that are dealt to splits with so many places each.

    Attributes:
        split_of: ``(patients,)``, number of the split; -1 while the patient waits.
    """

    def __init__(self, features: npt.NDArray[np.float64], places: Sequence[int]) -> None:
        self.split_of = np.full(len(features), -1)
        self._features = features
        self._free = np.array(places)
        self._shares = self._free / len(features)
        totals = features.sum(0)
        # A patient too many or too few matters the more, the rarer the trait.
        self._weights = 1 / np.where(totals > 0, totals, 1.0)
        self._missing = np.outer(self._shares, totals)

    def give_each_split_one_of(
        self, carries: npt.NDArray[np.bool_], category: int, order: npt.NDArray[np.intp]
    ) -> None:
        """Give each split without a carrier of a category one of them, the one who carries most of what it lacks."""
        for split, free in enumerate(self._free):
            held = carries[self.split_of == split].any(0)
            waiting = order[(self.split_of[order] < 0) & carries[order, category]]
            if free and not held[category] and len(waiting):
                self._give(int(waiting[(carries[waiting] & ~held).sum(1).argmax()]), split)

    def give_where_missed(self, patient: int) -> None:
        """Give a patient to the split that misses most of what he has, in proportion to its share."""
        own = self._features[patient]
        growth = (own * (own - 2 * self._missing)) @ self._weights / self._shares  # of unevenness, if he goes there
        self._give(patient, int(np.where(self._free > 0, growth, np.inf).argmin()))

    def unevenness(self) -> float:
        """Return the squared distance of what the splits hold from their shares, summed over splits and traits."""
        return float(((self._missing**2) @ self._weights / self._shares).sum())

    def _give(self, patient: int, split: int) -> None:
        self.split_of[patient] = split
        self._free[split] -= 1
        self._missing[split] -= self._features[patient]


logger = logging.getLogger(__name__)

_PATIENT_COLUMNS = ("patient", "volume", "series", "case")
_NO_ISSUER = "\0"  # DICOM patients are hashed with the issuer of their ID before it, which is mostly empty


@dataclass(frozen=True)
class PatientLoad:
    """How much lesion the slices of a patient hold.

    Attributes:
        areas: Lesion area of each category by its name, summed over the patient's slices: mm2, or pixels where the
            spacing is unknown. A category that is left out, or 0, is one that the patient does not have. Only the
            order of the areas counts, so that a set of both units is split nearly as well.
    """

    areas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, area in self.areas.items():
            if not (np.isfinite(area) and area >= 0):
                raise DatasetError(
                    f"lesion load of {name}", found=f"an area of {area}", expected="0 or more", remedy="correct it"
                )


def split_by_patient(patients: Iterable[str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Deal patients of whom nothing is known to splits: :func:`split_stratified` of patients who are all alike.

    Args:
        patients: Patient ids, in any order, repeats allowed.
        fractions: Share of the patients for each split; they sum to 1.
        seed: The same seed and patients give the same splits.

    Returns:
        The split of each patient. A split with a share above 0 gets at least one patient.

    Raises:
        DatasetError: The shares do not sum to 1, or there are fewer patients than splits.
    """
    return split_stratified(dict.fromkeys(patients, PatientLoad()), fractions, seed)


def split_stratified(loads: Mapping[str, PatientLoad], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Deal patients to splits so that each split has its share of every kind of patient.

    Kinds are: with each of the categories, without lesions, with light and with heavy lesion loads. Where at least as
    many patients have a category as there are splits, each split gets one of them, if its places allow it.

    Args:
        loads: Lesion load of each patient id; their order does not matter.
        fractions: Share of the patients for each split; they sum to 1.
        seed: The same seed and loads give the same splits.

    Returns:
        The split of each patient. A split with a share above 0 gets at least one patient.

    Raises:
        DatasetError: The shares do not sum to 1, or there are fewer patients than splits.
    """
    counts = _share_out(len(loads), fractions)
    ids = sorted(loads)
    others = {name for load in loads.values() for name in load.areas} - set(CATEGORIES.names)
    names = [*CATEGORIES.names, *sorted(others)]
    areas = np.array([[loads[patient].areas.get(name, 0.0) for name in names] for patient in ids], float)
    splits = deal_evenly(areas, list(counts.values()), random.Random(seed))
    names = list(counts)
    return {patient: names[split] for patient, split in zip(ids, splits, strict=True)}


def _share_out(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Return how many of the patients each split gets, the smallest split first."""
    wanted = {name: share for name, share in fractions.items() if share > 0}
    if not abs(sum(wanted.values()) - 1) <= 1e-6 or any(not share >= 0 for share in fractions.values()):
        raise DatasetError(
            "splits", found=f"shares {dict(fractions)}", expected="shares that sum to 1", remedy="correct"
        )
    if total < len(wanted):
        raise DatasetError(
            "splits",
            found=f"{total} patient(s) for {len(wanted)} splits",
            expected="at least one patient in each split",
            remedy="add patients, set --val-fraction 0, or tell those apart who count as one: --patients REGEX, or "
            "--patients-from folder where each has a folder",
        )
    *smaller, largest = sorted(wanted, key=lambda name: wanted[name])  # the largest split takes what is left
    counts: dict[str, int] = {}
    left = total
    for waiting, name in zip(range(len(smaller), 0, -1), smaller, strict=True):
        counts[name] = min(max(1, round(wanted[name] * total)), left - waiting)
        left -= counts[name]
    return counts | {largest: left}


def read_split_file(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV with a ``split`` column and at least one of ``file`` and ``patient`` (or ``volume``, ``series``).

    Columns may be named in letters of any case.

    Returns:
        ``{"split": {patient: split}, "patient": {file: patient}}``; a row without a patient is its own.

    Raises:
        DatasetError: A column or value is missing, or a patient stands in two splits.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DatasetError(
            path, found=found, expected="a CSV with columns patient and split", remedy="correct --split-file"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [{str(name).strip().lower(): value for name, value in row.items()} for row in csv.DictReader(stream)]
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


def assign_patients(
    cases: Iterable[tuple[str, str]],
    named: Mapping[str, str],
    where: str | Path = "--split-file",
    key: bytes | None = None,
) -> dict[str, str]:
    """Give each patient the split that a split file names for them.

    The file names a patient by the ID of the DICOM header (without issuer), by what a slice folder calls them, by
    the name that a data set holds, or else by the name of their case.

    Args:
        cases: Hashed patient and name of each case.
        named: ``"split"`` of :func:`read_split_file`.
        where: The split file, for messages.
        key: Of the data set's pseudonyms, which the file may name too.

    Returns:
        The split of each hashed patient.

    Raises:
        DatasetError: A patient has no split or two of them.
    """
    name_of = {hash_identity("patient", prefix + name): name for name in named for prefix in ("", _NO_ISSUER)}
    split_of: dict[str, str] = {}
    used: set[str] = set()
    without: list[tuple[str, str]] = []
    for patient, case in cases:
        shown = patient if key is None else pseudonym("patient", patient, key)
        name = name_of.get(patient, next((one for one in (patient, shown) if one in named), case))
        if name not in named:
            without.append((patient, case))
            continue
        used |= {name, case} & named.keys()
        if split_of.setdefault(patient, named[name]) != named[name]:
            raise DatasetError(
                case,
                found=f"in {named[name]}, another case of its patient in {split_of[patient]}",
                expected="each patient in one split",
                remedy="move all its cases to one",
            )
    for patient, case in without:
        if patient not in split_of:
            raise DatasetError(
                case,
                found=f"no split in {where}",
                expected="one for each patient",
                remedy="add a row with its patient ID, or with this name",
            )
    if len(used) < len(named):
        logger.warning("%s: %d of its %d patients have no case here", where, len(named) - len(used), len(named))
    return split_of
