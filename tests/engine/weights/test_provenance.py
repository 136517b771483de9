"""Where weights are from: what is known is told, and no place of this machine is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lung_d2.engine.weights.provenance import Remarks, build_provenance
from lung_d2.errors import CheckpointError, ConfigError, DatasetError
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth_reading import read_truth
from tiny import tiny_config, write_tiny_dataset

VERSIONS = {"lung_d2": "0.1.0", "torch": "2.6.0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_dataset(root, "known")
    (root / "model.pth").write_bytes(b"weights")
    return root


def build(folder, *opts, remarks=None, checkpoint=None):
    cfg = tiny_config(folder, folder, *opts, name="known")
    return build_provenance(
        "ours", cfg, folder / "model.pth", checkpoint or {}, VERSIONS, remarks or Remarks()
    )  # fmt: skip


def write_evaluation(folder) -> Path:
    from lung_d2.evaluation.catalog import find_sources

    (folder / "results.json").write_text("[]")
    truth = read_truth(find_sources(["known_val"]))
    content = evaluate(truth, read_results([folder / "results.json"], truth), EvaluationSettings(draws=20))
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder / "evaluation.json"


def test_data_set_is_counted_where_it_is_prepared(folder):
    known, gone = build(folder, "DATASETS.TRAIN", ("known_train", "gone_train"))["data"]
    assert known["name"] == "known_train"
    assert (known["patients"], known["series"], known["slices"], known["slices_without_lesions"]) == (3, 3, 12, 3)
    assert known["lesions"] == {"ground_glass_opacity": 9, "bronchiectasis": 9}
    assert gone == {"name": "gone_train"}


def test_checkpoint_tells_iterations_and_seed(folder):
    told = build(folder, checkpoint={"iteration": 499, "trainer": {"seed": 11}})
    assert (told["iterations"], told["seed"]) == (500, 11)
    assert build(folder, "SEED", 7, checkpoint={"trainer": 3})["seed"] == 7
    told = build(folder, "SEED", -1)
    assert (told["iterations"], told["seed"]) == (None, None)
    assert told["source"] == {"weights": "model.pth", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert told["versions"] == VERSIONS


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("", "random"),
        (
            "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
            "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
        ),
        ("/home/jane/ct_r50.pth", "ct_r50.pth"),
        ("https://jane:secret@host.local/ct_r50.pth?key=1", "ct_r50.pth"),
        ("C:\\Users\\jane\\ct_r50.pth", "ct_r50.pth"),
        ("ct_r50", "ct_r50"),
    ],
)
def test_start_is_told_without_its_place(folder, weights, told):
    assert build(folder, "MODEL.WEIGHTS", weights)["start"] == told


def test_notice_that_the_weights_carry_is_kept(folder):
    told = build(folder, checkpoint={"licence": "MIT\n(c) A/B Lab", "source": "ab12"})
    assert (told["start_licence"], told["start_source"]) == ("MIT\n(c) A/B Lab", "ab12")
    assert build(folder)["start_licence"] == ""


def test_origin_of_the_start_names_no_place(folder):
    with pytest.raises(ConfigError, match="a path, or an address with a user"):
        build(folder, checkpoint={"source": "/home/jane/astra.pt"})


def test_evaluation_is_told_with_intervals_and_patients(folder):
    (told,) = build(folder, remarks=Remarks((write_evaluation(folder),)))["evaluations"]
    assert told["data"]["names"] == ["known_val"]
    assert told["results_sha256"]
    found = {(one["figure"], one["category"]): one for one in told["figures"]}
    figure = found["Mask AP50, %", "bronchiectasis"]
    assert (figure["value"], figure["patients"]) == (0, 1)
    assert figure.keys() == {"figure", "category", "value", "low", "high", "patients"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1, "data": {}}'])
def test_other_file_is_no_evaluation(folder, content):
    (folder / "other.json").write_text(content)
    with pytest.raises(DatasetError, match=r"other\.json: no evaluation\.json"):
        build(folder, remarks=Remarks((folder / "other.json",)))


@pytest.mark.parametrize("value", ["high", float("nan"), [1]])
def test_figure_that_is_no_number_is_refused(folder, value):
    content = json.loads(write_evaluation(folder).read_text())
    content["metrics"]["coco"]["figures"]["segm"]["AP50"]["bronchiectasis"]["value"] = value
    (folder / "odd.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"odd\.json: no evaluation\.json \(ValueError: Mask AP50"):
        build(folder, remarks=Remarks((folder / "odd.json",)))


@pytest.mark.parametrize(
    ("checkpoint", "match"),
    [
        ({"iteration": "many"}, "iteration 'many'"),
        ({"iteration": 1.5}, "iteration '1.5'"),
        ({"trainer": {"seed": "x"}}, "seed 'x'"),
    ],
)
def test_training_that_is_told_in_no_numbers_is_refused(folder, checkpoint, match):
    with pytest.raises(CheckpointError, match=rf"model\.pth: {match}; expected a whole number"):
        build(folder, checkpoint=checkpoint)


def test_remarks_are_kept_and_hold_no_place(folder):
    told = build(folder, remarks=Remarks(licence="CC BY 4.0", notes=("Astra, MIT: https://example.org/astra",)))
    assert (told["licence"], told["notes"]) == ("CC BY 4.0", ["Astra, MIT: https://example.org/astra"])
    with pytest.raises(ConfigError, match="a path, or an address with a user; leave it out"):
        build(folder, remarks=Remarks(notes=("trained in /home/jane/runs",)))


def test_checkpoint_that_is_not_there_is_named(folder):
    with pytest.raises(CheckpointError, match=r"gone\.pth: cannot be read"):
        build_provenance("ours", tiny_config(folder, folder), folder / "gone.pth", {}, VERSIONS, Remarks())
