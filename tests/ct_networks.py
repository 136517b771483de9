"""A narrow network with the names, depth and axes of the chest CT backbone's source."""

from __future__ import annotations

import re

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone

NARROW = (
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
)


def build_narrow(depth: int, norm: str = "FrozenBN") -> torch.nn.Module:
    """Build a ResNet with few channels."""
    cfg = get_cfg()
    cfg.merge_from_list([*NARROW, "MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.NORM", norm])
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def as_source(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a 2-D network as a 3-D one with torchvision's names, whose kernels sum to those of the 2-D one."""
    return {_name(name): _inflate(value) for name, value in network.state_dict().items()}


def _name(name: str) -> str:
    name = re.sub(r"^stem\.conv1\.norm\.", "bn1.", name).removeprefix("stem.")
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)


def _inflate(value: torch.Tensor) -> torch.Tensor:
    if value.dim() != 4:
        return value
    turned = value.flip(2, 3).transpose(2, 3)
    return (
        torch.stack([0.25 * turned, 0.5 * turned, 0.25 * turned], dim=2) if value.shape[-1] > 1 else turned[:, :, None]
    )
