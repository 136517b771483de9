"""The splits of an ablation: their names and their rows, of the folds and of val."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lung_d2.ablation.plan import Plan
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError

FINAL = "final"
"""In place of a fold's number: the whole training split, measured on val."""


def dataset_of(prefix: str, split: str) -> str:
    """Return the name of the data sets of a split, without ``_train`` and ``_val``."""
    return prefix if split == FINAL else f"{prefix}_fold{split}"


def split_rows(plan: Plan, split: str, source: Path) -> str:
    """Return the split file of a fold: of the training patients some become val, and val becomes test.

    Args:
        plan: The plan, with the patients of its folds and those that are one.
        split: Number of the fold, or :data:`FINAL`: the split as it is.
        source: Folder of the data, with the ``split.csv`` that the folds divide.

    Raises:
        DatasetError: The split file is broken.
        ConfigError: One held out is no training patient.
    """
    split_file = source / "split.csv"
    named = read_split_file(split_file)
    held_out = () if split == FINAL else plan.folds[int(split)]
    for patient in held_out:
        if named["split"].get(patient) != "train":
            found = named["split"].get(patient, "not there")
            raise ConfigError(f"fold patient {patient}", found=found, expected="train", remedy=f"see {split_file}")
    split_of = dict(named["split"])
    if held_out:
        split_of = {patient: "train" if part == "train" else "test" for patient, part in split_of.items()}
        split_of |= dict.fromkeys(held_out, "val")
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    if named["patient"]:
        rows.writerow(["file", "patient", "split"])
        rows.writerows([file, plan.same.get(one, one), split_of[one]] for file, one in named["patient"].items())
    else:
        rows.writerow(["patient", "split"])
        rows.writerows([plan.same.get(one, one), part] for one, part in split_of.items())
    return stream.getvalue()
