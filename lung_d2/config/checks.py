"""What the values of a config have to be, so that nothing fails late or goes wrong silently."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lung_d2.ct.grey import CHANNELS, GREY_KINDS
from lung_d2.errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

WEIGHTED_SAMPLERS = ("WeightedTrainingSampler", "WeightedCategoryTrainingSampler")
SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", *WEIGHTED_SAMPLERS)
CROPS_BY_SHARE, CROPS_BY_PIXELS = ("relative", "relative_range"), ("absolute", "absolute_range")
SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")

Rule = tuple[str, Callable[[Any], bool], str]
"""A key, a test of its value, and the test in words."""

_INPUT_RULES: tuple[Rule, ...] = (
    ("INPUT.FORMAT", lambda value: value == "BGR", "BGR, since DefaultPredictor reverses RGB"),
    ("INPUT.MASK_FORMAT", lambda value: value == "bitmask", "bitmask, since polygons hold no holes"),
    ("INPUT.CT.GREY", lambda value: value in GREY_KINDS, " or ".join(GREY_KINDS)),
    ("INPUT.CT.CHANNELS", lambda value: value in CHANNELS, " or ".join(CHANNELS)),
    ("INPUT.CT.WINDOW_WIDTH", lambda value: value > 0, "above 0 HU"),
    ("INPUT.CT.HU_JITTER", lambda value: value >= 0, "0 HU or more"),
    ("INPUT.CT.AUGMENT.ROTATION", lambda value: 0 <= value <= 180, "0 to 180 degrees"),
    ("INPUT.CT.AUGMENT.SCALE", lambda value: 0 <= value <= 0.9, "a share from 0 to 0.9"),
    ("INPUT.CT.AUGMENT.TRANSLATION", lambda value: 0 <= value <= 1, "a share of the width"),
    ("INPUT.CT.AUGMENT.ELASTIC", lambda value: 0 <= value <= 0.08, "0 to 0.08 of the width, which cannot fold"),
    ("INPUT.CT.AUGMENT.HU_NOISE", lambda value: 0 <= value <= 1000, "0 to 1000 HU"),
    ("INPUT.CT.AUGMENT.GREY_CONTRAST", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.GREY_BRIGHTNESS", lambda value: 0 <= value <= 255, "0 to 255 grey levels"),
    ("INPUT.CT.AUGMENT.GREY_NOISE", lambda value: 0 <= value <= 255, "0 to 255 grey levels"),
    ("INPUT.CT.AUGMENT.ANY_GREY", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.DRAW.BRONCHI", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.DRAW.OPACITIES", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.DRAW.CONFOUNDERS", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.DRAW.MAX_CLUSTERS", lambda value: value >= 1, "1 or more"),
    ("INPUT.CT.AUGMENT.DRAW.MAX_OPACITIES", lambda value: value >= 1, "1 or more"),
    ("INPUT.CT.AUGMENT.LESION_CROP", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.COPY_PASTE.PROBABILITY", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    ("INPUT.CT.AUGMENT.COPY_PASTE.MAX_LESIONS", lambda value: value >= 1, "1 or more"),
    ("INPUT.CT.AUGMENT.COPY_PASTE.MAX_OVERLAP", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
)


def check_config(cfg: CfgNode) -> None:
    """Check what would fail late or go wrong silently.

    Raises:
        ConfigError: It names the first key at fault.
    """
    for key, is_right, expected in (*_INPUT_RULES, *_crop_rules(cfg), *_model_rules(cfg), *_training_rules(cfg)):
        if not is_right(value := value_of(cfg, key)):
            raise ConfigError(key, found=str(value), expected=expected, remedy="correct the key")


def value_of(cfg: CfgNode, key: str) -> Any:
    """Return the value of a key, as ``"INPUT.CT.GREY"``."""
    return functools.reduce(operator.getitem, key.split("."), cfg)


def as_plain(value: Any) -> Any:
    """Return mappings and sequences as dicts and lists, as YAML, JSON and checkpoints hold them."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _crop_rules(cfg: CfgNode) -> list[Rule]:
    kind, kinds = cfg.INPUT.CROP.TYPE, (*CROPS_BY_SHARE, *CROPS_BY_PIXELS)
    cut = cfg.INPUT.CROP.ENABLED
    rules: list[Rule] = [
        ("INPUT.CROP.TYPE", lambda value: value in kinds, " or ".join(kinds)),
        ("INPUT.CT.AUGMENT.LESION_CROP", lambda value: cut or not value, "0, or INPUT.CROP.ENABLED True"),
    ]
    if kind in CROPS_BY_SHARE:
        return [*rules, ("INPUT.CROP.SIZE", _are_shares, f"two shares above 0, at most 1, for {kind}")]
    return [
        *rules,
        ("INPUT.CROP.SIZE", _are_pixels, f"two whole numbers of pixels, 1 or more, for {kind}"),
        ("INPUT.CROP.SIZE", lambda value: kind == "absolute" or value[0] <= value[1], f"the smaller first for {kind}"),
    ]


def _are_shares(sizes: Sequence[Any]) -> bool:
    return len(sizes) == 2 and all(isinstance(size, int | float) and 0 < size <= 1 for size in sizes)


def _are_pixels(sizes: Sequence[Any]) -> bool:
    return len(sizes) == 2 and all(isinstance(size, int) and size >= 1 for size in sizes)


def _model_rules(cfg: CfgNode) -> list[Rule]:
    from detectron2.modeling import (
        BACKBONE_REGISTRY,
        META_ARCH_REGISTRY,
        PROPOSAL_GENERATOR_REGISTRY,
        ROI_HEADS_REGISTRY,
    )

    attention = cfg.MODEL.FPN.ATTENTION
    return [
        ("MODEL.MASK_ON", bool, "True, since every lesion has a mask"),
        ("MODEL.META_ARCHITECTURE", lambda value: value in META_ARCH_REGISTRY, "a registered name"),
        ("MODEL.BACKBONE.NAME", lambda value: value in BACKBONE_REGISTRY, "a registered name"),
        ("MODEL.FPN.ATTENTION.CHANNEL", lambda value: value or attention.SPATIAL, "True where SPATIAL is False"),
        ("MODEL.FPN.ATTENTION.REDUCTION", lambda value: value > 0, "1 or more"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", lambda value: value in PROPOSAL_GENERATOR_REGISTRY, "a registered name"),
        ("MODEL.ROI_HEADS.NAME", lambda value: value in ROI_HEADS_REGISTRY, "a registered name"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", lambda value: value >= 1, "1 or more, the number of categories"),
        ("MODEL.ROI_HEADS.MASK_FUSION.BOX_SCALE", lambda value: value >= 1, "1 or more"),
        ("MODEL.ROI_HEADS.MASK_FUSION.IOU", lambda value: 0 <= value <= 1, "0 to 1"),
        ("MODEL.ROI_HEADS.MASK_FUSION.THRESHOLD", lambda value: 0 < value < 1, "between 0 and 1"),
        *_head_rules(cfg),
    ]


def _head_rules(cfg: CfgNode) -> list[Rule]:
    """Return rules for keys that our joint head reads and Detectron2's own heads would ignore."""
    from detectron2.modeling import ROI_HEADS_REGISTRY

    name = cfg.MODEL.ROI_HEADS.NAME
    if name not in ROI_HEADS_REGISTRY or not ROI_HEADS_REGISTRY.get(name).__module__.startswith("detectron2."):
        return []
    otherwise = "or MODEL.ROI_HEADS.NAME LungROIHeads"
    weights = [f"MODEL.ROI_HEADS.LOSS_WEIGHTS.{loss}" for loss in cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS]
    return [
        *((key, lambda value: value == 1, f"1, {otherwise}") for key in weights),
        ("MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE", operator.not_, f"False, {otherwise}"),
    ]


def _training_rules(cfg: CfgNode) -> list[Rule]:
    return [
        ("SOLVER.IMS_PER_BATCH", lambda value: value > 0, "1 or more"),
        ("SOLVER.MAX_ITER", lambda value: value > 0, "1 or more"),
        ("SOLVER.LR_SCHEDULER_NAME", lambda value: value in SCHEDULERS, " or ".join(SCHEDULERS)),
        ("SOLVER.BASE_LR", lambda value: value > 0, "above 0"),
        ("SOLVER.BASE_LR_END", lambda value: 0 <= value <= cfg.SOLVER.BASE_LR, f"0 to BASE_LR, {cfg.SOLVER.BASE_LR}"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", lambda value: value in ("value", "norm"), "value or norm"),
        ("SOLVER.EMA.DECAY", lambda value: 0 <= value < 1, "0 to below 1"),
        ("DATALOADER.SAMPLER_TRAIN", lambda value: value in SAMPLERS, " or ".join(SAMPLERS)),
        ("DATALOADER.REPEAT_THRESHOLD", lambda value: 0 <= value <= 1, "a share of the images"),
        (
            "DATASETS.TRAIN_REPEAT_FACTOR",
            lambda value: not value or cfg.DATALOADER.SAMPLER_TRAIN in WEIGHTED_SAMPLERS,
            f"empty, or DATALOADER.SAMPLER_TRAIN {' or '.join(WEIGHTED_SAMPLERS)}",
        ),
        ("SOLVER.CONVERGENCE.WINDOW", lambda value: value > 0, "1 or more"),
        ("SOLVER.CONVERGENCE.PATIENCE", lambda value: value > 0, "1 or more"),
        ("SOLVER.CONVERGENCE.TOLERANCE", lambda value: 0 <= value < 1, "a share of the loss"),
        ("TEST.AUG.MIN_SIZES", lambda value: min(value, default=0) > 0, "one or more sizes of 1 pixel or more"),
        (
            "TEST.PRECISE_BN.ENABLED",
            lambda value: not (value and cfg.SOLVER.EMA.ENABLED),
            "False with SOLVER.EMA.ENABLED, which averages the statistics of batch norm itself",
        ),
        ("TEST.BEST_METRIC", lambda value: "/" in value, "task/metric, as segm/AP50"),
    ]
