"""What an ablation needs before it trains: a data set for every split, and the backbones that runs start from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lung_d2.ablation.plan import Plan
from lung_d2.ablation.runs import FINAL, Run, start_of
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.data.folders import write_text
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """A tool to run.

    Attributes:
        command: Its script in ``tools/`` and its arguments.
        result: The file that is there once it has ended.
    """

    command: tuple[str, ...]
    result: Path


def list_steps(plan: Plan, runs: Sequence[Run], source: Path, output: Path, *, reduced: bool) -> Iterator[Step]:
    """Yield the steps that runs need and that have not ended yet; the split files of folds are written.

    Args:
        plan: The plan.
        runs: What is to be trained.
        source: Folder of the data, with ``split.csv``.
        output: Folder of the ablation.
        reduced: As in :func:`lung_d2.ablation.runs.build_config`.

    Raises:
        DatasetError: The split file is broken.
        ConfigError: A start is none that a tool makes.
    """
    steps = [_prepare(plan, run, source, output) for run in runs]
    steps += [_make_backbone(plan, run, reduced=reduced) for run in runs if run.arm.start]
    yield from (step for step in dict.fromkeys(steps) if not step.result.is_file())


def _prepare(plan: Plan, run: Run, source: Path, output: Path) -> Step:
    name = run.dataset(plan.dataset)
    split_file = source / "split.csv"
    if run.split != FINAL:
        split_file = output / f"{name}.csv"
        write_fold_file(source / "split.csv", plan.folds[int(run.split)], split_file)
    importer, *options = plan.prepare
    command = ("prepare_dataset.py", importer, str(source), *options, "--split-file", str(split_file), "--name", name)
    return Step(command, datasets_root() / DATASETS_FOLDER / name / "annotations" / "val.json")


def _make_backbone(plan: Plan, run: Run, *, reduced: bool) -> Step:
    path = Path(start_of(plan, run, reduced=reduced))
    # Taught on the training slices of its own split alone: what is held out is held out of this too.
    split = path.parent.name.removeprefix("split_")
    if path.parent.name == split:
        raise ConfigError(f"start {path}", found=f"folder {path.parent.name}", expected="split_N", remedy="name it so")
    taught_on = f"{plan.dataset}_train" if split == FINAL else f"{plan.dataset}_fold{split}_train"
    opts = (*plan.backbone, "DATASETS.TRAIN", f"('{taught_on}',)")
    return Step(("make_ct_backbone.py", "--output", str(path.parent), *opts), path)


def write_fold_file(split_file: Path, held_out: Sequence[str], path: Path) -> None:
    """Write the split file of a fold: of the training patients some become val, and val becomes test.

    Args:
        split_file: The split that the folds divide.
        held_out: Training patients to measure on.
        path: Where to write.

    Raises:
        DatasetError: The split file is broken.
        ConfigError: One held out is no training patient.
    """
    named = read_split_file(split_file)
    for patient in held_out:
        if named["split"].get(patient) != "train":
            found = named["split"].get(patient, "not there")
            raise ConfigError(f"fold patient {patient}", found=found, expected="train", remedy=f"see {split_file}")
    kept = {patient: "train" if split == "train" else "test" for patient, split in named["split"].items()}
    fold = kept | dict.fromkeys(held_out, "val")
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(["file", "patient", "split"])
    rows.writerows([file, patient, fold[patient]] for file, patient in named["patient"].items())
    write_text(stream.getvalue(), path)
