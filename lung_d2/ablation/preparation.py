"""What an ablation needs before it trains: a data set for every split, and what its arms start from or add."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lung_d2.ablation.plan import Made, Plan
from lung_d2.ablation.runs import FINAL, Run, dataset_of, start_split
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.data.folders import write_text
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError, DatasetError

Command = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """Something to make.

    Attributes:
        commands: Scripts in ``tools/`` with their arguments, in order.
        result: The file that is there once they have ended.
        mark: What to write there where no tool writes it; empty: a tool does.
    """

    commands: tuple[Command, ...]
    result: Path
    mark: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the file is there, and says the same."""
        return self.result.is_file() and (not self.mark or self.result.read_text(encoding="utf-8") == self.mark)


def list_steps(plan: Plan, runs: Sequence[Run], source: Path, output: Path, *, reduced: bool) -> list[Step]:
    """Return the steps that runs need and that have not ended yet; the split files are written.

    Args:
        plan: The plan.
        runs: What is to be trained.
        source: Folder of the data, with ``split.csv``.
        output: Folder of the ablation.
        reduced: As in :func:`lung_d2.ablation.runs.build_config`.

    Raises:
        DatasetError: The split file is broken.
        ConfigError: A fold holds out a patient that is not trained on.
    """
    steps = [_prepare(plan, run.split, source, output) for run in runs]
    steps += list(_make(plan, runs, source, reduced))
    return [step for step in dict.fromkeys(steps) if not step.is_done]


def _prepare(plan: Plan, split: str, source: Path, output: Path) -> Step:
    name = dataset_of(plan.dataset, split)
    split_file = output / f"{name}.csv"
    rows = write_split_file(
        source / "split.csv", () if split == FINAL else plan.folds[int(split)], plan.same, split_file
    )
    importer, *options = plan.prepare
    target = ("--split-file", str(split_file), "--name", name, "--overwrite")
    command = ("prepare_dataset.py", importer, str(source), *options, *target)
    # A data set of this name may be there with another split: ours is marked by the split it was made with.
    return Step((command,), output / f"{name}.prepared", mark=" ".join(command) + "\n" + rows)


def _make(plan: Plan, runs: Sequence[Run], source: Path, reduced: bool) -> Iterator[Step]:
    for run in runs:
        split = start_split(run, reduced)
        names = {"split": split, "train": f"{dataset_of(plan.dataset, split)}_train", "data": str(source)}
        names["datasets"] = str(datasets_root() / DATASETS_FOLDER)
        yield from _in_order(plan, [*run.arm.datasets, *([run.arm.start] if run.arm.start else [])], names)


def _in_order(plan: Plan, needed: Sequence[str], names: Mapping[str, str]) -> Iterator[Step]:
    """Yield the steps of data sets and starts, each after those that it needs itself unless it is done."""
    known = plan.datasets | plan.starts
    for name in needed:
        made = known[name]
        files = {need: known[need].path.format(**names) for need in made.needs}
        step = _fill_in(made, {**names, **files})
        if not step.is_done:
            yield from _in_order(plan, made.needs, names)
        yield step


def _fill_in(made: Made, names: Mapping[str, str]) -> Step:
    path = Path(made.path.format(**names))
    if not made.make and not path.is_file():
        raise DatasetError(path, found="not there", expected="a file that the plan says how to make", remedy="make it")
    return Step(tuple(tuple(part.format(**names) for part in command) for command in made.make), path)


def write_split_file(split_file: Path, held_out: Sequence[str], same: Mapping[str, str], path: Path) -> str:
    """Write the split file of a fold: of the training patients some become val, and val becomes test.

    Args:
        split_file: The split that the folds divide.
        held_out: Training patients to measure on; none: the split as it is.
        same: Patients that are one: the name that stands for it, by the other.
        path: Where to write.

    Returns:
        What was written.

    Raises:
        DatasetError: The split file is broken.
        ConfigError: One held out is no training patient.
    """
    named = read_split_file(split_file)
    for patient in held_out:
        if named["split"].get(patient) != "train":
            found = named["split"].get(patient, "not there")
            raise ConfigError(f"fold patient {patient}", found=found, expected="train", remedy=f"see {split_file}")
    split_of = dict(named["split"])
    if held_out:
        split_of = {patient: "train" if split == "train" else "test" for patient, split in split_of.items()}
        split_of |= dict.fromkeys(held_out, "val")
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    if named["patient"]:
        rows.writerow(["file", "patient", "split"])
        rows.writerows([file, same.get(one, one), split_of[one]] for file, one in named["patient"].items())
    else:
        rows.writerow(["patient", "split"])
        rows.writerows([same.get(one, one), split] for one, split in split_of.items())
    write_text(stream.getvalue(), path)
    return stream.getvalue()
