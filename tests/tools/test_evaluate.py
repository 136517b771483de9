"""The tool as it is called."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lung_d2.engine import LungCheckpointer, LungTrainer
from tiny import tiny_config, write_tiny_dataset

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_tiny_dataset(folder)
    return folder


def perfect(root, split="val"):
    content = json.loads((root / "lung_ct" / "tiny" / "annotations" / f"{split}.json").read_text())
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{key: one[key] for key in keys} | {"score": 0.9} for one in content["annotations"]]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def run(root, *arguments, tool="evaluate.py"):
    environment = os.environ | {"DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=TOOLS.parent)


def test_results_are_measured_and_compared(root, tmp_path):
    own, other = write(tmp_path / "a.json", perfect(root)), write(tmp_path / "b.json", perfect(root)[::2])
    options = ("--against", other, "--draws", 20, "--score-threshold", 0.3, "--false-positives", 3, 0.01)
    done = run(root, "--dataset", "tiny_val", "--results", own, "--output", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["metrics"]["coco"]["figures"]["segm"]["AP"]["all"]["value"] == pytest.approx(100)
    told = {"score_threshold": 0.3, "hit_iou": 0.1, "draws": 20, "seed": 0, "false_positive_rates": [3, 0.01]}
    assert content["settings"] == told
    assert "0.01" in content["metrics"]["froc"]["curves"]["slice_per_image"]["all"]["thresholds"]
    assert content["comparison"]["metrics"]["coco"]["figures"]["segm"]["AP"]["all"]["difference"] > 1
    assert (tmp_path / "out" / "evaluation.html").is_file()
    assert "Mask AP, %: 100.0" in done.stderr


def call(root, monkeypatch, capsys, *arguments):
    """Run the tool in this process; return its status and what it wrote to stderr."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(TOOLS / "evaluate.py"), run_name="__main__")
    return left.value.code, capsys.readouterr().err


def test_data_sets_are_pooled(root, tmp_path, monkeypatch, capsys):
    files = [write(tmp_path / f"{split}.json", perfect(root, split)) for split in ("val", "train")]
    arguments = ("--dataset", "tiny_val", "tiny_train", "--results", *files, "--output", tmp_path / "out")
    assert call(root, monkeypatch, capsys, *arguments, "--draws", 0)[0] == 0
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (content["data"]["names"], content["data"]["patients"]) == (["tiny_val", "tiny_train"], 4)
    assert content["metrics"]["slices"]["figures"]["auc"]["all"]["value"] == 1


@pytest.mark.parametrize(
    ("dataset", "results", "options", "said"),
    [
        ("none_val", "a.json", (), "data set none_val: not prepared"),
        ("tiny_val", "gone.json", (), "gone.json: no such file"),
        ("tiny_val", "train.json", (), "expected an image of tiny_val; give the --dataset that these results are of"),
        ("tiny_val", "tiny_train/a.json", (), "results of tiny_train, by the name of their folder"),
        ("tiny_val", "a.json", ("--against", "a.json", "a.json"), "--against: 2 file(s); expected 1"),
        ("tiny_val", "a.json", ("--score-threshold", "2"), "score threshold: 2; expected 0 to 1"),
    ],
)
def test_wrong_arguments_end_in_one_line(root, tmp_path, monkeypatch, capsys, dataset, results, options, said):
    for name in ("a.json", "tiny_train/a.json"):
        write(tmp_path / name, perfect(root))
    write(tmp_path / "train.json", perfect(root, "train"))
    arguments = ("--dataset", dataset, "--results", tmp_path / results, "--output", tmp_path / "out", *options)
    status, written = call(root, monkeypatch, capsys, *arguments)
    assert status == 2
    assert written.splitlines()[-1].startswith("error: ")
    assert said in written.splitlines()[-1]


def test_evaluation_of_a_model_measures_as_well(root, tmp_path):
    cfg = tiny_config(root, tmp_path)
    LungCheckpointer(LungTrainer.build_model(cfg), str(tmp_path)).save("random")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    weights = ("MODEL.WEIGHTS", tmp_path / "random.pth")
    done = run(root, "--config-file", tmp_path / "config.yaml", "--eval-only", *weights, tool="train_net.py")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "inference" / "tiny_val"
    content = json.loads((folder / "evaluation.json").read_text())
    of_coco = json.loads((folder / "results.json").read_text())
    for task in ("bbox", "segm"):
        for metric in ("AP", "AP50", "AP75", "APs"):
            value = content["metrics"]["coco"]["figures"][task][metric]["all"]["value"]
            assert value == pytest.approx(of_coco[task][metric])
    assert (folder / "evaluation.html").is_file()
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "lung_d2.evaluation.files" in line]
    assert 2 <= len(ours) <= 8, ours  # a headline
