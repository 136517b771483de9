"""An evaluation on disk."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from evaluation.samples import GGO, Slice, make_detections, perfect, square, to_dataset, to_results
from lung_d2.data.planes import write_plane
from lung_d2.errors import DatasetError, OutputError
from lung_d2.evaluation.evaluate import SCHEMA_VERSION, EvaluationSettings
from lung_d2.evaluation.files import EVALUATION_NAME, write_evaluation
from lung_d2.evaluation.page import PAGE_NAME
from lung_d2.evaluation.truth import Source

SLICES = [Slice([(GGO, square(4, 4, 20))], patient="a"), Slice(patient="b")]
FAST = EvaluationSettings(draws=10)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "val.json").write_text(json.dumps(to_dataset(SLICES)))
    for number in range(len(SLICES)):
        write_plane(np.full((64, 64), 90, np.uint8), tmp_path / f"{number}.png")
    return Source("made_val", tmp_path / "val.json", tmp_path)


def results(tmp_path, found, name="results.json"):
    path = tmp_path / name
    path.write_text(json.dumps(to_results(make_detections(found))))
    return path


def test_json_and_page_are_written(source, tmp_path):
    folder = tmp_path / "new" / "folder"
    content = write_evaluation([source], [results(tmp_path, perfect(SLICES))], folder, FAST)
    assert json.loads((folder / EVALUATION_NAME).read_text()) == content
    assert content["schema_version"] == SCHEMA_VERSION
    assert (folder / PAGE_NAME).read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in folder.iterdir()) == [PAGE_NAME, EVALUATION_NAME]


def test_other_results_are_compared(source, tmp_path):
    others = [results(tmp_path, [], "others.json")]
    content = write_evaluation([source], [results(tmp_path, perfect(SLICES))], tmp_path / "out", FAST, others)
    assert content["comparison"]["results"]["files"][0].endswith("others.json")


def test_headline_is_logged(source, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lung_d2"):
        write_evaluation([source], [results(tmp_path, perfect(SLICES))], tmp_path / "out", FAST)
    assert any(message.startswith("Mask AP50, %") for message in caplog.messages)
    assert caplog.messages[-1].endswith(PAGE_NAME)


def test_broken_results_leave_nothing_behind(source, tmp_path):
    (tmp_path / "broken.json").write_text("[{}]")
    with pytest.raises(DatasetError, match=r"broken\.json: detection 0"):
        write_evaluation([source], [tmp_path / "broken.json"], tmp_path / "out", FAST)
    assert not list((tmp_path / "out").iterdir())


def test_file_in_the_place_of_the_folder_is_named(source, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out: a file"):
        write_evaluation([source], [results(tmp_path, [])], tmp_path / "out", FAST)
