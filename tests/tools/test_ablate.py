"""The tool as it is called, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lung_d2.categories import GROUND_GLASS_OPACITY
from tiny import CONFIGS, TINY_OPTS, tiny_slices

TOOL = Path(__file__).resolve().parents[2] / "tools" / "ablate.py"
PLAN = {
    "configs": str(CONFIGS),
    "base": "Base-LungCT-RCNN-FPN.yaml",
    "dataset": "tiny",
    "prepare": ["slices", "--images", "ct", "--masks", "mask=ground_glass_opacity", "--allow-duplicates"],
    "folds": [["a"]],
    "settings": {key: str(value) for key, value in zip(TINY_OPTS[::2], TINY_OPTS[1::2], strict=True)},
    "reduced": {"SOLVER.MAX_ITER": 2, "INPUT.CT.GREY": "minmax_clahe"},
    "reduced_final": {"SOLVER.MAX_ITER": 3},
    "arms": {
        "base": {"about": "ours", "final": True},
        "sigmoid": {"about": "one each", "parts": ["variants/sigmoid.yaml"], "against": "base"},
        "strict": {"about": "less overlap", "of": "base", "parts": ["ablation/nms_03.yaml"], "final": True},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    rows = ["file,patient,split"]
    for kind in ("ct", "mask"):
        (folder / kind).mkdir()
    for number, patient in enumerate("abcd"):
        for item in tiny_slices(number, slices=3, size=64, seed=0):
            name = f"{patient}{item.slice_index}.png"
            grey = np.clip((item.plane.astype(np.float64) + 1000) / 5, 0, 255).astype(np.uint8)
            opacity = next((mask for category, mask in item.instances if category == GROUND_GLASS_OPACITY), grey < 0)
            cv2.imwrite(str(folder / "ct" / name), grey)
            cv2.imwrite(str(folder / "mask" / name), np.uint8(255) * opacity)
            rows.append(f"{name},{patient},{'val' if patient == 'd' else 'train'}")
    (folder / "split.csv").write_text("\n".join(rows))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DETECTRON2_DATASETS": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOL), "--data", str(folder), "--output", str(folder / "out"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_runs_end_in_a_table_and_are_not_run_again(folder):
    plan = ("--plan", str(folder / "plan.yaml"), "--reduced", "--workers", "2")
    done = run(folder, *plan)
    assert done.returncode == 0, done.stderr
    table = json.loads((folder / "out" / "ablation.json").read_text())
    assert "on val SOLVER.MAX_ITER 3.\n\nEach arm 2 iterations on folds and 3 iterations for val, of" in table["about"]
    assert [row["arm"] for row in table["sections"]["Val, seed 1"]] == ["base", "strict"]
    rows = table["sections"]["Folds over the training patients"]
    assert [row["arm"] for row in rows] == ["base", "sigmoid", "strict"]
    assert [row["against"]["arm"] for row in rows[1:]] == ["base", "base"]
    results = sorted((folder / "out").rglob("coco_instances_results.json"))
    times = [path.stat().st_mtime_ns for path in results]
    assert len(results) == 5
    assert run(folder, *plan).returncode == 0
    assert [path.stat().st_mtime_ns for path in results] == times


def test_missing_plan_is_one_line_and_status_2(folder):
    done = run(folder, "--plan", str(folder / "none.yaml"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder / 'none.yaml'}")


def test_run_that_fails_is_named_with_its_log(folder):
    done = run(
        folder,
        "--plan",
        str(folder / "plan.yaml"),
        "--arms",
        "strict",
        "--output",
        str(folder / "other"),
        "--opts",
        "DATASETS.TEST",
        "('none_val',)",
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "base, 0, seed 1" in last
    assert "strict" not in last  # of which there are no weights to test
    assert not (folder / "other" / "strict").exists()
    assert "none_val" in (folder / "other" / "base" / "0_seed1" / "log.txt").read_text()
