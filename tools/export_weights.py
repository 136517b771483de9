#!/usr/bin/env python
r"""Export a trained model as one small file: fp16 weights with config, categories, grey levels and where it is from.

python tools/export_weights.py --config-file output/config.yaml --weights output/model_final.pth \
        --output NAME.safetensors --evaluation output/inference/DATASET/evaluation.json --licence Apache-2.0

The file is all that tools/recognize.py --weights NAME.safetensors needs. Its SHA-256 is written beside it. Keys of the
config that hold a path get their default, and a note, licence or name that holds one, or an address with a user, is
refused. Where the data sets of the training are prepared here (DETECTRON2_DATASETS), it tells what they hold.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lung_d2.command_line import run_tool
from lung_d2.config.keys import load_config
from lung_d2.errors import detectron2_missing

logger = logging.getLogger("export_weights")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, type=Path, help="config.yaml that the training dumped")
    parser.add_argument("--weights", required=True, type=Path, help="checkpoint of the training")
    parser.add_argument("--output", required=True, type=Path, help="NAME.safetensors; NAME is that of the weights")
    parser.add_argument(
        "--evaluation",
        type=Path,
        nargs="+",
        default=[],
        help="evaluation.json of these weights, which is taken at your word; may be several",
    )
    parser.add_argument("--licence", default="", help="under which the weights may be used")
    parser.add_argument("--note", nargs="+", default=[], help="sentences to keep with them, as notices of licences")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    return parser


def main() -> None:
    """Load, export, read again and say what was written."""
    args = build_parser().parse_args()
    try:
        from detectron2.modeling import build_model
    except ImportError as error:
        raise detectron2_missing() from error
    from lung_d2.data import register_lung_datasets
    from lung_d2.engine import LungCheckpointer
    from lung_d2.engine.weights.export import check_output, export_weights
    from lung_d2.engine.weights.provenance import Remarks, build_provenance
    from lung_d2.engine.weights.settings import bound_settings, check_architecture
    from lung_d2.findings.manifest import list_versions

    check_output(args.output, overwrite=args.overwrite)
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu"])
    check_architecture(cfg, args.config_file)
    model = build_model(cfg).eval()
    checkpoint = LungCheckpointer(model, settings=bound_settings(cfg)).load(str(args.weights))
    register_lung_datasets()
    remarks = Remarks(tuple(args.evaluation), args.licence, tuple(args.note))
    provenance = build_provenance(args.output.stem, cfg, args.weights, checkpoint, list_versions(), remarks)
    written = export_weights(model, cfg, provenance, args.output)
    logger.info("features of the written file differ from those of the checkpoint by %.3f %%", 100 * written.difference)
    logger.info("%s  %s", written.sha256, args.output.name)
    logger.info("%.1f MB, written to %s", args.output.stat().st_size / 1e6, args.output)


if __name__ == "__main__":
    run_tool(main)
