"""From a training run to a file that alone is enough to recognise, by the tools as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ct.dicom_files import write_series
from engine.weights_samples import read_texts
from recognition.chests import write_model

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *words, cwd, **variables):
    command = [sys.executable, TOOLS / tool, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with a run of user jane, and what was exported of it."""
    root = tmp_path_factory.mktemp("export")
    (root / "home" / "jane").mkdir(parents=True)
    config, weights = write_model(root / "home" / "jane", "MODEL.WEIGHTS", "/home/jane/secret/start.pth")
    words = ["--config-file", config, "--weights", weights, "--output", "ours.safetensors", "--licence", "CC BY 4.0"]
    done = run("export_weights.py", *words, "--note", "One.", "Two.", cwd=root)
    assert done.returncode == 0, done.stderr
    assert " MB, written to ours.safetensors" in done.stderr
    digest = (root / "ours.safetensors.sha256").read_text()
    assert digest.strip() in done.stderr
    return root


def test_file_names_neither_user_nor_folder(folder):
    texts = read_texts(folder / "ours.safetensors")
    provenance = json.loads(texts["lung_d2.provenance"])
    assert (provenance["start"], provenance["licence"]) == ("start.pth", "CC BY 4.0")
    assert provenance["notes"] == ["One.", "Two."]
    assert {"lung_d2", "torch", "detectron2"} <= provenance["versions"].keys()
    content = (folder / "ours.safetensors").read_bytes()
    for word in ("jane", "/home", "/tmp", str(folder)):
        assert word.encode() not in content


def test_name_that_is_taken_is_refused_first(folder):
    words = ["--config-file", "none.yaml", "--weights", "none.pth", "--output", "ours.safetensors"]
    done = run("export_weights.py", *words, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: ours.safetensors: exists already; give --overwrite, or another --output"


@pytest.mark.parametrize("weights", ["ours.safetensors", "ours"])
def test_recognition_needs_no_config(folder, tmp_path, weights):
    write_series(tmp_path / "series", 3)
    if weights.endswith(".safetensors"):
        weights = folder / weights
    words = ["--weights", weights, "--input", "series", "--output", "out", "--score-threshold", "0"]
    done = run("recognize.py", *words, cwd=tmp_path, LUNG_D2_WEIGHTS=str(folder))
    assert done.returncode == 0, done.stderr
    (result,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    model = json.loads((result / "findings.json").read_text())["model"]
    assert (model["name"], model["data"], model["iterations"]) == ("ours", ["tiny_train"], None)
    assert model["weights_sha256"] == (folder / "ours.safetensors.sha256").read_text().split()[0]
    assert json.loads((result / "manifest.json").read_text())["name"] == "ours"
    assert "Trained on" in (result / "report.html").read_text()


def test_unknown_name_lists_those_there_are(folder, tmp_path):
    write_series(tmp_path / "series", 3)
    words = ["--weights", "../ours", "--input", "series", "--output", "out"]
    done = run("recognize.py", *words, cwd=tmp_path, LUNG_D2_WEIGHTS=str(folder))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ../ours: no weights of this name")
    assert "one of the names: " in last
    assert "ours;" in last


def test_config_of_another_model_is_refused(folder, tmp_path):
    write_series(tmp_path / "series", 3)
    config = folder / "home" / "jane" / "config.yaml"
    words = ["--config-file", config, "--weights", folder / "ours.safetensors", "--input", "series", "--output", "out"]
    done = run("recognize.py", *words, "INPUT.CT.WINDOW_WIDTH", "400.0", cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "trained with INPUT.CT.WINDOW_WIDTH 1500" in last


def test_config_that_is_not_of_a_detector_is_refused_before_it_is_built(tmp_path):
    base = TOOLS.parent / "configs" / "Base-LungCT-RCNN-FPN.yaml"
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {base}\nMODEL: {{META_ARCHITECTURE: SemanticSegmentor}}\n")
    words = ["--config-file", config, "--weights", "none.pth", "--output", "ours.safetensors"]
    done = run("export_weights.py", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "MODEL.META_ARCHITECTURE 'SemanticSegmentor'; expected GeneralizedRCNN" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [config]
