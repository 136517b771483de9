#!/usr/bin/env python
r"""Measure detections against a prepared data set: evaluation.json and evaluation.html.

python tools/evaluate.py --dataset NAME_val --results output/inference/NAME_val/coco_instances_results.json \
    --against other/inference/NAME_val/coco_instances_results.json --output evaluation
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lung_d2 import register_lung_datasets
from lung_d2.command_line import run_tool
from lung_d2.errors import ConfigError
from lung_d2.evaluation.bootstrap import DEFAULT_DRAWS
from lung_d2.evaluation.evaluate import EvaluationSettings
from lung_d2.evaluation.files import write_evaluation
from lung_d2.evaluation.truth import check_folder, find_sources


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help="data set; several are pooled")
    parser.add_argument(
        "--results", required=True, nargs="+", type=Path, metavar="FILE", help="COCO results, with masks"
    )
    parser.add_argument("--against", nargs="+", type=Path, default=[], metavar="FILE", help="other results, to compare")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="from which detections count for Dice and slices (0.5)"
    )
    parser.add_argument(
        "--false-positives",
        type=float,
        nargs="+",
        default=[],
        metavar="RATE",
        help="of each image and series, to name the score threshold for beside the usual rates",
    )
    parser.add_argument("--draws", type=int, default=DEFAULT_DRAWS, help="of patients, for intervals; 0: none (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    return parser


def main() -> None:
    """Check that each data set has its files, and measure."""
    args = build_parser().parse_args()
    settings = EvaluationSettings(args.score_threshold, args.draws, args.seed, tuple(args.false_positives))
    register_lung_datasets()
    sources = find_sources(args.dataset)
    for option, files in (("--results", args.results), ("--against", args.against)):
        if files and len(files) != len(sources):
            raise ConfigError(
                option,
                found=f"{len(files)} file(s)",
                expected=f"{len(sources)}, one for each --dataset",
                remedy="give as many",
            )
        for source, file in zip(sources, files, strict=False):
            check_folder(file, source.name)
    write_evaluation(sources, args.results, args.output, settings, args.against)


if __name__ == "__main__":
    run_tool(main)
