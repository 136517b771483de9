from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ct.dicom_files import write_series
from lung_d2.data.planes import write_plane
from tiny import tiny_config

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "recognize.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Give the words that name a config as training dumps it, and random weights."""
    folder = tmp_path_factory.mktemp("model")
    cfg = tiny_config(folder, folder)
    torch.manual_seed(3)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return ["--config-file", folder / "config.yaml", "--weights", folder / "model.pth"]


def run(*words, cwd):
    command = [sys.executable, SCRIPT, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_series_in_detections_and_overlays_out(model, tmp_path):
    write_series(tmp_path / "series", 3)
    done = run(*model, "--input", "series", "--output", "out", "--score-threshold", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    detections = json.loads((folder / "detections.json").read_text())
    assert detections
    slices = {detection["image_id"] for detection in detections}
    assert slices <= {0, 1, 2}
    assert {path.name for path in (folder / "overlays").iterdir()} == {f"slice_{index:04d}.png" for index in slices}
    assert f"{len(slices)} overlays of slices with detections; research use only" in done.stderr
    assert f"written to out/{folder.name}" in done.stderr


def test_pictures_and_overrides(model, tmp_path):
    for name in ("a.png", "b.png"):
        write_plane(np.full((40, 50), 90, np.uint8), tmp_path / name)
    words = [*model, "--input", "a.png", "b.png", "--output", "out", "INPUT.CT.GREY", "minmax_clahe"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert len(json.loads((folder / "slices.json").read_text())["images"]) == 2


def test_input_that_cannot_be_read_is_one_line_and_leaves_nothing(model, tmp_path):
    (tmp_path / "notes.txt").write_text("no CT")
    done = run(*model, "--input", "notes.txt", "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: notes.txt: ")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_is_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").write_text("mine")
    words = ["--config-file", "none.yaml", "--weights", "none.pth", "--input", "none", "--output", "out"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: out: a file; expected a folder")
