#!/usr/bin/env python
r"""Measure mean and standard deviation of the training slices inside the body, to fill MODEL.PIXEL_MEAN and PIXEL_STD.

python tools/compute_pixel_stats.py --config-file configs/mask_rcnn_R_50_FPN_lung_scratch.yaml
"""

from __future__ import annotations

import argparse
import logging

from detectron2.data import DatasetCatalog
from tqdm import tqdm

from lung_d2 import load_config, register_lung_datasets
from lung_d2.command_line import run_tool
from lung_d2.data.pixel_stats import measure_pixel_stats
from lung_d2.data.register import check_registered

logger = logging.getLogger("compute_pixel_stats")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="config whose INPUT.CT makes the images")
    parser.add_argument("--dataset", help="data set (default: all of DATASETS.TRAIN of the config)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Measure, and print the lines that a config takes."""
    args = build_parser().parse_args()
    register_lung_datasets()
    cfg = load_config(args.config_file, args.opts)
    names = [args.dataset] if args.dataset else list(cfg.DATASETS.TRAIN)
    check_registered(names)
    records = [record for name in names for record in DatasetCatalog.get(name)]
    stats = measure_pixel_stats(cfg, tqdm(records, desc="measure", unit="slice"))
    logger.info(
        "%s: %d slices, of which the body fills %.0f %%", ", ".join(names), stats.slices, 100 * stats.body_share
    )
    for key, values in (("PIXEL_MEAN", stats.mean), ("PIXEL_STD", stats.std)):
        print(f"MODEL.{key} [{', '.join(f'{value:.1f}' for value in values)}]")


if __name__ == "__main__":
    run_tool(main)
