#!/usr/bin/env python
r"""Train and test every arm of an ablation on folds and seeds, and write one table of what each brings.

python tools/studies/ablation.py --data covid_slices --output output/ablation --reduced

Every run is a plain call of tools/train_net.py, and every row of the table one of tools/evaluate.py. You can stop it at
any moment and start it again: finished runs are kept, unfinished ones resume from their checkpoint. After a change of
the plan or the data, give another --output.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from tabulate import tabulate
from tqdm import tqdm

from lung_d2.command_line import run_tool
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError, TrainingError

logger = logging.getLogger("lung_d2.ablation")

TOOLS = Path(__file__).resolve().parents[1]
PLAN = Path(__file__).with_suffix(".yaml")
FINAL = "final"  # in place of the number of a fold: the whole training split, measured on val
DONE = "done.txt"  # in the folder of a finished run: the command that was run
METRICS = {  # heading of the table: where evaluation.json has it, digits
    "mask AP50": (("coco", "segm", "AP50", "all"), 1),
    "mask AP": (("coco", "segm", "AP", "all"), 1),
    "box AP50": (("coco", "bbox", "AP50", "all"), 1),
    "mask AP10": (("lenient", "segm", "AP10", "all"), 1),
    "found at 1 FP": (("froc", "slice_per_image", "all", "1"), 2),
}
COMPARED = ("mask AP50", "mask AP10")
READING = """AP in percent with 95 % intervals by bootstrap over patients; the slices of all folds of an arm are pooled.
AP10 is AP at IoU 0.1; "found at 1 FP" is the share of lesions found at 1 false positive a slice. Intervals and p say
what other patients might change, not what another seed would, and p is not corrected for the number of comparisons.
"""


@dataclass(frozen=True)
class Arm:
    """One way to train, or to test what another arm has trained; ablation.yaml explains the fields."""

    about: str
    keys: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    datasets: list[str] = field(default_factory=list)
    against: str = ""
    final: bool = False
    script: str = "train_net.py"
    extends: str = ""
    weights_of: str = ""

    def on_top_of(self, parent: Arm, name: str) -> Arm:
        """Return this arm with what it takes over from the one that it extends or tests."""
        return replace(
            self,
            keys=parent.keys | self.keys,
            start=self.start or parent.start,
            datasets=[*parent.datasets, *self.datasets],
            against=self.against or name,
            script=parent.script,
        )


@dataclass(frozen=True)
class Plan:
    """A whole ablation; ablation.yaml explains the fields."""

    config: str
    dataset: str
    prepare: list[str]
    folds: list[list[str]]
    arms: dict[str, Arm]
    same: dict[str, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [1])
    settings: dict[str, Any] = field(default_factory=dict)
    reduced: dict[str, Any] = field(default_factory=dict)
    reduced_final: dict[str, Any] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)

    def dataset_of(self, split: str) -> str:
        """Return the name of the data sets of a split, without ``_train`` and ``_val``."""
        return self.dataset if split == FINAL else f"{self.dataset}_fold{split}"


def read_plan(path: Path) -> Plan:
    """Read a plan; arms inherit from the arms above that they name.

    Raises:
        ConfigError: It is missing or broken, or names an arm or a start that it does not define.
    """
    arms: dict[str, Arm] = {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        plan = Plan(**content)
        for name, fields in content["arms"].items():
            arm = Arm(**fields)
            parent = arm.extends or arm.weights_of
            arms[name] = arm.on_top_of(arms[parent], parent) if parent else arm
            for needed in (*arm.datasets, *([arm.start] if arm.start else [])):
                plan.made[needed]["path"]  # or KeyError
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConfigError(path, found=reason, expected="a plan", remedy=f"see {PLAN}") from error
    return replace(plan, arms=arms)


@dataclass(frozen=True)
class Run:
    """One training, or one test of what another run has trained."""

    name: str
    arm: Arm
    split: str
    seed: int
    folder: Path
    val: str

    @property
    def results(self) -> Path:
        """The file of its detections."""
        tta = "_TTA" if self.arm.keys.get("TEST.AUG.ENABLED") else ""
        return self.folder / f"inference{tta}" / self.val / "coco_instances_results.json"

    @property
    def is_done(self) -> bool:
        """Whether it was carried out to its end."""
        return (self.folder / DONE).is_file()


def list_runs(plan: Plan, output: Path, *, reduced: bool) -> list[Run]:
    """Return every arm on every fold, then the final arms on val for every seed."""
    folds = range(1 if reduced else len(plan.folds))
    cases = [(str(fold), plan.seeds[0]) for fold in folds] + [(FINAL, seed) for seed in plan.seeds]
    return [
        Run(name, arm, split, seed, output / name / f"{split}_seed{seed}", f"{plan.dataset_of(split)}_val")
        for split, seed in cases
        for name, arm in plan.arms.items()
        if split != FINAL or arm.final
    ]


def choose_runs(plan: Plan, runs: Sequence[Run], args: argparse.Namespace) -> list[Run]:
    """Return the runs that the command line asks for, and those whose weights they test."""
    wanted = {name for arm in args.arms for name in (arm, plan.arms[arm].weights_of if arm in plan.arms else "")}
    chosen = [
        run
        for run in runs
        if (not wanted or run.name in wanted)
        and run.split in (args.splits or [run.split])
        and run.seed in (args.seeds or [run.seed])
    ]
    if missing := [arm for arm in args.arms if arm not in {run.name for run in chosen}]:
        raise ConfigError(
            f"arm {missing[0]}", found="in no run chosen", expected=", ".join(plan.arms), remedy="take one"
        )
    return chosen


def call(script: str, *arguments: object) -> None:
    """Run a script of tools/ in a process of its own.

    Raises:
        TrainingError: It ended with an error.
    """
    status = subprocess.run([sys.executable, str(TOOLS / script), *map(str, arguments)], check=False).returncode
    if status:
        raise TrainingError(f"tools/{script}", found=f"exit status {status}", remedy="see its message above")


def write_split(plan: Plan, split: str, data: Path, path: Path) -> None:
    """Write the split file of a fold: some training patients become val, and val becomes test."""
    named = read_split_file(data / "split.csv")
    part_of = dict(named["split"])
    if split != FINAL:
        held_out = plan.folds[int(split)]
        if others := [patient for patient in held_out if part_of.get(patient) != "train"]:
            found, expected = f"{others[0]} in fold {split}", "training patients"
            raise ConfigError(data / "split.csv", found=found, expected=expected, remedy="correct the plan's folds")
        part_of = {patient: "train" if part == "train" else "test" for patient, part in part_of.items()}
        part_of |= dict.fromkeys(held_out, "val")
    patients = named["patient"].items() if named["patient"] else [("", patient) for patient in part_of]
    rows = [("file", "patient", "split")] if named["patient"] else [("patient", "split")]
    rows += [(file, plan.same.get(one, one), part_of[one])[not file :] for file, one in patients]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def make(plan: Plan, needed: Sequence[str], split: str, args: argparse.Namespace) -> None:
    """Make the data set of a split, and what arms start from or train on beside it, unless they are there."""
    root = datasets_root() / DATASETS_FOLDER
    name = plan.dataset_of(split)
    if not (root / name / "annotations" / "val.json").is_file():
        rows = args.output / f"{name}.csv"
        write_split(plan, split, args.data, rows)
        importer, *options = plan.prepare
        target = ("--split-file", rows, "--name", name, "--overwrite")
        call("prepare_dataset.py", importer, args.data, *options, *target)
    words = {"split": split, "train": f"{name}_train", "data": args.data, "datasets": root}
    for one in needed:
        if Path(plan.made[one]["path"].format(**words)).is_file():
            continue
        make(plan, plan.made[one].get("needs", []), split, args)
        for script, *arguments in plan.made[one]["make"]:
            call(script, *(part.format(**words) for part in arguments))


def start_split(run: Run, *, reduced: bool) -> str:
    """Return the split that the start of a run has seen: in a reduced run fold 0, on val too."""
    return "0" if reduced else run.split


def command_of(plan: Plan, run: Run, *, reduced: bool, opts: Sequence[str] = ()) -> list[str]:
    """Return the command line of a run: a script of tools/ and its arguments."""
    settings = plan.settings | (plan.reduced if reduced else {})
    settings |= plan.reduced_final if reduced and run.split == FINAL else {}
    train = (run.val.removesuffix("val") + "train", *run.arm.datasets)
    start = plan.made[run.arm.start]["path"].format(split=start_split(run, reduced=reduced)) if run.arm.start else ""
    if run.arm.weights_of:
        start = str(run.folder.parents[1] / run.arm.weights_of / run.folder.name / "model_final.pth")
    own = {"DATASETS.TRAIN": train, "DATASETS.TEST": (run.val,), "MODEL.WEIGHTS": start, "SEED": run.seed}
    keys = settings | run.arm.keys | own | {"OUTPUT_DIR": run.folder}
    pairs = [str(word) for pair in keys.items() for word in pair]
    config = TOOLS.parent / "configs" / plan.config
    mode = "--eval-only" if run.arm.weights_of else "--resume"
    return [run.arm.script, "--config-file", str(config), mode, *pairs, *opts]


def carry_out(plan: Plan, run: Run, args: argparse.Namespace) -> bool:
    """Carry out a run, its messages in ``output.txt`` of its folder; return whether it ended well."""
    script, *arguments = command_of(plan, run, reduced=args.reduced, opts=args.opts)
    run.folder.mkdir(parents=True, exist_ok=True)
    threads = str(max(len(os.sched_getaffinity(0)) // args.workers, 1))
    with (run.folder / "output.txt").open("a") as output:
        command = [sys.executable, str(TOOLS / script), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        done = subprocess.run(command, check=False, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if not done.returncode:
        (run.folder / DONE).write_text(" ".join([script, *arguments]) + "\n", encoding="utf-8")
    return not done.returncode


def carry_out_all(plan: Plan, runs: Sequence[Run], args: argparse.Namespace) -> list[Run]:
    """Carry out what is not done, trainings first, several at a time; return the runs that failed."""
    failed: list[Run] = []
    for tests in (False, True):
        without_weights = {(run.name, run.split, run.seed) for run in failed}
        todo = [run for run in runs if bool(run.arm.weights_of) == tests and not run.is_done]
        todo = [run for run in todo if (run.arm.weights_of, run.split, run.seed) not in without_weights]
        with ThreadPoolExecutor(args.workers) as pool, tqdm(total=len(todo), unit="run", disable=not todo) as bar:
            for run, went_well in zip(todo, pool.map(lambda run: carry_out(plan, run, args), todo), strict=True):
                failed += [] if went_well else [run]
                bar.update()
    return failed


def measure(runs: Sequence[Run], against: Sequence[Run], folder: Path) -> dict[str, Any]:
    """Measure the pooled runs of an arm with tools/evaluate.py; return its row of the table."""
    names, results = [run.val for run in runs], [run.results for run in runs]
    others = {run.split: run.results for run in against}
    paired = [others[run.split] for run in runs if run.split in others]
    compare = ["--against", *paired] if len(paired) == len(runs) else []  # or a fold of the other arm is still missing
    call("evaluate.py", "--dataset", *names, "--results", *results, *compare, "--output", folder)
    content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    row = {"arm": runs[0].name, "about": runs[0].arm.about, "runs": len(runs), "patients": content["data"]["patients"]}
    row |= {name: find(content["metrics"], name) for name in METRICS}
    if compare:
        row["against"] = against[0].name
        row |= {f"{name} against": find(content["comparison"]["metrics"], name) for name in COMPARED}
    return row


def find(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a figure of an evaluation with its interval."""
    group, *path = METRICS[name][0]
    found = metrics[group]["figures"]
    for part in path:
        found = found[part]
    return {key: found.get(key) for key in ("value", "difference", "low", "high", "p")}


def over_seeds(tables: Sequence[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each arm measured with several seeds: the mean of each figure, the least and the greatest."""
    for name in dict.fromkeys(row["arm"] for rows in tables for row in rows):
        own = [row for rows in tables for row in rows if row["arm"] == name]
        if len(own) < 2:
            continue
        merged = dict(own[0], runs=len(own))
        for key in [key for key in merged if isinstance(merged[key], dict)]:
            kind = "difference" if "against" in key else "value"
            values = [row[key][kind] for row in own if key in row and row[key][kind] is not None]
            merged[key] = {kind: mean(values), "low": min(values), "high": max(values)} if values else {}
        yield merged


def write_tables(plan: Plan, runs: Sequence[Run], output: Path) -> None:
    """Measure all finished runs, and write ``ablation.csv`` and ``ablation.md``."""
    done = [run for run in runs if run.is_done]
    groups = {"folds": [run for run in done if run.split != FINAL]}
    groups |= {
        f"val, seed {seed}": [run for run in done if (run.split, run.seed) == (FINAL, seed)] for seed in plan.seeds
    }
    tables: dict[str, list[dict[str, Any]]] = {}
    for title, members in groups.items():
        by_arm = {name: [run for run in members if run.name == name] for name in plan.arms}
        folder = output / "evaluation" / title.replace(", ", "_").replace(" ", "")
        tables[title] = [
            measure(own, by_arm.get(plan.arms[name].against, []), folder / name) for name, own in by_arm.items() if own
        ]
    tables["val, mean of the seeds (least, greatest)"] = list(over_seeds(list(tables.values())[1:]))
    tables = {title: rows for title, rows in tables.items() if rows}
    if not tables:
        raise TrainingError(output, found="no finished run", remedy="see output.txt in the folders of the runs")
    columns = ["arm", "about", "runs", "patients", *METRICS, "against", *(f"{name} against" for name in COMPARED)]
    with (output / "ablation.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["measured on", *columns])
        writer.writerows([title, *(say(row, key) for key in columns)] for title, rows in tables.items() for row in rows)
    parts = [READING]
    for title, rows in tables.items():
        cells = [[say(row, key) for key in columns] for row in rows]
        parts.append(f"## {title}\n\n{tabulate(cells, headers=columns, tablefmt='github', disable_numparse=True)}\n")
    (output / "ablation.md").write_text("\n".join(parts), encoding="utf-8")
    logger.info("written to %s", output / "ablation.md")


def say(row: dict[str, Any], key: str) -> str:
    """Return a cell of the table: a figure with its interval, a difference with its p, or a plain text."""
    figure = row.get(key, "")
    if not isinstance(figure, dict):
        return str(figure)
    kind, digits = ("difference" if "against" in key else "value"), METRICS[key.removesuffix(" against")][1]
    if figure.get(kind) is None:
        return ""
    sign = "+" if kind == "difference" else ""
    text = f"{figure[kind]:{sign}.{digits}f}"
    if figure["low"] is not None:
        text += f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    return text if figure.get("p") is None else f"{text}, p {figure['p']:.3f}"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--plan", type=Path, default=PLAN, help="arms, folds and seeds (ablation.yaml beside the script)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the slices, with split.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--reduced", action="store_true", help="the plan's smaller settings, for a CPU")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="only these, and what they test (all)")
    parser.add_argument("--splits", nargs="+", default=[], metavar="N", help="only these folds, or final (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="only these seeds (all)")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time; they share the cores (1)")
    parser.add_argument("--table-only", action="store_true", help="train nothing, write the table of finished runs")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs over every run")
    return parser


def main() -> None:
    """Make what is missing, train, test, then write the table."""
    args = build_parser().parse_args()
    plan = read_plan(args.plan)
    every = list_runs(plan, args.output, reduced=args.reduced)
    chosen = choose_runs(plan, every, args)
    failed: list[Run] = []
    if not args.table_only:
        for run in chosen:
            make(plan, [], run.split, args)
            needed = [*run.arm.datasets, *([run.arm.start] if run.arm.start else [])]
            if needed:
                make(plan, needed, start_split(run, reduced=args.reduced), args)
        failed = carry_out_all(plan, chosen, args)
    write_tables(plan, every, args.output)
    if failed:
        names = "; ".join(f"{run.name}, {run.split}, seed {run.seed}" for run in failed)
        raise TrainingError(names, found="ended with an error", remedy="see output.txt in their folders")


if __name__ == "__main__":
    run_tool(main)
