#!/usr/bin/env python
r"""Train every arm of an ablation on every fold, the final ones on val over several seeds, and write the table.

python tools/ablate.py --data SLICES --output output/ablation --reduced

May be stopped at any moment and started again: runs that have ended are kept, others go on from their checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lung_d2.ablation.plan import Plan, read_plan
from lung_d2.ablation.preparation import list_steps
from lung_d2.ablation.runs import Run, build_config, list_runs, train_run
from lung_d2.ablation.table import write_table
from lung_d2.command_line import run_tool
from lung_d2.errors import LungD2Error, TrainingError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_PLAN = Path(__file__).with_name("ablation.yaml")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=_PLAN, help="what to train (tools/ablation.yaml)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the slices, with split.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--reduced", action="store_true", help="the plan's smaller settings, for a CPU")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="only these (default: all)")
    parser.add_argument("--splits", nargs="+", default=[], metavar="N", help="only these folds, or final (all)")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time; each takes its share of the cores (1)")
    parser.add_argument("--table-only", action="store_true", help="train nothing, write the table of what has ended")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs over every run")
    return parser


def main() -> None:
    """Train what has not ended yet, then write the table."""
    args = build_parser().parse_args()
    plan = read_plan(args.plan)
    runs = list(list_runs(plan, args.output, reduced=args.reduced, arms=args.arms, splits=args.splits))
    if not args.table_only:
        _prepare(plan, runs, args)
        _train(plan, runs, args)
    write_table(plan, list(list_runs(plan, args.output, reduced=args.reduced)), args.output)


def _prepare(plan: Plan, runs: list[Run], args: argparse.Namespace) -> None:
    for step in list_steps(plan, runs, args.data, args.output, reduced=args.reduced):
        script, *arguments = step.command
        status = subprocess.run([sys.executable, str(_PLAN.with_name(script)), *arguments], check=False).returncode
        if status:
            raise LungD2Error(f"tools/{script}", found=f"exit status {status}", remedy="see its message above")


def _train(plan: Plan, runs: list[Run], args: argparse.Namespace) -> None:
    todo = [run for run in runs if not run.results(plan.dataset).is_file()]
    threads = max(len(os.sched_getaffinity(0)) // args.workers, 1)
    jobs = [(run, build_config(plan, run, reduced=args.reduced, opts=args.opts)) for run in todo]
    running: dict[int, tuple[Run, BaseProcess]] = {}
    with tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run") as bar:
        try:
            while jobs or running:
                while jobs and len(running) < args.workers:
                    run, cfg = jobs.pop(0)
                    process = _start(run, cfg, threads)
                    running[process.sentinel] = run, process
                for sentinel in wait(list(running)):
                    run, process = running.pop(int(sentinel))
                    process.join()
                    if process.exitcode:
                        found = f"exit status {process.exitcode}"
                        raise TrainingError(run.name, found=found, remedy=f"see {run.folder / 'log.txt'}")
                    bar.set_postfix_str(run.name)
                    bar.update()
        finally:
            for _, process in running.values():
                process.terminate()


def _start(run: Run, cfg: CfgNode, threads: int) -> BaseProcess:
    # A process for each run: Detectron2's logs and registries are global.
    arguments = {"plain": run.arm.plain, "threads": threads}
    process = get_context("spawn").Process(target=train_run, args=(cfg,), kwargs=arguments)
    process.start()
    return process


if __name__ == "__main__":
    run_tool(main)
