"""What of a config belongs to weights, and what of it names a machine."""

from __future__ import annotations

import pytest
import yaml

from lung_d2.config.keys import add_lung_config, parse_config
from lung_d2.engine.weights.settings import bound_settings, check_bounds, names_place, portable_config
from lung_d2.errors import CheckpointError
from tiny import tiny_config


def test_keys_of_the_network_are_bound_and_those_of_the_training_are_not(tmp_path):
    found = bound_settings(tiny_config(tmp_path, tmp_path))
    assert {"INPUT.CT.GREY", "MODEL.PIXEL_MEAN", "MODEL.RESNETS.NORM", "MODEL.ROI_BOX_HEAD.FC_DIM"} <= found.keys()
    free = {"MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.BACKBONE.FREEZE_AT", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"}
    free |= {"MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK", "MODEL.RPN.POST_NMS_TOPK_TEST", "SOLVER.BASE_LR", "OUTPUT_DIR"}
    free |= {"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE"}
    assert not free & found.keys()


def test_portable_config_names_no_place(tmp_path):
    opts = ["MODEL.WEIGHTS", "/home/jane/start.pth", "DATASETS.PROPOSAL_FILES_TRAIN", ("~/boxes.pkl",)]
    opts += ["TEST.BEST_METRIC", "bbox/AP50"]
    cfg = tiny_config(tmp_path, tmp_path, *opts)
    text = portable_config(cfg)
    for word in ("home", "jane", str(tmp_path), "boxes"):
        assert word not in text
    assert yaml.safe_load(text)["DATASETS"]["TRAIN"] == ["tiny_train"]
    assert yaml.safe_load(text)["MODEL"]["DEVICE"] == "cuda"
    assert yaml.safe_load(text)["TEST"]["BEST_METRIC"] == "bbox/AP50"
    assert cfg.MODEL.WEIGHTS == "/home/jane/start.pth"


def test_portable_config_is_the_same_config(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    again = parse_config(portable_config(cfg), "here")
    assert bound_settings(again) == bound_settings(cfg)
    assert again.SOLVER == cfg.SOLVER


def test_lists_that_stand_twice_are_written_twice(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    cfg.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_MEAN
    assert "*" not in portable_config(cfg)
    assert parse_config(portable_config(cfg), "here").MODEL.PIXEL_STD == cfg.MODEL.PIXEL_MEAN


@pytest.mark.parametrize(
    "text",
    [
        *("/home/jane", "see /data/x", "(/work)", "~/x", "~jane/x", "C:\\Users\\jane", "C:/x", "\\\\host\\share"),
        *("file:///home/x", "runs/jane/model.pth", "../model.pth", "x='/tmp'"),
        *("host:/home/alice", "nfs:/export/home/alice", "nfs://host/home/alice", "alice@host:scans", "$HOME/a/b"),
        *("http://user:pw@host/x", "https://alice@host", "see https://host/a,/home/alice", "HTTP://alice@host/a b"),
        *("file in alice/scans", "alice/run 1.pth", "run1/2020", "%USERPROFILE%\\run", "and/or /home/alice"),
    ],
)
def test_place_is_seen(text):
    assert names_place(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "segm/AP50", "CC BY 4.0", "GGO and/or bronchiectasis", "1 / 2", "AP 0.5/0.75 of 3", "model.pth"),
        *("Astra (MIT), https://example.org/astra.", "about ~5 %", "https://example.org/a", "10/12/2026", "Mask AP, %"),
        *(
            "(https://creativecommons.org/licenses/by/4.0/legalcode#s3), CC BY 4.0",
            "<http://a.b:8080/c?d=e>",
            "http://a.b",
        ),
        *(
            "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
            "sublicense, and/or sell",
            "(c) 2024 Jane <jane@a.org>",
        ),
    ],
)
def test_what_only_looks_like_a_place_is_not(text):
    assert not names_place(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_MASK_HEAD.CONV_DIM", 1 << 17),
        ("MODEL.ROI_MASK_HEAD.NUM_CONV", 5000),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 1000),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[1 << 20]]),
        ("INPUT.MIN_SIZE_TEST", 5000),
        ("TEST.DETECTIONS_PER_IMAGE", 1_000_000),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", float("nan")),
        ("INPUT.CT.WINDOW_WIDTH", float("inf")),
    ],
)
def test_number_of_no_sense_is_refused(tmp_path, key, value):
    check_bounds(cfg := tiny_config(tmp_path, tmp_path), "here")
    cfg.merge_from_list([key, value])
    with pytest.raises(CheckpointError, match=rf"here: {key}"):
        check_bounds(cfg, "here")


def test_number_that_python_does_not_write_out_is_refused(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path)
    cfg.SOLVER.MAX_ITER = 1 << 20_000
    with pytest.raises(CheckpointError, match=r"here: SOLVER\.MAX_ITER of more than 64 bits"):
        check_bounds(cfg, "here")


def test_defaults_of_detectron2_are_within_the_bounds():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    add_lung_config(cfg)
    check_bounds(cfg, "here")
