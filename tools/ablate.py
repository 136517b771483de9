#!/usr/bin/env python
r"""Train or test every arm of an ablation on every fold, the final ones on val over several seeds; write the table.

python tools/ablate.py --data SLICES --output output/ablation --reduced

It prepares the data sets of the folds and makes what the arms start from. May be stopped at any moment and started
again: runs that have ended are kept, others go on from their checkpoint. What was made or begun from another
split, or by other commands, is refused by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lung_d2.ablation.plan import read_plan
from lung_d2.ablation.pool import carry_out_all
from lung_d2.ablation.preparation import list_steps
from lung_d2.ablation.runs import build_config, list_runs
from lung_d2.ablation.table import describe, write_table
from lung_d2.command_line import run_tool
from lung_d2.errors import TrainingError

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
        failed = carry_out_all([one for one in chosen if not one[0].arm.of], args.workers)
        failed += carry_out_all([one for one in chosen if one[0].arm.of and one[0].is_trained], args.workers)
    if not failed or any(run.has_ended for run in every):
        write_table(plan, every, args.output, describe(plan, every, configs, reduced=args.reduced))
    if failed:
        raise TrainingError(
            "; ".join(failed),
            found="ended with an error",
            remedy="see log.txt in their folders, or the traceback above",
        )


if __name__ == "__main__":
    run_tool(main)
