"""What the tool makes of folders and options, without the network: series are stood in for."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ct.dicom_files import write_series
from lung_d2.errors import ConfigError, InputError
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.summary import DONE

TOOL = Path(__file__).resolve().parents[2] / "tools" / "recognize.py"
BASE = TOOL.parents[1] / "configs" / "Base-LungCT-RCNN-FPN.yaml"


def write_result(job, source):
    folder = job.output / source.name
    (folder / "overlays").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"slices": len(source.paths), "seconds": {"total": 1}}))
    return folder, DONE


@pytest.fixture
def tool(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("recognize", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(RecognitionJob, "run", write_result)
    monkeypatch.chdir(tmp_path)
    Path("model.pth").touch()

    def run(*words):
        given = ["--config-file", BASE, "--weights", "model.pth", "--output", "out", *words]
        monkeypatch.setattr(sys, "argv", ["recognize.py", *map(str, given)])
        return module.main()

    return run


def summary():
    with Path("out/summary.csv").open() as file:
        return [(row["status"], row["error_found"]) for row in csv.DictReader(file)]


def write_unreadable(folder):
    (path,) = write_series(folder, 1, names=["bad"], transfer_syntax=DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:400])
    return path


def test_one_series_in_a_folder_has_a_summary(tool):
    paths = write_series(Path("series"), 3)
    assert tool("--input", "series") == 0
    assert summary() == [("done", "")]
    Path("out/summary.csv").unlink()
    for folder in Path("out").iterdir():
        folder.rename("earlier")
    assert tool("--input", *paths) == 0
    assert not Path("out/summary.csv").exists()


def test_unreadable_file_of_a_tree_fails_alone(tool, caplog):
    write_series(Path("tree/good"), 3)
    bad = write_unreadable(Path("tree/bad"))
    assert tool("--input", "tree") == 2
    assert [status for status, _ in summary()] == ["done", "failed"]
    assert f"error: {bad}: damaged DICOM header" in caplog.text


def test_unreadable_file_that_is_named_is_refused_at_once(tool):
    paths = write_series(Path("tree/good"), 3)
    with pytest.raises(InputError, match="bad: damaged DICOM header"):
        tool("--input", *paths, write_unreadable(Path("tree/bad")))
    assert list(Path("out").iterdir()) == []


def test_series_that_fails_alone_in_a_folder_is_in_the_summary(tool, monkeypatch):
    def fail(job, source):
        raise InputError(source.title, found="a gap", remedy="export it again")

    monkeypatch.setattr(RecognitionJob, "run", fail)
    write_series(Path("series"), 3)
    with pytest.raises(InputError, match=r"series 1.* in series: a gap"):
        tool("--input", "series")
    assert summary() == [("failed", "a gap")]


def test_results_in_the_input_are_no_input_the_next_time(tool):
    Path("tree").mkdir()
    write_series(Path("tree/series"), 3)
    assert tool("--input", "tree", "--output", "tree/out") == 0
    (folder,) = (path for path in Path("tree/out").iterdir() if path.is_dir())
    write_series(folder, 2, SeriesInstanceUID="1.2.99")
    folder.rename(folder.with_name("earlier"))
    assert tool("--input", "tree", "--output", "tree/out") == 0
    assert Path("tree/out/summary.csv").read_text().count("done") == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--score-threshold", "2"), ("--min-volume-mm3", "-1"), ("--max-gap-mm", "nan")]
)
def test_setting_out_of_bounds_is_named_by_its_option(tool, option, value):
    with pytest.raises(ConfigError, match=f"^{option}: .*; expected 0 "):
        tool("--input", "none", f"{option}={value}")
