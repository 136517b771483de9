"""What an ablation needs before it trains: a data set for every split, and what its arms start from or add."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from lung_d2.ablation.folds import dataset_of, split_rows
from lung_d2.ablation.plan import Plan
from lung_d2.ablation.runs import Run, start_split
from lung_d2.ablation.steps import Making, Preparation, Step, Workshop
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.files import write_text

MARK_NAME = "ablation.prepared"
"""What an ablation prepared a data set from, in the data set's folder."""

logger = logging.getLogger(__name__)


def list_steps(plan: Plan, runs: Sequence[Run], source: Path, output: Path, *, reduced: bool) -> list[Step]:
    """Return the steps that runs need and that are due; the split files are written.

    Args:
        plan: The plan.
        runs: What is to be trained.
        source: Folder of the data, with ``split.csv``.
        output: Folder of the ablation.
        reduced: As in :func:`lung_d2.ablation.runs.build_config`.

    Raises:
        DatasetError: The split file is broken, or a file that the plan does not say how to make is not there.
        ConfigError: A fold holds out a patient that is not trained on, or a data set or a start was made from
            something else.
    """
    splits = [split for run in runs for split in (run.split, *([start_split(run, reduced)] if run.arm.needs else []))]
    steps: list[Step] = [_prepare(plan, split, source, output) for split in dict.fromkeys(splits)]
    for run in runs:
        steps += _in_order(Workshop(plan, start_split(run, reduced), source), run.arm.needs)
    steps = list(dict.fromkeys(steps))
    for step in steps:
        if isinstance(step, Making) and step.is_unmarked:
            logger.warning("%s: taken as it is, since nothing says what it was made from", step.result)
    return [step for step in steps if step.is_due]


def _prepare(plan: Plan, split: str, source: Path, output: Path) -> Preparation:
    name = dataset_of(plan.dataset, split)
    split_file, rows = output / f"{name}.csv", split_rows(plan, split, source)
    write_text(rows, split_file)
    importer, *options = plan.prepare
    target = ("--split-file", str(split_file), "--name", name, "--overwrite")
    command = ("prepare_dataset.py", importer, str(source), *options, *target)
    # A data set of this name may be there with another split: the mark in its folder goes when that is made anew.
    result = datasets_root() / DATASETS_FOLDER / name / MARK_NAME
    return Preparation((command,), result, mark=" ".join((importer, str(source.resolve()), *options)) + "\n" + rows)


def _in_order(workshop: Workshop, needed: Sequence[str]) -> Iterator[Making]:
    """Yield the steps of data sets and starts, each after those that it needs itself unless it is there."""
    for name in needed:
        step = workshop.step(name)
        if step.is_due:
            yield from _in_order(workshop, workshop.needs(name))
        yield step
