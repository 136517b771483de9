"""The quick start as a user runs it, on the smallest phantoms: DICOM in, table and overlays out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lung_d2.ct import read_volume
from lung_d2.files import pseudonym, read_key

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "SOLVER.MAX_ITER",
    "3",
    "SOLVER.WARMUP_ITERS",
    "1",
    "INPUT.MIN_SIZE_TRAIN",
    "(96,)",
    "INPUT.MIN_SIZE_TEST",
    "96",
)


def run_quickstart(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/quickstart.py", "--preset", "mini", "--output", str(output), *options, *SMALL]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quick_start_ends_with_its_table_and_reuses_what_is_done(tmp_path: Path) -> None:
    first = run_quickstart(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    for row in (
        "box AP ",
        "mask AP ",
        "mask AP50, bronchiectasis",
        "seconds: train",
        "seconds: recognise",
        "overlays:",
    ):
        assert row in first.stdout
    results = json.loads((tmp_path / "model" / "inference" / "phantom_quick_val" / "results.json").read_text())
    assert set(results) == {"bbox", "segm"}
    (result,) = (path for path in (tmp_path / "recognition").iterdir() if path.is_dir())
    dataset = tmp_path / "datasets/lung_ct/phantom_quick"
    held_out = {image["series"] for image in json.loads((dataset / "annotations/val.json").read_text())["images"]}
    assert pseudonym("series", result.name, read_key(dataset / "pseudonym.key")) in held_out

    own = tmp_path / "cohort" / "patient_000" / "ct"
    second = run_quickstart(tmp_path, "--series", str(own))
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stderr.count("done before") == 5  # every stage but the one of the own series
    assert (tmp_path / "recognition" / read_volume(own).series_hash / "detections.json").is_file()
    assert "seconds: recognise --series" in second.stdout


@pytest.mark.slow
def test_stage_that_fails_is_named_in_one_line(tmp_path: Path) -> None:
    failed = run_quickstart(tmp_path, "SOLVER.NO_SUCH_KEY", "1")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: stage train: exit status 2")
    assert "SOLVER.NO_SUCH_KEY" in failed.stderr
    assert not (tmp_path / "recognition").exists()
