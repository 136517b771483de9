"""OpenVINO finds what torch finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.test_predictor import noise_volume, tiny_weights
from lung_d2.engine import CTPredictor
from lung_d2.errors import ConfigError
from tiny import write_tiny_dataset

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'lung_d2[openvino]'")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("openvino")
    write_tiny_dataset(folder)
    return tiny_weights(folder, folder)


def test_detections_are_those_of_torch(cfg: Any) -> None:
    volume = noise_volume()
    by_torch, by_openvino = (CTPredictor(cfg, backend=name)(volume, progress=False) for name in ("torch", "openvino"))
    for one, other in zip(by_torch, by_openvino, strict=True):
        assert len(one) == len(other) > 0
        assert np.allclose(one.scores, other.scores, atol=1e-4)
        assert np.array_equal(np.sort(one.category_ids), np.sort(other.category_ids))
        assert one.boxes.sum() == pytest.approx(other.boxes.sum(), rel=1e-3)


def test_features_and_candidates_are_those_of_torch(cfg: Any) -> None:
    plain, compiled = (CTPredictor(cfg, backend=name).model for name in ("torch", "openvino"))
    image = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        expected, found = plain.backbone(image), compiled.backbone(image)
        assert expected.keys() == found.keys()
        for name, level in expected.items():
            assert torch.allclose(found[name], level, atol=1e-4 * float(level.abs().max()))
        levels = [expected[name] for name in plain.proposal_generator.in_features]
        heads = plain.proposal_generator.rpn_head, compiled.proposal_generator.rpn_head
        for one, other in zip(*(head(levels) for head in heads), strict=True):
            assert all(torch.allclose(left, right, atol=1e-4) for left, right in zip(one, other, strict=True))
    assert compiled.backbone.size_divisibility == plain.backbone.size_divisibility


def test_unknown_backend_is_refused(cfg: Any) -> None:
    with pytest.raises(ConfigError, match=r"backend: tensorflow; expected torch or openvino"):
        CTPredictor(cfg, backend="tensorflow")


def test_layers_are_still_known(cfg: Any, tmp_path: Path) -> None:
    assert not CTPredictor(cfg, backend="openvino").takes_crops  # for its group norm
