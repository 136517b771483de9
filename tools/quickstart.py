#!/usr/bin/env python
"""Show the whole method on synthetic patients: what tools/quickstart.sh runs after the set-up.

Each stage is one of the project's own tools, called as a user would; its command is printed. A stage that is done is
not done again: remove the output folder to start anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lung_d2.categories import CATEGORIES
from lung_d2.command_line import run_tool
from lung_d2.errors import LungD2Error
from lung_d2.files import pseudonym, read_key, write_json

logger = logging.getLogger("quickstart")

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/quick_schedules/mask_rcnn_R_50_FPN_phantom_cpu.yaml"
DATASET = "phantom_quick"
OWN_SERIES = "recognise --series"


# Of the log of a training or an evaluation, the terminal shows how far it is; the rest is in the stage's log file.
_PROGRESS = re.compile(r"(eta: .*? loss_cls)|(Inference done .*)|(error: .*)|(the loss has converged.*)")


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Attributes:
        name: What the table calls it.
        command: Tool and arguments, relative to the repository.
        is_done: Whether its result is there.
        is_wordy: Whether its log goes to a file, and only its progress to the terminal.
        repeats: Whether it is done at every call.
    """

    name: str
    command: tuple[str, ...]
    is_done: Callable[[], bool]
    is_wordy: bool = False
    repeats: bool = False


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="DICOM folder or volume file of your own to recognise as well")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "quickstart", help="folder for everything")
    parser.add_argument("--preset", default="quick", help="phantoms to build: quick (default) or mini")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Run the stages, then print the table."""
    args = build_parser().parse_args()
    output = args.output.resolve()
    series = args.series.resolve() if args.series else None
    output.mkdir(parents=True, exist_ok=True)
    seconds = _read_json(output / "seconds.json", {})
    seconds.pop(OWN_SERIES, None)
    for stage in build_stages(output, args.preset, tuple(args.opts)):
        _run(stage, output, seconds)
    _run(_recognise("recognise", _held_out_series(output), output), output, seconds)
    if series:
        _run(_recognise(OWN_SERIES, series, output, repeats=True), output, seconds)
    _say(output, seconds)


def build_stages(output: Path, preset: str = "quick", opts: tuple[str, ...] = ()) -> list[Stage]:
    """Return the stages up to the evaluation."""
    model, cohort = output / "model", output / "cohort"
    prepare = ("--name", DATASET, "--instances", "values", "--val-fraction", "0.2", "--overwrite")
    train = ("tools/train_net.py", "--config-file", CONFIG)
    weights = model / "model_final.pth"
    # What the config expects holds for the quick phantoms and the whole schedule.
    expected = ("TEST.EXPECTED_RESULTS", "()") if opts or preset != "quick" else ()
    return [
        Stage(
            "build phantoms",
            ("tools/make_phantom.py", "--preset", preset, "--out", str(cohort)),
            (output / "cohort.done").is_file,
        ),
        Stage(
            "prepare",
            ("tools/prepare_dataset.py", "dicom", str(cohort), *prepare),
            (_dataset_folder(output) / "annotations" / "val.json").is_file,
        ),
        Stage(
            "train",
            (*train, "--resume", "OUTPUT_DIR", str(model), "DATASETS.TEST", "()", *opts),
            weights.is_file,
            is_wordy=True,
        ),
        Stage(
            "evaluate",
            (*train, "--eval-only", "OUTPUT_DIR", str(model), "MODEL.WEIGHTS", str(weights), *expected, *opts),
            _results(output).is_file,
            is_wordy=True,
        ),
    ]


def _recognise(name: str, series: Path, output: Path, *, repeats: bool = False) -> Stage:
    model, results = output / "model", output / "recognition"
    weights = ("--config-file", str(model / "config.yaml"), "--weights", str(model / "model_final.pth"))
    return Stage(
        name,
        ("tools/recognize.py", *weights, "--input", str(series), "--output", str(results)),
        lambda: not repeats and any(results.glob("*/detections.json")),
        repeats=repeats,
    )


def _run(stage: Stage, output: Path, seconds: dict[str, float]) -> None:
    if stage.is_done():
        logger.info("== %s: done before", stage.name)
        return
    logger.info("== %s\n$ python %s", stage.name, shlex.join(_shorten(part) for part in stage.command))
    start = time.monotonic()
    status = _run_wordy(stage, output) if stage.is_wordy else _start(stage, output).wait()
    if status:
        raise LungD2Error(
            f"stage {stage.name}", found=f"exit status {status}", remedy="see its message above, then run this again"
        )
    if stage.name == "build phantoms":
        (output / "cohort.done").touch()
    # A stage that was interrupted and resumed took the time of all its parts.
    earlier = 0.0 if stage.repeats else seconds.get(stage.name, 0.0)
    seconds[stage.name] = earlier + time.monotonic() - start
    write_json(seconds, output / "seconds.json")


def _start(stage: Stage, output: Path, **streams: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"DETECTRON2_DATASETS": str(output / "datasets")}
    command = [sys.executable, *stage.command]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)


def _run_wordy(stage: Stage, output: Path) -> int:
    path = output / f"{stage.name}.log"
    process = _start(stage, output, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    with path.open("a") as log:
        for line in process.stdout:
            log.write(line)
            if match := _PROGRESS.search(line):
                logger.info("   %s", " ".join(match.group().removesuffix("loss_cls").split()))
    if status := process.wait():
        logger.info("%s", "".join(path.read_text().splitlines(keepends=True)[-15:]))
    return status


def _shorten(part: str) -> str:
    return str(Path(part).relative_to(ROOT)) if part.startswith(f"{ROOT}{os.sep}") else part


def _dataset_folder(output: Path) -> Path:
    return output / "datasets" / "lung_ct" / DATASET


def _results(output: Path) -> Path:
    return output / "model" / "inference" / f"{DATASET}_val" / "results.json"


def _held_out_series(output: Path) -> Path:
    """Return the DICOM folder of the first held-out patient."""
    from lung_d2.ct import find_series
    from lung_d2.data.dataset import KEY_NAME

    dataset = _dataset_folder(output)
    held_out = {image["series"] for image in _read_json(dataset / "annotations" / "val.json")["images"]}
    key_file = dataset / KEY_NAME  # data sets of earlier versions have none, and name series by plain hashes
    key = read_key(key_file) if key_file.is_file() else None
    for folder in sorted(path for path in (output / "cohort").iterdir() if path.is_dir()):
        series = find_series(folder)[0].series_hash
        if (series if key is None else pseudonym("series", series, key)) in held_out:
            return folder
    raise LungD2Error(output, found="no held-out series", remedy="remove this folder and run again")


def _say(output: Path, seconds: dict[str, float]) -> None:
    results = _read_json(_results(output))
    rows = [["box AP", results["bbox"]["AP"]], ["mask AP", results["segm"]["AP"]]]
    for category in CATEGORIES:
        rows.append([f"box AP50, {category.name}", results["bbox"][f"AP50-{category.name}"]])
        rows.append([f"mask AP50, {category.name}", results["segm"][f"AP50-{category.name}"]])
    rows += [[f"seconds: {name}", value] for name, value in seconds.items()]
    rows.append(["seconds: all", sum(seconds.values())])
    print(tabulate(rows, headers=["on held-out phantoms", ""], floatfmt=".1f", tablefmt="simple"))
    print(_describe_model(output))
    for folder in sorted(path for path in (output / "recognition").iterdir() if path.is_dir()):
        pictures = sorted((folder / "overlays").glob("*.png"))
        print(f"overlays: {_shorten(str(folder / 'overlays'))} ({len(pictures)} slices with detections)")
    print(f"curves:   {_shorten(str(output / 'model' / 'training_curves.png'))}")
    print(
        "Trained on synthetic patients for minutes: it shows the way, and finds little on real CT. Research use only."
    )


def _describe_model(output: Path) -> str:
    from lung_d2 import load_config

    logging.getLogger("lung_d2").setLevel(logging.WARNING)
    cfg = load_config(output / "model" / "config.yaml")
    return (
        f"ResNet-{cfg.MODEL.RESNETS.DEPTH} from random weights at {cfg.INPUT.MIN_SIZE_TEST} px, "
        f"{cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH} slices on {cfg.MODEL.DEVICE};\n"
        f"for the quick start alone, a pyramid of {cfg.MODEL.FPN.OUT_CHANNELS} channels (else 256) and smaller heads"
    )


def _read_json(path: Path, default: Any = None) -> Any:
    return json.loads(path.read_text()) if path.is_file() or default is None else default


if __name__ == "__main__":
    run_tool(main)
