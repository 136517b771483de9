"""Weights files as they are written: small, true to the model, whole or not at all."""

from __future__ import annotations

import subprocess

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file

from engine.weights_samples import PROVENANCE, read_texts, write_weights
from lung_d2.engine.weights import export as weights_export
from lung_d2.engine.weights.export import (
    HALF_ROUNDING,
    HALF_SUBNORMAL_STEP,
    check_output,
    check_written,
    choose_type,
    export_weights,
)
from lung_d2.errors import CheckpointError, OutputError
from tiny import tiny_config


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
    assert check_written(model, exported) < 0.05
    other = build_model(tiny_config(exported.parent, exported.parent)).eval()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors: .* off by"):
        check_written(other, exported)


def test_features_are_compared_too(model, exported, monkeypatch):
    monkeypatch.setattr(weights_export, "_check_parameters", lambda *_: None)
    other = build_model(tiny_config(exported.parent, exported.parent)).eval()
    with pytest.raises(CheckpointError, match=r"features that differ .* expected at most 5%"):
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


def test_name_is_checked_before_the_work(tmp_path):
    path = tmp_path / "there.safetensors"
    check_output(path, overwrite=False)
    path.touch()
    check_output(path, overwrite=True)
    with pytest.raises(OutputError, match="there already; give --overwrite"):
        check_output(path, overwrite=False)
    with pytest.raises(OutputError, match=r"expected NAME\.safetensors"):
        check_output(tmp_path / "model.pth", overwrite=True)
