"""The manifest: with what and how long, and nothing of the user."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lung_d2 import __version__
from lung_d2.errors import CheckpointError
from lung_d2.findings.manifest import ModelIdentity, StageClock, build_manifest, identify_model, list_versions

ROOT = Path(__file__).resolve().parents[2]
MODEL = ModelIdentity("c" * 64, "d" * 64, "cpu")


def run_alone(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return run.stdout.strip()


def test_model_is_identified_by_its_bytes(tmp_path: Path) -> None:
    weights = tmp_path / "jane_doe.pth"
    weights.write_bytes(b"weights")
    model = identify_model("A: 1\n", weights, "cuda (some GPU)")
    assert model.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert model.config_sha256 == hashlib.sha256(b"A: 1\n").hexdigest()
    assert "jane" not in json.dumps(build_manifest("bb", model, {}))


def test_weights_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth: cannot be read \(No such file or directory\)"):
        identify_model("", tmp_path / "gone.pth", "cpu")


def test_versions_are_those_installed() -> None:
    versions = list_versions()
    assert versions["lung_d2"] == __version__
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert versions["torch"]
    assert versions["detectron2"]  # under whatever name it is packaged


def test_package_that_is_missing_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lung_d2.findings.manifest.PACKAGES", ("no_such_package",))
    assert list_versions()["no_such_package"] is None


def test_versions_are_found_without_importing_torch() -> None:
    code = "import sys; from lung_d2.findings import manifest; manifest.list_versions(); print('torch' in sys.modules)"
    assert run_alone(code) == "False"


def test_clock_adds_up_a_stage_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.5, 10.0, 10.25, 20.0, 24.0])
    monkeypatch.setattr("lung_d2.findings.manifest.time.perf_counter", lambda: next(ticks))
    clock = StageClock()
    for name in ("read", "link", "read"):
        with clock.stage(name):
            pass
    assert clock.seconds == {"read": 5.5, "link": 0.25}


def test_clock_counts_a_stage_that_fails() -> None:
    clock = StageClock()
    with pytest.raises(ZeroDivisionError), clock.stage("read"):
        raise ZeroDivisionError
    assert clock.seconds["read"] >= 0


def test_manifest_holds_seconds_hashes_and_memory() -> None:
    manifest = build_manifest("bb", MODEL, {"read": 1.23456, "predict": 2.0})
    assert manifest["seconds"] == {"read": 1.235, "predict": 2.0, "total": 3.235}
    assert (manifest["series_hash"], manifest["device"], manifest["weights_sha256"]) == ("bb", "cpu", "d" * 64)
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it")
def test_peak_memory_is_the_most_so_far_in_mib() -> None:
    code = """
import numpy as np
from lung_d2.findings.manifest import ModelIdentity, build_manifest
peak = lambda: build_manifest("bb", ModelIdentity("", "", ""), {})["peak_memory_mib"]
before = peak()
block = np.ones(200 * 2**20, np.uint8)
del block
print(peak() - before)
"""
    assert 150 < float(run_alone(code)) < 250


def test_manifest_names_neither_machine_nor_user() -> None:
    text = json.dumps(build_manifest("bb", MODEL, {"read": 1.0}))
    names = {platform.node(), getpass.getuser(), str(Path.home()), str(Path.cwd())} - {"", "/"}
    assert not [name for name in names if f'"{name}' in text or f"{name}/" in text]


def test_model_is_named_by_what_its_weights_file_says(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    told = {"name": "ours", "data": [{"name": "a_train", "slices": 7}, {"name": "b_train"}], "iterations": 500}
    model = identify_model("A: 1", tmp_path / "weights", "cpu", json.dumps(told))
    assert (model.name, model.data, model.iterations) == ("ours", ("a_train", "b_train"), 500)
    manifest = build_manifest("bb", model, {})
    assert (manifest["name"], manifest["data"], manifest["iterations"]) == ("ours", ["a_train", "b_train"], 500)


@pytest.mark.parametrize("told", [{}, {"name": 7, "data": "x", "iterations": "many"}, {"data": [7, {"name": []}]}])
def test_what_a_weights_file_says_in_another_form_is_left_out(tmp_path: Path, told: dict[str, object]) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    model = identify_model("A: 1", tmp_path / "weights", "cpu", json.dumps(told))
    assert (model.name, model.data, model.iterations) == ("", (), None)
