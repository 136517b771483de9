"""From a training run to a file that alone is enough to recognise, by the tools as a user runs them."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ct.dicom_files import write_series
from engine.weights_samples import read_texts
from lung_d2.errors import LungD2Error
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


def test_recognition_needs_no_config(folder, tmp_path):
    write_series(tmp_path / "series", 3)
    words = ["--weights", "ours", "--input", "series", "--output", "out", "--score-threshold", "0"]
    done = run("recognize.py", *words, cwd=tmp_path, LUNG_D2_WEIGHTS=str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("device: ") == 1
    assert "eprecat" not in done.stderr
    (result,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    model = json.loads((result / "findings.json").read_text())["model"]
    assert (model["name"], model["data"], model["iterations"]) == ("ours", ["tiny_train"], None)
    assert model["weights_sha256"] == (folder / "ours.safetensors.sha256").read_text().split()[0]
    assert json.loads((result / "manifest.json").read_text())["name"] == "ours"
    assert "Trained on" in (result / "report.html").read_text()


def refuse(tool, *words):
    """Run a tool in this process; return the error that it ends with."""
    main = runpy.run_path(str(TOOLS / tool))["main"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [tool, *map(str, words)])
        with pytest.raises(LungD2Error) as caught:
            main()
    return str(caught.value)


def test_name_that_does_not_fit_is_refused_first(folder):
    words = ["--config-file", "none.yaml", "--weights", "none.pth", "--output"]
    taken = folder / "ours.safetensors"
    assert refuse("export_weights.py", *words, taken) == (
        f"{taken}: exists already; give --overwrite, or another --output"
    )
    assert "expected NAME.safetensors" in refuse("export_weights.py", *words, folder / "ours.pth")


def test_config_that_is_not_of_a_detector_is_refused_before_it_is_built(tmp_path):
    config = tmp_path / "other.yaml"
    base = TOOLS.parent / "configs" / "Base-LungCT-RCNN-FPN.yaml"
    config.write_text(f'_BASE_: "{base}"\nMODEL: {{META_ARCHITECTURE: "SemanticSegmentor"}}\n')
    words = ["--config-file", config, "--weights", "none.pth", "--output", tmp_path / "ours.safetensors"]
    message = refuse("export_weights.py", *words)
    assert "MODEL.META_ARCHITECTURE 'SemanticSegmentor'; expected GeneralizedRCNN" in message
    assert not (tmp_path / "ours.safetensors").exists()


def test_weights_that_do_not_fit_are_refused_before_the_series_is_read(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNG_D2_WEIGHTS", str(folder))
    write_series(tmp_path / "series", 3)
    words = ["--input", tmp_path / "series", "--output", tmp_path / "out"]
    unknown = refuse("recognize.py", "--weights", "../ours", *words)
    assert unknown.startswith("../ours: no weights of this name")
    assert "one of the names: " in unknown
    config = folder / "home" / "jane" / "config.yaml"
    words += ["--config-file", config, "--weights", folder / "ours.safetensors", "INPUT.CT.WINDOW_WIDTH", "400.0"]
    assert "trained with INPUT.CT.WINDOW_WIDTH 1500" in refuse("recognize.py", *words)
