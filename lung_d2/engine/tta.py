"""Test-time augmentation: each slice at several sizes and flipped, by Detectron2's ``GeneralizedRCNNWithTTA``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import GeneralizedRCNNWithTTA

from lung_d2.errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def build_tta(cfg: CfgNode, model: torch.nn.Module) -> Any:
    """Wrap a model, so that it detects on every size and flip of ``TEST.AUG``.

    Boxes of all of them go through one suppression; masks are averaged over them.

    Args:
        cfg: The model's.
        model: Detectron2's ``GeneralizedRCNN``.

    Returns:
        What takes and gives the same as the model in evaluation; its images should have their own size, see
        :func:`without_resize`.

    Raises:
        ConfigError: Detectron2 cannot augment for this model.
    """
    try:
        return GeneralizedRCNNWithTTA(cfg, model).eval()
    except AssertionError as error:
        raise ConfigError(
            "TEST.AUG.ENABLED", found=str(error), expected="a GeneralizedRCNN without keypoints", remedy="set it False"
        ) from error


def without_resize(cfg: CfgNode) -> CfgNode:
    """Return a copy of a config whose test images keep their size, so that augmentation resizes them once only."""
    native = cfg.clone()
    native.defrost()
    native.INPUT.MIN_SIZE_TEST = 0  # what Detectron2's ResizeShortestEdge takes for none
    return native
