"""Distillation: what its loss measures, what it trains, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ct_networks import NARROW, build_narrow
from lung_d2.config.loading import load_config
from lung_d2.errors import CheckpointError
from studies.ct_backbone import distiller
from studies.ct_backbone.distiller import BackboneDistiller, feature_correlation, feature_loss
from studies.ct_backbone.network import PREFIX

CONFIG = Path(distiller.__file__).with_name("config.yaml")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackboneDistiller:
    monkeypatch.setattr(distiller, "TEACHER_DEPTH", 101)
    weights = {f"{PREFIX}{name}": value for name, value in build_narrow(101).state_dict().items()}
    torch.save({"model": weights}, tmp_path / distiller.TEACHER_NAME)
    return BackboneDistiller(load_config(CONFIG, [*NARROW, "OUTPUT_DIR", str(tmp_path / "run"), "MODEL.DEVICE", "cpu"]))


def batch() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)} for _ in range(2)]


def test_loss_is_0_for_equal_features_and_1_for_the_mean_of_each_channel():
    target = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean = target.mean(dim=(0, 2, 3), keepdim=True).expand_as(target)
    assert feature_loss(target, target) == 0
    assert float(feature_loss(mean, target)) == pytest.approx(1)


def test_silent_channel_does_not_drown_the_others():
    target = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    target[:, 1] = 0.5
    found = target.clone()
    found[:, 1] += 0.01
    assert feature_loss(found, target) < 0.01


def test_correlation_is_1_for_features_in_proportion():
    target = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(feature_correlation(3 * target + 1, target)) == pytest.approx(1, abs=1e-5)


def test_loss_of_each_stage_trains_the_student_alone(model):
    losses = model.train()(batch())
    assert set(losses) == {f"loss_res{stage}" for stage in (2, 3, 4, 5)}
    sum(losses.values()).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(name.startswith((f"{PREFIX}res3", f"{PREFIX}res4", f"{PREFIX}res5")) for name in trained)


def test_teacher_is_not_part_of_a_checkpoint(model):
    assert all(name.startswith(PREFIX) for name in model.state_dict())


def test_outside_of_training_stages_are_correlated(model):
    with torch.no_grad():
        found = model.eval()(batch())
    assert set(found) == {f"correlation_res{stage}" for stage in (2, 3, 4, 5)}
    assert all(-1 <= float(value) <= 1 for value in found.values())


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_missing_or_broken_teacher_is_one_line_with_the_tool(tmp_path, content):
    if content is not None:
        (tmp_path / distiller.TEACHER_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ct_resnet152\.pth.*make_ct_backbone"):
        BackboneDistiller(load_config(CONFIG, [*NARROW, "OUTPUT_DIR", str(tmp_path / "run")]))
