"""A prepared model finds what it found before, and work side by side keeps its order."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model

from lung_d2.engine import inference
from lung_d2.engine.inference import fold_batch_norm, map_side_by_side, prepare_model
from tiny import tiny_config

FROZEN = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Give a model whose batch norms scale and shift."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    built = build_model(tiny_config(folder, folder, *FROZEN)).eval()
    for layer in built.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.running_var.uniform_(0.5, 2.0)
            layer.running_mean.normal_(0.0, 0.1)
            layer.weight.uniform_(0.2, 0.4)  # random residual branches would grow
            layer.bias.normal_(0.0, 0.1)
    return built


def image() -> dict[str, Any]:
    return {"image": torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 96, 128), dtype=np.uint8))}


@torch.no_grad()
def detect(model: torch.nn.Module) -> Any:
    return model.inference([image()])[0]["instances"]


def test_prepared_model_detects_the_same(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: False)
    before, after = detect(model), detect(prepare_model(copy.deepcopy(model)))
    assert len(before) == len(after) > 0
    assert torch.allclose(before.scores, after.scores, atol=1e-5)
    assert torch.allclose(before.pred_boxes.tensor, after.pred_boxes.tensor, atol=1e-2)
    assert (before.pred_masks == after.pred_masks).float().mean() > 0.999


def test_no_frozen_batch_norm_is_left(model: torch.nn.Module) -> None:
    folded = copy.deepcopy(model)
    fold_batch_norm(folded)
    assert any(isinstance(layer, FrozenBatchNorm2d) for layer in model.modules())
    assert not any(isinstance(layer, FrozenBatchNorm2d) for layer in folded.modules())


def test_bfloat16_is_used_where_the_processor_has_it(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: True)
    mixed = prepare_model(copy.deepcopy(model))
    assert {layer.weight.dtype for layer in mixed.backbone.modules() if isinstance(layer, torch.nn.Conv2d)} == {
        torch.bfloat16
    }
    assert mixed.roi_heads.box_predictor.cls_score.weight.dtype == torch.float32
    found = detect(mixed)
    assert len(found) > 0
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    with torch.no_grad():
        exact = model.backbone(model.preprocess_image([image()]).tensor)
        rounded = mixed.backbone(mixed.preprocess_image([image()]).tensor)
    for name, level in exact.items():
        assert rounded[name].dtype == torch.float32
        assert torch.allclose(rounded[name], level, atol=0.05 * float(level.abs().max()))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_results_come_in_order_from_threads_that_share_the_cores() -> None:
    barrier = threading.Barrier(3, timeout=20)

    def work(number: int) -> tuple[int, int]:
        barrier.wait()  # passes only where three run at once
        return number, torch.get_num_threads()

    assert list(map_side_by_side(work, range(6), "cpu")) == [(number, 1) for number in range(6)]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_error_of_a_slice_is_raised() -> None:
    def work(number: int) -> float:
        return 1 / (number - 4)

    with pytest.raises(ZeroDivisionError):
        list(map_side_by_side(work, range(9), "cpu"))


def test_inputs_are_read_no_farther_ahead_than_needed() -> None:
    read = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    made = map_side_by_side(lambda number: number, (read.append(n) or n for n in range(100)), "cpu")
    assert next(made) == 0
    assert len(read) <= 4
    made.close()  # type: ignore[attr-defined]
    torch.set_num_threads(before)
