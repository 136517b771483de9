#!/usr/bin/env python
r"""Train or test every arm of an ablation on every fold, the final ones on val over several seeds; write the table.

python tools/ablate.py --data SLICES --output output/ablation --reduced

It prepares the data sets of the folds and makes what the arms start from. May be stopped at any moment and started
again: runs that have ended are kept, others go on from their checkpoint. What was made or begun from another
split, or by other commands, is refused by name.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lung_d2.ablation.folds import FINAL
from lung_d2.ablation.plan import Plan, read_plan
from lung_d2.ablation.preparation import list_steps
from lung_d2.ablation.runs import Run, build_config, carry_out, list_runs
from lung_d2.ablation.table import write_table
from lung_d2.command_line import ERROR_STATUS, run_tool
from lung_d2.errors import LungD2Error, TrainingError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_PLAN = Path(__file__).with_name("ablation.yaml")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=_PLAN, help="its arms, folds and seeds (tools/ablation.yaml)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the slices, with split.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--reduced", action="store_true", help="the plan's smaller settings, for a CPU")
    parser.add_argument(
        "--arms", nargs="+", default=[], metavar="ARM", help="only these, and the arms whose weights they test (all)"
    )
    parser.add_argument("--splits", nargs="+", default=[], metavar="N", help="only these folds, or final (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="only these seeds (all)")
    parser.add_argument("--workers", type=_whole, default=1, help="runs at a time; they share the cores (1)")
    parser.add_argument("--table-only", action="store_true", help="train nothing, write the table of what has ended")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs over every run")
    return parser


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return int(text)


def main() -> None:
    """Train what has not ended yet, test what is of it, then write the table of all that has ended."""
    args = build_parser().parse_args()
    plan = read_plan(args.plan)
    choice = {"arms": args.arms, "splits": args.splits, "seeds": args.seeds}
    every = list_runs(plan, args.output, args.data, reduced=args.reduced)
    configs = [build_config(plan, run, reduced=args.reduced, opts=args.opts) for run in every]
    wanted = list_runs(plan, args.output, args.data, reduced=args.reduced, **choice)
    failed: list[str] = []
    if not args.table_only:
        for step in list_steps(plan, wanted, args.data, args.output, reduced=args.reduced):
            if step.is_due:  # a tool may have made two at once
                step.carry_out(_PLAN.parent)
        chosen = [(run, cfg) for run, cfg in zip(every, configs, strict=True) if run in wanted]
        failed = _carry_out([one for one in chosen if not one[0].arm.of], args.workers)
        failed += _carry_out([one for one in chosen if one[0].arm.of and one[0].is_trained], args.workers)
    if not failed or any(run.has_ended for run in every):
        write_table(plan, every, args.output, _describe(plan, every, configs, reduced=args.reduced))
    if failed:
        raise TrainingError(
            "; ".join(failed),
            found="ended with an error",
            remedy="see log.txt in their folders, or the traceback above",
        )


def _carry_out(runs: list[tuple[Run, CfgNode]], workers: int) -> list[str]:
    """Carry out what has not ended, so many at a time; return those that failed."""
    if not runs:
        return []
    todo = [(run, cfg) for run, cfg in runs if not run.has_ended]
    threads = max(len(os.sched_getaffinity(0)) // workers, 1)
    running: dict[int, tuple[Run, BaseProcess]] = {}
    failed = []
    with tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run") as bar:
        try:
            while todo or running:
                while todo and len(running) < workers:
                    run, cfg = todo.pop(0)
                    process = _start(run, cfg, threads)
                    running[process.sentinel] = run, process
                for sentinel in wait(list(running)):
                    run, process = running.pop(int(sentinel))
                    process.join()
                    failed += [str(run)] if process.exitcode else []
                    bar.set_postfix_str(str(run))
                    bar.update()
        finally:
            for _, process in running.values():
                process.terminate()
    return failed


def _start(run: Run, cfg: CfgNode, threads: int) -> BaseProcess:
    # A process for each run: Detectron2's logs and registries are global.
    process = get_context("spawn").Process(target=_carry_out_one, args=(run, cfg, threads))
    process.start()
    return process


def _carry_out_one(run: Run, cfg: CfgNode, threads: int) -> None:
    """Carry out a run in this process, with what it says in its ``log.txt``; a defect keeps its traceback on stderr."""
    from detectron2.utils.logger import setup_logger

    log = setup_logger(cfg.OUTPUT_DIR, name="lung_d2", abbrev_name="lung_d2")
    try:
        carry_out(run, cfg, threads=threads)
    except LungD2Error as error:
        log.error("%s: %s", run, error)
        sys.exit(ERROR_STATUS)


def _describe(plan: Plan, runs: Sequence[Run], configs: Sequence[CfgNode], *, reduced: bool) -> str:
    less = ""
    if reduced:
        on_val = f"; on val {_join(plan.reduced_final)}" if plan.reduced_final else ""
        less = f"Reduced: the first fold alone, whose starts serve val too, and {_join(plan.reduced)}{on_val}.\n\n"
    length = {run.split == FINAL: cfg.SOLVER.MAX_ITER for run, cfg in zip(runs, configs, strict=True)}
    long = " and ".join(f"{count} iterations {'for val' if final else 'on folds'}" for final, count in length.items())
    cfg = configs[0]
    return (
        f"{less}Each arm {long}, of {cfg.SOLVER.IMS_PER_BATCH} slices at "
        f"{' or '.join(map(str, cfg.INPUT.MIN_SIZE_TRAIN))} px, measured at {cfg.INPUT.MIN_SIZE_TEST} px, with "
        f"{cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE} proposals a slice learnt from and at most "
        f"{cfg.TEST.DETECTIONS_PER_IMAGE} detections; seed {cfg.SEED} unless said.\n"
    )


def _join(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


if __name__ == "__main__":
    run_tool(main)
