"""Feature attention in the pyramid: each level learns which of its channels and places show lesions.

The modules are those of CBAM (Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018): first the channels,
then the places. Two things differ. A gate is ``2 * sigmoid(z)`` where CBAM's is ``sigmoid(z)``, and the last layer of
each starts at zero, so that a new module is exactly the identity (as a residual branch that starts at zero: Goyal et
al. 2017): it can silence what it gates and at most double it, and a trained pyramid begins where it was. And there is
no batch norm, whose statistics mean little for batches of a few slices.

A last layer of zeros hides the layers before it for one step: the first layer of the channel attention has a gradient
from the second step on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_SPATIAL_KERNEL = 7
"""Pixels of the level; CBAM measured 7 to be better than 3."""


class ChannelAttention(nn.Module):
    """Weigh the channels of a feature map by their mean and peak over all of it."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        """Build the bottleneck that both pooled vectors share.

        Args:
            channels: Channels of the feature map.
            reduction: How many times fewer the bottleneck has; one at least is left.
        """
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, hidden, kernel_size=1)
        self.excite = nn.Conv2d(hidden, channels, kernel_size=1)
        c2_msra_fill(self.squeeze)
        _start_at_zero(self.excite)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features ``(N, C, H, W)`` of the same dtype, each channel times 0 to 2."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        peak = features.amax(dim=(2, 3), keepdim=True)
        return _gate(features, self._weigh(mean) + self._weigh(peak))

    def _weigh(self, pooled: torch.Tensor) -> torch.Tensor:
        weighed: torch.Tensor = self.excite(self.squeeze(pooled).relu())
        return weighed


class SpatialAttention(nn.Module):
    """Weigh the places of a feature map by the mean and the peak of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=_SPATIAL_KERNEL, padding=_SPATIAL_KERNEL // 2)
        _start_at_zero(self.conv)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features ``(N, C, H, W)`` of the same dtype, each place times 0 to 2."""
        pooled = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return _gate(features, self.conv(pooled))


class AttentionFPN(FPN):  # type: ignore[misc]
    """Detectron2's ``FPN``, each of whose output levels goes through an attention of its own.

    It stands after *upsample and sum* and after the 3x3 convolution that smooths the sum. There a level holds both the
    meaning from above and its own detail, on which an attention can judge, and it is what the candidate regions and
    the heads read. Before or within the sum, what a coarse level silences would be lost to every finer one, and the
    convolutions of a trained pyramid would see other features than they were trained on.

    Parameters are named as in Detectron2's pyramid, with those of the attention beside them (``attention.p2...``):
    standard weights load, the attention alone is missing.
    """

    def __init__(self, *, channel: bool = True, spatial: bool = True, reduction: int = 16, **kwargs: Any) -> None:
        """Build the pyramid, then the attention.

        Args:
            channel: Whether the channels are weighed.
            spatial: Whether the places are.
            reduction: Of the bottleneck of the channel attention.
            kwargs: What ``FPN`` takes.
        """
        super().__init__(**kwargs)
        levels = {}
        for name, shape in self.output_shape().items():
            parts: dict[str, nn.Module] = {}
            if channel:
                parts["channel"] = ChannelAttention(shape.channels, reduction)
            if spatial:
                parts["spatial"] = SpatialAttention()
            levels[name] = _in_order(parts)
        self.attention = nn.ModuleDict(levels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the levels by name, finest first, as ``FPN`` does.

        Args:
            x: Normalised images, float ``(N, 3, H, W)``.
        """
        features = super().forward(x)
        return {name: attention(features[name]) for name, attention in self.attention.items()}


@BACKBONE_REGISTRY.register()
def build_resnet_attention_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> AttentionFPN:
    """Build Detectron2's ResNet and its pyramid, with attention as ``MODEL.FPN.ATTENTION`` says.

    Args:
        cfg: The config; all that ``build_resnet_fpn_backbone`` reads counts here too.
        input_shape: Of the images.
    """
    fpn = cfg.MODEL.FPN
    return AttentionFPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=fpn.FUSE_TYPE,
        channel=fpn.ATTENTION.CHANNEL,
        spatial=fpn.ATTENTION.SPATIAL,
        reduction=fpn.ATTENTION.REDUCTION,
    )


def _in_order(parts: dict[str, nn.Module]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence


def _start_at_zero(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _gate(features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    # The gate is computed in float32: near 1, the steps of bfloat16 are 1/128, too coarse to learn.
    return (features * (2 * logits.float().sigmoid())).to(features.dtype)
