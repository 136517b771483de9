"""Weights files as users load them: with our predictor, Detectron2's own, and as weights of another config."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from engine.weights_samples import rewrite, write_weights
from lung_d2.categories import CATEGORIES, Categories, describe_category
from lung_d2.config.keys import input_settings
from lung_d2.engine import CTPredictor, LungCheckpointer
from lung_d2.engine.weights import config_of
from lung_d2.engine.weights.file import bound_settings
from lung_d2.errors import CheckpointError, ConfigError, OutputError
from tiny import tiny_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_detections_are_those_of_the_model_in_full_precision(weights):
    torch.manual_seed(3)  # the seed that the file was made with
    cfg = config_of(weights)
    exact = CTPredictor(model=build_model(cfg), **_rest(CTPredictor.from_weights(weights)))
    before, after = exact.predict_image(picture()), CTPredictor.from_weights(weights).predict_image(picture())
    assert len(before.scores) > 10
    # A rounding may swap two detections of nearly the same score: the sorted scores are what stays.
    count = min(len(before.scores), len(after.scores))
    assert abs(len(before.scores) - len(after.scores)) <= 2
    np.testing.assert_allclose(before.scores[:count], after.scores[:count], atol=0.01)


def _rest(predictor):
    return {"resize": predictor.resize, "grey": predictor.grey, "channels": predictor.channels}


def test_plain_default_predictor_sees_the_same(weights, cache):
    cfg = config_of(weights)
    ours = CTPredictor(cfg).predict_image(picture())
    theirs = DefaultPredictor(cfg)(picture())["instances"]
    assert len(theirs) > 10
    np.testing.assert_allclose(theirs.scores.numpy(), ours.scores, rtol=1e-5)
    (copy,) = cache.glob("lung_d2/*")
    stamp = copy.stat().st_mtime_ns
    DefaultPredictor(cfg)
    assert copy.stat().st_mtime_ns == stamp


def test_cache_that_cannot_be_written_is_named(weights, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written; set FVCORE_CACHE"):
        DefaultPredictor(config_of(weights))


def test_overrides_win_over_the_file(weights):
    assert config_of(weights, ["TEST.DETECTIONS_PER_IMAGE", "3"]).TEST.DETECTIONS_PER_IMAGE == 3
    predictor = CTPredictor.from_weights(weights, ["TEST.DETECTIONS_PER_IMAGE", "3"], batch_size=2)
    assert len(predictor.predict_image(picture()).scores) == 3
    with pytest.raises(ConfigError, match=r"NO\.SUCH"):
        config_of(weights, ["NO.SUCH", "1"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.CT.WINDOW_WIDTH", 400.0),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True),  # no parameter differs in shape by it, and yet it is another network
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
        ("MODEL.ROI_MASK_HEAD.NUM_CONV", 2),
    ],
)
def test_config_of_another_model_is_refused(weights, tmp_path, key, value):
    cfg = tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", str(weights))
    CTPredictor(cfg)
    node, leaf = key.rsplit(".", 1)
    part = cfg
    for name in node.split("."):
        part = part[name]
    part[leaf] = not part[leaf] if isinstance(part[leaf], bool) else value
    with pytest.raises(CheckpointError, match=rf"tiny\.safetensors: trained with {key} .*; expected .* config says"):
        CTPredictor(cfg)


def test_what_is_kept_of_the_output_may_differ(weights, tmp_path):
    opts = ["MODEL.WEIGHTS", str(weights), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2, "MODEL.RPN.POST_NMS_TOPK_TEST", 9]
    assert CTPredictor(tiny_config(tmp_path, tmp_path, *opts, "MODEL.BACKBONE.FREEZE_AT", 2)).origin is not None


def test_training_starts_from_a_weights_file(weights, tmp_path):
    cfg = tiny_config(tmp_path, tmp_path, "INPUT.CT.WINDOW_WIDTH", 400.0, "MODEL.ROI_MASK_HEAD.NUM_CONV", 2)
    model = build_model(cfg)
    start = LungCheckpointer(model, allow_partial=True, settings=input_settings(cfg))
    start.load(str(weights), checkpointables=[])
    kept = build_model(config_of(weights))
    LungCheckpointer(kept, settings=bound_settings(config_of(weights))).load(str(weights))
    name = "backbone.bottom_up.res2.0.conv1.weight"
    assert torch.equal(model.state_dict()[name], kept.state_dict()[name])


def test_start_hands_its_notice_on(weights, tmp_path):
    told = {"name": "tiny", "data": [], "start_licence": "MIT", "start_source": "ab12"}
    start = rewrite(
        weights, tmp_path / "on.safetensors", lambda texts, _: texts.update({"lung_d2.provenance": json.dumps(told)})
    )
    cfg = tiny_config(tmp_path, tmp_path)
    checkpointer = LungCheckpointer(build_model(cfg), allow_partial=True, settings=input_settings(cfg))
    checkpointer.load(str(start), checkpointables=[])
    assert checkpointer.notice == {"licence": "MIT", "source": "ab12"}


def test_weights_are_loaded_by_name(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNG_D2_WEIGHTS", str(weights.parent))
    cfg = config_of("tiny")
    assert cfg.MODEL.WEIGHTS == "lung_d2://tiny"
    assert CTPredictor(cfg).origin.weights == weights
    assert CTPredictor(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", "tiny")).origin.weights == weights
    assert len(DefaultPredictor(cfg)(picture())["instances"]) > 10


def test_third_category_reaches_the_predictor_and_detectron2(tmp_path):
    three = Categories([*CATEGORIES, describe_category("consolidation", 3, code=("95436008", "SCT", "Consolidation"))])
    path = write_weights(tmp_path, "three", "MODEL.ROI_HEADS.NUM_CLASSES", 3, categories=three)
    predictor = CTPredictor.from_weights(path)
    assert predictor.categories == three
    found = predictor.predict_image(np.zeros((64, 64, 3), np.uint8))
    assert set(found.category_ids) <= {1, 2, 3}
    cfg = config_of(path, ["DATASETS.TEST", "('nowhere_val',)"])
    assert MetadataCatalog.get("nowhere_val").thing_classes == three.names
    assert DefaultPredictor(cfg).metadata.thing_colors[2] == three[2].color
