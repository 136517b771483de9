"""A prepared data set on disk: one PNG a slice and one COCO JSON a split, whole or not at all.

::

    ROOT/lung_ct/NAME/
        annotations/train.json  annotations/val.json
        images/SERIES/0000.png
        pseudonym.key           what the names of patients and series are derived with
        report.json             and report.html, see lung_d2.data.quality.page

An image record of the JSON holds, beside COCO's ``id``, ``file_name``, ``height`` and ``width``: ``hu`` (false where
the source had none), ``pixel_spacing_mm`` (row, column) and ``slice_position_mm`` or null, ``slice_index``,
``neighbours`` (file names of the slices before and after; the end slices repeat themselves), and ``patient`` and
``series`` as pseudonyms. Slices that selection leaves out of the training split have no record, but stay as neighbours.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.data.cases import Case
from lung_d2.data.coco_writer import rename, write_coco
from lung_d2.data.importing import Record, import_cases, read_records, remove_stale_cases
from lung_d2.data.quality.facts import measure_loads
from lung_d2.data.quality.leaks import Slice, check_leaks
from lung_d2.data.quality.summary import build_summary
from lung_d2.data.selection import KEEP_ALL, TRAIN, Selection
from lung_d2.data.splits import split_by_patient, split_stratified
from lung_d2.errors import DatasetError, LungD2Error
from lung_d2.files import (
    create_folder,
    create_key,
    pseudonym,
    read_key,
    replace_folder,
    restore_folder,
    write_json,
    write_key,
)

logger = logging.getLogger(__name__)

DATASETS_FOLDER = "lung_ct"
REPORT_NAME = "report.json"
KEY_NAME = "pseudonym.key"
MAX_NAME = 100
WARNED_EXAMPLES = 3


@dataclass(frozen=True)
class SplitRule:
    """Deal patients to splits once their lesions are known, each split with its share of every kind.

    Attributes:
        fractions: Share of the patients for each split; they sum to 1.
        seed: The same seed and patients give the same splits.
    """

    fractions: Mapping[str, float]
    seed: int = 0


def datasets_root(root: str | Path | None = None) -> Path:
    """Return the folder of data sets: ``root``, else ``DETECTRON2_DATASETS``, else ``datasets``; ``~`` is expanded."""
    return Path(root or os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def write_dataset(
    root: Path,
    name: str,
    cases: Sequence[Case],
    split: Mapping[str, str] | SplitRule,
    *,
    categories: Categories = CATEGORIES,
    key: bytes | None = None,
    selection: Selection = KEEP_ALL,
    allow_duplicates: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    finish: Callable[[Path], object] | None = None,
) -> Path:
    """Write the cases as a data set that :func:`lung_d2.register_lung_datasets` finds.

    Finished cases are kept aside when this is interrupted, and not done again by the next call; the data set stands
    under its final name only when it is whole.

    Args:
        root: Folder of data sets (``DETECTRON2_DATASETS``).
        name: Name of the data set; its splits are registered as ``NAME_SPLIT``.
        cases: What an importer found.
        split: The split of each patient, or the rule by which they are dealt once their lesions are known.
        categories: What its lesions can be.
        key: Patients and series are named by pseudonyms under this key, see :func:`choose_key`; None keeps their names.
        selection: Which slices of the training split are kept.
        allow_duplicates: Only warn of near-identical slices in different splits.
        workers: Processes that import cases.
        overwrite: Replace a data set of this name.
        finish: Called with the folder before it gets its final name, for what else should be in it.

    Returns:
        The data set's folder.

    Raises:
        DatasetError: The name is taken or no name, or another call is making it; a case is broken, a patient has no
            split, or a slice is in two.
        OutputError: The folder cannot be created.
    """
    final = _dataset_folder(root, name)
    _check_cases(cases, split)
    staging = final.with_name(f".{name}.partial")
    create_folder(root)  # named in the message, where it cannot be
    create_folder(final.parent)
    with _lock(final):
        restore_folder(final)
        if final.exists() and not overwrite:
            raise DatasetError(
                final, found="a data set of this name", remedy="choose another --name, or give --overwrite"
            )
        create_folder(staging / "cases")
        _restore_names(cases, staging)
        names = {} if key is None else _find_pseudonyms(cases, key)
        if key is not None:
            write_key(key, staging / KEY_NAME)
        try:
            import_cases(cases, staging, workers)
            remove_stale_cases(cases, staging)
            _write_splits(name, categories, cases, split, staging, selection, allow_duplicates, names)
            _rename_series(staging, names)
            if finish:
                finish(staging)
        except LungD2Error:
            logger.info("what is done is kept in %s for the next call with this name", staging)
            raise
        shutil.rmtree(staging / "cases")
        replace_folder(staging, final)
    return final


def choose_key(root: Path, name: str, key_file: Path | None = None) -> bytes:
    """Return the key of a data set's pseudonyms: that of a file, else that of an earlier preparation, else a new one.

    Args:
        root: Folder of data sets.
        name: Name of the data set.
        key_file: Key of another data set, so that a patient of both has one name.

    Raises:
        DatasetError: The file is missing or is not a key.
    """
    final = _dataset_folder(root, name)
    earlier = [folder / KEY_NAME for folder in (final, final.with_name(f".{name}.partial"))]
    path = key_file or next((path for path in earlier if path.is_file()), None)
    return create_key() if path is None else read_key(path)


def _find_pseudonyms(cases: Sequence[Case], key: bytes) -> dict[str, str]:
    """Return the pseudonym of each patient and series."""
    names = {case.patient: pseudonym("patient", case.patient, key) for case in cases}
    return names | {case.series: pseudonym("series", case.series, key) for case in cases}


def _restore_names(cases: Sequence[Case], staging: Path) -> None:
    """Undo the renaming of a call that ended after it, perhaps under another key, and forget that key."""
    if (staging / KEY_NAME).is_file():
        names = _find_pseudonyms(cases, read_key(staging / KEY_NAME))
        _rename_series(staging, {new: old for old, new in names.items()})
        (staging / KEY_NAME).unlink()


def _rename_series(staging: Path, names: Mapping[str, str]) -> None:
    for old, new in names.items():
        if (staging / "images" / old).is_dir():
            os.replace(staging / "images" / old, staging / "images" / new)


@contextmanager
def _lock(final: Path) -> Iterator[None]:
    """Let one call at a time make a data set."""
    path = final.with_name(f".{final.name}.lock")
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout as error:
        raise DatasetError(
            final, found="another call is making it", remedy="wait for its end, or choose another --name"
        ) from error


def _dataset_folder(root: Path, name: str) -> Path:
    fits = 0 < len(name) <= MAX_NAME and all(letter.isalnum() or letter in "_-." for letter in name)
    if not fits or name.startswith("."):
        raise DatasetError(
            f"--name {name[:MAX_NAME]!r}",
            found="no file name",
            expected=f"letters, digits, _ - ., at most {MAX_NAME}",
            remedy="correct it",
        )
    return root / DATASETS_FOLDER / name


def _check_cases(cases: Sequence[Case], split: Mapping[str, str] | SplitRule) -> None:
    if not cases:
        raise DatasetError("source", found="no annotated series or slices", remedy="check the folder and its layout")
    seen: dict[str, str] = {}
    for case in cases:
        if case.series in seen:
            raise DatasetError(
                case.name, found=f"the same series as {seen[case.series]}", expected="each once", remedy="remove one"
            )
        seen[case.series] = case.name
        if not isinstance(split, SplitRule) and case.patient not in split:
            raise DatasetError(case.name, found="no split for its patient", remedy="add the patient to the split file")
    if isinstance(split, SplitRule):  # a rule that cannot be met is refused before the work
        split_by_patient((case.patient for case in cases), split.fractions, split.seed)


def _write_splits(
    name: str,
    categories: Categories,
    cases: Sequence[Case],
    split: Mapping[str, str] | SplitRule,
    staging: Path,
    selection: Selection,
    allow_duplicates: bool,
    names: Mapping[str, str],
) -> None:
    """Deal the imported records to splits, select, check for leaks, and write annotations and report."""
    records = [record for case in cases for record in read_records(case, staging, with_masks=False)]
    split_of = _deal(records, split) if isinstance(split, SplitRule) else split
    splits: dict[str, list[Record]] = {one: [] for one in sorted({split_of[case.patient] for case in cases})}
    for record in records:
        splits[split_of[record["patient"]]].append(record)
    choice = selection.choose(splits.get(TRAIN, []))
    kept = {one: choice.kept if one == TRAIN else members for one, members in splits.items()}
    slices = (
        Slice(one, record["patient"], record["file_name"], record["facts"]["fingerprint"])
        for one, members in kept.items()
        for record in members
    )
    source_of = {record["file_name"]: record["source"] for record in records}
    leaks = check_leaks(slices, allow=allow_duplicates, shown=source_of.__getitem__)
    summary = build_summary(name, splits, kept, choice, leaks, categories)
    _warn(summary, source_of)
    write_json(rename(summary, names), staging / REPORT_NAME)
    for one, members in kept.items():
        ids = {record["file_name"]: number for number, record in enumerate(members, 1)}
        path = staging / "annotations" / f"{one}.json"
        write_coco(f"{name}, {one} split", categories, cases, staging, ids, names, path)


def _warn(summary: Mapping[str, Any], source_of: Mapping[str, str]) -> None:
    """Log what is suspicious by the names of the source, which the data set itself does not hold."""
    for warning in summary["suspicions"]:
        shown = [source_of[one["file_name"]] for one in warning["examples"][:WARNED_EXAMPLES] if one["file_name"]]
        logger.warning("%s (%d), e.g. %s", warning["title"], warning["count"], ", ".join(shown))


def _deal(records: Sequence[Record], rule: SplitRule) -> dict[str, str]:
    return split_stratified(measure_loads(records), rule.fractions, rule.seed)
