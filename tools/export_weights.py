#!/usr/bin/env python
r"""Export a trained model as one small file: fp16 weights with config, categories, grey levels and where it is from.

python tools/export_weights.py --config-file output/config.yaml --weights output/model_final.pth \
        --output NAME.safetensors --evaluation output/inference/DATASET/evaluation.json --licence Apache-2.0

The file is all that tools/recognize.py --weights NAME.safetensors needs. Its SHA-256 is written beside it. It names no
folder: keys of the config that name one get their default; licence and notes are kept as you write them. If the data
sets of the training are prepared here (DETECTRON2_DATASETS), the file tells what they hold.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lung_d2.categories import CATEGORIES
from lung_d2.command_line import run_tool
from lung_d2.config.loading import load_config
from lung_d2.errors import OutputError, detectron2_missing

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
    from lung_d2.engine.weights.export import build_provenance, export_weights
    from lung_d2.engine.weights.file import bound_settings, check_trusted
    from lung_d2.engine.weights.names import SUFFIX
    from lung_d2.findings.manifest import list_versions

    if args.output.suffix != SUFFIX:
        raise OutputError(args.output, found="another ending", expected=f"NAME{SUFFIX}", remedy="rename it")
    if args.output.exists() and not args.overwrite:
        raise OutputError(args.output, found="exists already", remedy="give --overwrite, or another --output")
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu"])
    check_trusted(cfg, args.config_file)
    model = build_model(cfg).eval()
    checkpointer = LungCheckpointer(model, settings=bound_settings(cfg))
    checkpoint = checkpointer.load(str(args.weights))
    register_lung_datasets()
    provenance = build_provenance(
        *(args.output.stem, cfg, args.weights, checkpoint, list_versions()),
        evaluations=args.evaluation,
        licence=args.licence,
        notes=args.note,
    )
    digest = export_weights(model, cfg, provenance, args.output, checkpointer.categories or CATEGORIES)
    logger.info("%s  %s", digest, args.output.name)
    logger.info("%.1f MB, written to %s", args.output.stat().st_size / 1e6, args.output)


if __name__ == "__main__":
    run_tool(main)
