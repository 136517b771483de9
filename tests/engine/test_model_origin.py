from __future__ import annotations

import json

import pytest

from engine.weights_samples import PROVENANCE, write_weights
from lung_d2.engine.model_origin import ModelOrigin
from lung_d2.errors import CheckpointError
from tiny import tiny_config


def origin(tmp_path, *opts):
    (tmp_path / "model.pth").write_bytes(b"weights")
    return ModelOrigin.of(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", str(tmp_path / "model.pth"), *opts))


def test_config_is_told_without_paths(tmp_path):
    found = origin(tmp_path)
    assert found.weights == tmp_path / "model.pth"
    assert str(tmp_path) not in found.config_text
    assert "MIN_SIZE_TEST: 64" in found.config_text


def test_another_key_is_another_config(tmp_path):
    assert origin(tmp_path).config_text == origin(tmp_path).config_text
    assert origin(tmp_path).config_text != origin(tmp_path, "INPUT.MIN_SIZE_TEST", 65).config_text


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file"):
        ModelOrigin.of(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", str(tmp_path / "gone.pth")))


def test_weights_file_tells_where_it_is_from(tmp_path):
    weights = write_weights(tmp_path)
    found = ModelOrigin.of(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", f"lung_d2://{weights}"))
    assert (found.weights, json.loads(found.provenance)) == (weights, PROVENANCE)
    assert origin(tmp_path).provenance == ""
