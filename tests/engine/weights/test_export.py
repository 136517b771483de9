"""Weights files as they are written: small, true to the model, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file

from engine.weights_samples import PROVENANCE, read_texts, write_weights
from lung_d2.engine.weights import export as weights_export
from lung_d2.engine.weights.export import (
    HALF_ROUNDING,
    HALF_SUBNORMAL_STEP,
    build_provenance,
    check_written,
    choose_type,
    export_weights,
)
from lung_d2.errors import CheckpointError, DatasetError, OutputError
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth import find_sources, read_truth
from tiny import tiny_config, write_tiny_dataset

VERSIONS = {"lung_d2": "0.1.0", "torch": "2.6.0"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def model(exported):
    torch.manual_seed(3)  # as the file was made
    return build_model(tiny_config(exported.parent, exported.parent)).eval()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.randn(4, 4), torch.float16),
        (torch.randn(4, 4) * 1e-4, torch.float16),
        (torch.zeros(4, 4), torch.float16),
        (torch.randn(4), torch.float32),  # a bias, or a running variance
        (torch.full((4, 4), 1e-7), torch.float32),
        (torch.tensor([[1.0, 1e5]]), torch.float32),
        (torch.tensor(7), torch.int64),
    ],
)
def test_type_is_the_smallest_that_harms_nothing(value, kind):
    assert choose_type(value) == kind


def test_parameters_are_within_a_rounding(model, exported):
    written = load_file(exported)
    assert written.keys() == model.state_dict().keys()
    kinds = {value.dtype for value in written.values()}
    assert kinds == {torch.float16, torch.float32}
    for name, value in model.state_dict().items():
        off = (written[name].double() - value.double()).abs()
        assert bool((off <= HALF_ROUNDING * value.double().abs() + HALF_SUBNORMAL_STEP / 2).all()), name
    exact = sum(value.numel() * 4 for value in model.state_dict().values())
    assert exported.stat().st_size < 0.55 * exact


def test_digest_beside_is_what_sha256sum_reads(exported):
    done = subprocess.run(
        ["sha256sum", "-c", f"{exported.name}.sha256"], cwd=exported.parent, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "tiny.safetensors: OK", done.stderr


def test_whoever_may_read_the_digest_may_read_the_weights(exported):
    assert exported.stat().st_mode == exported.with_name(f"{exported.name}.sha256").stat().st_mode


def test_metadata_names_no_place(exported):
    texts = read_texts(exported)
    keys = ("format_version", "config", "categories", "input", "provenance")
    assert set(texts) == {"format", *(f"lung_d2.{key}" for key in keys)}
    assert str(exported.parent) not in "".join(texts.values())
    assert "/tmp" not in "".join(texts.values())


def test_file_of_another_model_does_not_pass(model, exported):
    check_written(model, exported)
    other = build_model(tiny_config(exported.parent, exported.parent)).eval()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors: .* off by"):
        check_written(other, exported)


def test_nan_is_not_exported(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    model = build_model(cfg)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: NaN or infinity in .*cls_score\.bias"):
        export_weights(model, cfg, PROVENANCE, tmp_path / "bad.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_export_that_fails_leaves_what_was_there(model, tmp_path, monkeypatch):
    path = tmp_path / "ours.safetensors"
    path.write_bytes(b"earlier")
    path.with_name("ours.safetensors.sha256").write_text("earlier")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_export, "save_file", fail)
    with pytest.raises(OutputError, match=r"ours\.safetensors: cannot be written \(No space left on device\)"):
        export_weights(model, tiny_config(tmp_path, tmp_path), PROVENANCE, path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ours.safetensors", "ours.safetensors.sha256"]
    assert path.read_bytes() == b"earlier"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_dataset(root, "known")
    (root / "model.pth").write_bytes(b"weights")
    return root


def build(folder, *opts, checkpoint=None, **remarks):
    cfg = tiny_config(folder, folder, *opts, name="known")
    return build_provenance("ours", cfg, folder / "model.pth", checkpoint or {}, VERSIONS, **remarks)


def write_evaluation(folder) -> Path:
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
    assert build(folder, checkpoint={"iteration": "many"})["iterations"] is None
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


def test_evaluation_is_told_with_intervals_and_patients(folder):
    (told,) = build(folder, evaluations=[write_evaluation(folder)])["evaluations"]
    assert told["data"]["names"] == ["known_val"]
    assert told["results_sha256"]
    found = {(one["figure"], one["category"]): one for one in told["figures"]}
    figure = found["Mask AP50, %", "bronchiectasis"]
    assert (figure["value"], figure["patients"]) == (0, 1)
    assert figure.keys() == {"figure", "category", "value", "low", "high", "patients"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1, "data": {}}'])
def test_other_file_is_no_evaluation(folder, content):
    (folder / "other.json").write_text(content)
    with pytest.raises(DatasetError, match=r"other\.json: not an evaluation\.json"):
        build(folder, evaluations=[folder / "other.json"])


def test_figure_that_is_no_number_is_refused(folder):
    content = json.loads(write_evaluation(folder).read_text())
    content["metrics"]["coco"]["figures"]["segm"]["AP50"]["bronchiectasis"]["value"] = float("nan")
    (folder / "odd.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"odd\.json: not an evaluation\.json \(ValueError"):
        build(folder, evaluations=[folder / "odd.json"])


def test_remarks_are_kept(folder):
    told = build(folder, licence="CC BY 4.0", notes=["Astra, MIT: https://example.org/astra"])
    assert (told["licence"], told["notes"]) == ("CC BY 4.0", ["Astra, MIT: https://example.org/astra"])


def test_checkpoint_that_is_not_there_is_named(folder):
    with pytest.raises(CheckpointError, match=r"gone\.pth: cannot be read"):
        build_provenance("ours", tiny_config(folder, folder), folder / "gone.pth", {}, VERSIONS)
