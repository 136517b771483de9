#!/usr/bin/env python
r"""Detect lesions on a chest CT: a series in, detections and overlay pictures out.

python tools/recognize.py --config-file output/config.yaml --weights output/model_final.pth \
        --input DICOM_FOLDER --output results
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path

from lung_d2 import load_config, recognize
from lung_d2.categories import CATEGORIES
from lung_d2.command_line import run_tool
from lung_d2.data.folders import create_folder
from lung_d2.recognition import DEFAULT_SCORE, Recognition

logger = logging.getLogger("recognize")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="config of the training, or the config.yaml it wrote")
    parser.add_argument("--weights", required=True, help="checkpoint of the training")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        help="DICOM folder or files, NIfTI, NRRD, MetaImage, or 8-bit pictures or a folder of them",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument("--series-uid", help="which series, where the input holds several")
    parser.add_argument(
        "--score-threshold", type=float, default=DEFAULT_SCORE, help=f"of the overlays (default {DEFAULT_SCORE})"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Load the model, recognise, write and say what was found."""
    args = build_parser().parse_args()
    from lung_d2.engine import CTPredictor

    create_folder(args.output)  # now, rather than after all the work
    cfg = load_config(args.config_file, [*args.opts, "MODEL.WEIGHTS", args.weights])
    predictor = CTPredictor(cfg)
    source = args.input[0] if len(args.input) == 1 else args.input
    recognition = recognize(source, predictor, series_uid=args.series_uid)
    folder = recognition.write(args.output, score=args.score_threshold)
    _say(recognition, args.score_threshold)
    logger.info("written to %s", folder)


def _say(recognition: Recognition, score: float) -> None:
    shown = [found.above(score) for found in recognition.detections]
    counts = Counter(int(category) for found in shown for category in found.category_ids)
    slices = sum(1 for found in shown if len(found))
    if not counts:
        logger.info("no lesion found with score >= %g on %d slices", score, len(shown))
    for category in CATEGORIES:
        if counts[category.coco_id]:
            logger.info("%s: %d detections with score >= %g", category.name, counts[category.coco_id], score)
    logger.info("%d of %d slices have detections; research use only", slices, len(shown))


if __name__ == "__main__":
    run_tool(main)
