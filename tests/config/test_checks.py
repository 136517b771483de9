"""Values of a config that cannot work are refused at once."""

from __future__ import annotations

import pytest

from lung_d2 import load_config
from lung_d2.errors import ConfigError
from tiny import CONFIGS

BASE = CONFIGS / "Base-LungCT-RCNN-FPN.yaml"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.FORMAT", "RGB"),
        ("INPUT.MASK_FORMAT", "polygon"),
        ("INPUT.CT.GREY", "grey"),
        ("INPUT.CT.CHANNELS", "three"),
        ("INPUT.CT.HU_JITTER", -5.0),
        ("INPUT.CT.AUGMENT.ROTATION", 181.0),
        ("INPUT.CT.AUGMENT.SCALE", 1.0),
        ("INPUT.CT.AUGMENT.TRANSLATION", -0.1),
        ("INPUT.CT.AUGMENT.ELASTIC", 0.09),
        ("INPUT.CT.AUGMENT.HU_NOISE", -1.0),
        ("INPUT.CT.AUGMENT.GREY_CONTRAST", 1.5),
        ("INPUT.CT.AUGMENT.GREY_BRIGHTNESS", -1.0),
        ("INPUT.CT.AUGMENT.GREY_NOISE", float("nan")),
        ("INPUT.CT.AUGMENT.COPY_PASTE.PROBABILITY", 1.1),
        ("INPUT.CT.AUGMENT.COPY_PASTE.MAX_LESIONS", 0),
        ("INPUT.CT.AUGMENT.COPY_PASTE.MAX_OVERLAP", -0.1),
        ("MODEL.MASK_ON", False),
        ("MODEL.DEVICE", "gpu"),
        ("MODEL.META_ARCHITECTURE", "NoSuchNet"),
        ("MODEL.BACKBONE.NAME", "build_no_such_backbone"),
        ("MODEL.FPN.ATTENTION.REDUCTION", 0),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "NoSuchRPN"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),  # which our mapper would not bring
        ("MODEL.ROI_HEADS.NUM_CLASSES", 0),
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.CONVERGENCE.WINDOW", 0),
        ("SOLVER.CONVERGENCE.PATIENCE", -1),
        ("TEST.BEST_METRIC", "AP50"),
        ("TEST.PRECISE_BN.ENABLED", True),  # with the average below
    ],
)
def test_value_that_cannot_work_is_refused_at_once(key: str, value: object) -> None:
    average = ["SOLVER.EMA.ENABLED", True] if "PRECISE_BN" in key else []
    with pytest.raises(ConfigError, match=key):
        load_config(BASE, [*average, key, value])


@pytest.mark.parametrize(
    ("key", "value"),
    [("MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE", True), ("MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK", 2.0)],
)
def test_key_that_another_head_would_ignore_is_refused(key: str, value: object) -> None:
    load_config(BASE, [key, value])
    load_config(BASE, ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"])
    with pytest.raises(ConfigError, match=rf"{key}: {value}; expected .*, or MODEL\.ROI_HEADS\.NAME LungROIHeads"):
        load_config(BASE, ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", key, value])


@pytest.mark.parametrize(
    ("kind", "size", "key"),
    [
        ("square", [0.5, 0.5], "INPUT.CROP.TYPE"),
        ("relative", [64, 64], "INPUT.CROP.SIZE"),
        ("relative_range", [0.0, 0.5], "INPUT.CROP.SIZE"),
        ("relative_range", [0.5], "INPUT.CROP.SIZE"),
        ("absolute", [0.9, 0.9], "INPUT.CROP.SIZE"),
        ("absolute", [0, 64], "INPUT.CROP.SIZE"),
        ("absolute_range", [64, 32], "INPUT.CROP.SIZE"),
    ],
)
def test_crop_whose_size_does_not_fit_its_type_is_refused_at_once(kind: str, size: list[float], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(BASE, ["INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size])


@pytest.mark.parametrize(
    ("share", "enabled", "reason"),
    [(0.5, False, "INPUT.CROP.ENABLED True"), (-0.1, True, "from 0 to 1"), (1.1, True, "from 0 to 1")],
)
def test_share_of_crops_around_lesions_that_cannot_work_is_refused(share: float, enabled: bool, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"LESION_CROP.*{reason}"):
        load_config(BASE, ["INPUT.CT.AUGMENT.LESION_CROP", share, "INPUT.CROP.ENABLED", enabled])


def test_share_of_crops_around_lesions_is_taken_where_there_are_crops() -> None:
    cfg = load_config(BASE, ["INPUT.CT.AUGMENT.LESION_CROP", 1.0, "INPUT.CROP.ENABLED", True])
    assert cfg.INPUT.CT.AUGMENT.LESION_CROP == 1.0


@pytest.mark.parametrize(
    ("kind", "size"),
    [("relative", [1, 0.5]), ("relative_range", [0.6, 0.6]), ("absolute", [64, 32]), ("absolute_range", [32, 64])],
)
def test_crop_of_each_type_is_taken(kind: str, size: list[float]) -> None:
    cfg = load_config(BASE, ["INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size])
    assert size == cfg.INPUT.CROP.SIZE
