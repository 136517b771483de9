#!/usr/bin/env python
r"""Find lesions on chest CT: from series on disk to lesions in 3-D, measured, drawn, and saved for viewers.

python tools/recognize.py --weights NAME.safetensors --input DICOM_FOLDER --output results
python tools/recognize.py --config-file output/config.yaml --weights output/model_final.pth \
        --input DICOM_FOLDER --output results

Each series gets a folder, named by a hash; a folder as input, or several series, give summary.csv too. Results that are
there already and made of the same files, weights and settings are kept, so that an interrupted run goes on where it
stopped. The exit status is 0 where every series was recognised, with lesions or without, and 2 where one failed or a
DICOM file could not be read.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
from pathlib import Path

from lung_d2.command_line import ERROR_STATUS, run_tool
from lung_d2.engine.lung_view import LungUse
from lung_d2.errors import ConfigError, InputError
from lung_d2.files import create_folder
from lung_d2.findings.document import FINDINGS_NAME
from lung_d2.lesions.link import LinkSettings
from lung_d2.lungs.field import finder_names, parse_finder
from lung_d2.recognition import LabelFiles, RecognitionSettings
from lung_d2.recognition.job import ModelChoice, RecognitionJob, read_config, read_origin
from lung_d2.recognition.many import recognize_all, restore_results, say_summary, write_summary
from lung_d2.recognition.settings import LOBE_VALUES
from lung_d2.recognition.sources import Inputs, find_inputs
from lung_d2.recognition.summary import FAILED, KEPT, failed_row, read_row
from lung_d2.recognition.workers import count_workers, run_in_processes, run_on_ray

logger = logging.getLogger("recognize")
LINK_OPTIONS = {
    "min_detection_score": "--score-threshold",
    "min_volume_mm3": "--min-volume-mm3",
    "min_extent_mm": "--min-extent-mm",
    "max_gap_mm": "--max-gap-mm",
}
LUNG_BOX = {"auto": None, "on": True, "off": False}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-file", type=Path, help="config of the training, or what it dumped; weights files hold their own"
    )
    parser.add_argument(
        "--weights", required=True, help="NAME.safetensors, the name of such a file that is known, or a checkpoint"
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=Path,
        help="DICOM folders (with all series under them) or files, NIfTI, NRRD, MetaImage, or 8-bit pictures",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument("--series-uid", help="only this series, where the input holds several")
    parser.add_argument(
        "--backend",
        choices=("torch", "openvino"),
        default="torch",
        help="what computes the network; openvino is faster on a CPU and needs lung_d2[openvino] (default %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="do a series again though its result is there")
    _add_lesions(parser)
    _add_lungs(parser)
    _add_workers(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def _add_lesions(parser: argparse.ArgumentParser) -> None:
    link, own = RecognitionSettings().link, parser.add_argument_group("lesions")
    own.add_argument(
        "--score-threshold",
        type=float,
        default=link.min_detection_score,
        help="least score of a detection on a slice, and of a lesion (default %(default)g)",
    )
    own.add_argument(
        "--min-volume-mm3",
        type=float,
        default=link.min_volume_mm3,
        help="smaller lesions are left out (default %(default)g)",
    )
    own.add_argument(
        "--min-extent-mm",
        type=float,
        default=link.min_extent_mm,
        help="lesions that extend less across the slices are left out (default %(default)g)",
    )
    own.add_argument(
        "--max-gap-mm",
        type=float,
        default=link.max_gap_mm,
        help="a lesion may be missed on slices of so many mm (default %(default)g)",
    )
    own.add_argument(
        "--segments",
        choices=("lesion", "category"),
        default="lesion",
        help="a segment of the DICOM segmentation is a lesion, or all of a category (default %(default)s)",
    )
    own.add_argument(
        "--empty-segmentation", action="store_true", help="write a segmentation of a category without lesions too"
    )


def _add_lungs(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("lungs")
    own.add_argument("--all-slices", action="store_true", help="run slices without lung too")
    own.add_argument(
        "--lung-box",
        choices=tuple(LUNG_BOX),
        default="auto",
        help="show the network the box around the lungs, at unchanged scale (default %(default)s: where the network "
        "has no layer, as group norm, to which all of the slice matters)",
    )
    own.add_argument("--keep-outside", action="store_true", help="keep detections outside of the lungs")
    own.add_argument(
        "--lungs",
        type=parse_finder,
        help=f"who finds the lungs: {', '.join(finder_names())}; or a label volume of them (1 right, 2 left), or a "
        "folder of them named by series (default: the lobes if given, else builtin)",
    )
    own.add_argument("--lobes", type=Path, help="label volume of the lobes, or a folder of them: findings per lobe")
    own.add_argument(
        "--lobe-values", choices=LOBE_VALUES, default=LOBE_VALUES[0], help="whose values they have (default by values)"
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("many series")
    own.add_argument("--workers", type=_positive, help="processes (default: 1 on a GPU, else by cores and memory)")
    own.add_argument("--batch-size", type=_positive, help="slices run together (default: 8 on a GPU, else 1)")
    own.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster, as 'auto'; needs lung_d2[ray]")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


def main() -> int:
    """Find the series, recognise them, and say what was found."""
    args = build_parser().parse_args()
    create_folder(args.output)  # now, rather than after all the work
    job = _build_job(args)
    read_origin(job.model)  # says now where weights miss
    inputs = find_inputs(args.input, args.series_uid, args.output)
    named_only = not any(path.is_dir() for path in args.input)
    if inputs.unreadable and len(inputs.series) == 1 and named_only:
        raise inputs.unreadable[0]
    if len(inputs.series) == 1 and not args.ray:
        return _recognize_one(inputs, job, with_summary=not named_only)
    if args.ray:
        run = functools.partial(run_on_ray, address=args.ray, workers=args.workers)
    else:
        workers = args.workers or count_workers(read_config(job.model).MODEL.DEVICE, len(inputs.series))
        run = functools.partial(run_in_processes, workers=min(workers, len(inputs.series)))
    rows = recognize_all(inputs, job, run)
    logger.info("%s; written to %s", say_summary(rows), args.output)
    return ERROR_STATUS if any(row.status == FAILED for row in rows) else 0


def _build_job(args: argparse.Namespace) -> RecognitionJob:
    return RecognitionJob(
        model=ModelChoice(args.config_file, (*args.opts, "MODEL.WEIGHTS", args.weights), args.batch_size, args.backend),
        output=args.output,
        settings=RecognitionSettings(
            use=LungUse(not args.all_slices, LUNG_BOX[args.lung_box], not args.keep_outside),
            link=_build_link(args),
            labels=LabelFiles(args.lungs, args.lobes, args.lobe_values),
            segment_per_lesion=args.segments == "lesion",
            write_empty_segmentation=args.empty_segmentation,
        ),
        overwrite=args.overwrite,
        progress=True,
    )


def _build_link(args: argparse.Namespace) -> LinkSettings:
    score = args.score_threshold
    try:
        return LinkSettings(
            score,
            score,
            max_gap_mm=args.max_gap_mm,
            min_volume_mm3=args.min_volume_mm3,
            min_extent_mm=args.min_extent_mm,
        )
    except ConfigError as error:
        raise error.at(LINK_OPTIONS[error.where]) from error


def _recognize_one(inputs: Inputs, job: RecognitionJob, with_summary: bool) -> int:
    restore_results(job.output)
    (source,) = inputs.series
    try:
        folder, status = job.run(source)
    except InputError as error:
        row = failed_row(source.name, source.series_instance_uid, error, source.paths)
        if with_summary:
            write_summary([row], inputs, job.output)
        raise
    if with_summary:
        write_summary([read_row(folder, source.series_instance_uid, status)], inputs, job.output)
    _say(folder)
    logger.info("%s %s", "kept, as it was made of the same:" if status == KEPT else "written to", folder)
    return ERROR_STATUS if inputs.unreadable else 0


def _say(folder: Path) -> None:
    findings = folder / FINDINGS_NAME
    if findings.is_file():
        logger.info("%s", json.loads(findings.read_text())["summary"])
    else:
        logger.info("%d pictures, detections alone: lesions in 3-D need a series", read_row(folder, "", KEPT).slices)
    drawn = len(list((folder / "overlays").glob("*.png")))
    logger.info("%d overlays of slices with detections; research use only", drawn)


if __name__ == "__main__":
    run_tool(main)
