from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import write_dataset

TOOLS = Path(__file__).resolve().parents[2] / "tools"
CONFIG = TOOLS.parent / "configs" / "Base-LungCT-RCNN-FPN.yaml"


def run(root, *arguments):
    command = [sys.executable, str(TOOLS / "compute_pixel_stats.py"), "--config-file", str(CONFIG), *arguments]
    environment = {"DETECTRON2_DATASETS": str(root), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_statistics_are_printed_as_overrides_that_a_config_takes(tmp_path):
    plane = np.full((128, 128), -1000, np.int16)
    plane[14:114, 14:114] = 0  # grey level 229.5 of the window -600 / 1500
    case = Case("case", "p", "s", partial(tuple, [AnnotatedSlice(plane, (), 0, (1.0, 1.0), 0.0)]), contiguous=True)
    write_dataset(tmp_path, "stats", [case], {"p": "train"})
    result = run(tmp_path, "--dataset", "stats_train")
    assert result.returncode == 0, result.stderr
    overrides = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    mean, std = (
        [float(value) for value in overrides[f"MODEL.PIXEL_{name}"].strip("[]").split(",")] for name in ("MEAN", "STD")
    )
    assert len(mean) == len(std) == 3
    assert all(abs(value - 229.5) < 2 for value in mean)
    again = run(tmp_path, "--dataset", "stats_train", *result.stdout.replace(", ", ",").split())
    assert again.stdout == result.stdout


def test_data_set_that_is_not_there_ends_in_one_line(tmp_path):
    result = run(tmp_path, "--dataset", "none_train")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: data set none_train: not prepared")
