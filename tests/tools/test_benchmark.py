"""The benchmark runs on a tiny input, and its table is complete; no time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
FIGURES = ("series_speedup", "network_speedup", "roofline_share", "train_speedup", "loader_speedup", "startup_s")


@pytest.mark.slow
def test_every_part_is_in_the_table(tmp_path: Path) -> None:
    words = ["--quick", "--threads", "1", "--output", tmp_path, "--parts"]
    parts = ("start", "series", "network", "decoding", "loading", "training", "scaling")
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, SCRIPT, *map(str, words), *parts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert all(isinstance(report[name], float) and report[name] > 0 for name in FIGURES), report
    assert report["reasons"] == {}
    assert {"read", "lungs", "network", "link", "DICOM SEG", "total"} <= report["stages"].keys()
    rows = {(row["what"], row["who"]) for row in report["rows"]}
    assert {what for what, _ in rows} == {"whole command", "network", "decoding", "loading", "training", "scaling"}
    assert {("network", "lung_d2"), ("network", "Detectron2"), ("network", "torchvision, random weights")} <= rows
    assert {("decoding", "as it is"), ("decoding", "plain"), ("decoding", "RLE")} <= rows
    assert {("scaling", "4 slices"), ("scaling", "8 slices"), ("whole command", "lung_d2")} <= rows
    assert {"convolution limit", "peak memory, MiB", "operations of a slice"} <= report["machine"].keys()
    table = (tmp_path / "benchmark.md").read_text()
    assert all(f"`{name}`" in table for name in FIGURES)
    assert (tmp_path / "benchmark.svg").stat().st_size > 0


def test_what_is_left_out_is_null_with_a_reason(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    words = ["--quick", "--threads", "1", "--output", str(tmp_path), "--parts", "loading"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmark.json").read_text())
    left_out = set(FIGURES) - {"loader_speedup"}
    assert report["loader_speedup"] > 0
    assert all(report[name] is None for name in left_out)
    assert report["reasons"].keys() == left_out
