"""Distil a deep backbone into a shallow one on slices without annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_resnet_backbone
from detectron2.structures import ImageList
from torch import nn

from studies.ct_backbone.network import load_backbone

TEACHER_NAME = "ct_resnet152.pth"
"""The deep network, in the folder above that of the training."""
TEACHER_DEPTH = 152


class _BottomUp(nn.Module):
    """Holds a ResNet where a feature pyramid holds it, so that weights load into both under one name."""

    def __init__(self, bottom_up: nn.Module) -> None:
        super().__init__()
        self.bottom_up = bottom_up


@META_ARCH_REGISTRY.register()
class BackboneDistiller(nn.Module):
    """Train the bottom-up network of a config to give the features of a deeper one of the same widths.

    The loss of a stage is the squared difference of the features in units of the deep network's variance; a student
    that gives each channel's mean has a loss of 1 (FitNets, Romero et al. 2015; the widths are equal, so that no
    regressor is needed between the two). Variances are pooled over the channels, since some hardly ever respond.
    """

    @configurable
    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module,
        features: list[str],
        pixel_mean: list[float],
        pixel_std: list[float],
    ) -> None:
        """Keep both networks; the teacher is frozen and not part of a checkpoint.

        Args:
            student: Gives a dict of features.
            teacher: Gives features of the same names and shapes.
            features: Those that are compared.
            pixel_mean: Mean of each channel, in grey levels.
            pixel_std: Standard deviation of each channel, in grey levels.
        """
        super().__init__()
        self.backbone = _BottomUp(student)
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple: its weights are not the student's
        self.features = features
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the backbone and its normalisation; the teacher lies in the folder above ``OUTPUT_DIR``.

        Raises:
            CheckpointError: The teacher's file is missing, broken, or of another network.
        """
        shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
        deep = cfg.clone()
        deep.defrost()
        deep.MODEL.RESNETS.DEPTH = TEACHER_DEPTH
        deep.MODEL.RESNETS.NORM = "FrozenBN"
        teacher = build_resnet_backbone(deep, shape)
        load_backbone(teacher, Path(cfg.OUTPUT_DIR).parent / TEACHER_NAME)
        return {
            "student": build_resnet_backbone(cfg, shape),
            "teacher": teacher.to(cfg.MODEL.DEVICE),
            "features": cfg.MODEL.RESNETS.OUT_FEATURES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Compare the two networks on a batch.

        Args:
            batched_inputs: Dicts with ``image``, uint8 ``(3, H, W)``.

        Returns:
            The loss of each stage in training, otherwise its correlation, which is 1 for equal features.
        """
        images = self.preprocess(batched_inputs)
        with torch.no_grad():
            targets = self._teacher[0](images)
        found = self.backbone.bottom_up(images)
        compare, prefix = (feature_loss, "loss") if self.training else (feature_correlation, "correlation")
        return {f"{prefix}_{name}": compare(found[name], targets[name]) for name in self.features}

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> torch.Tensor:
        """Return the normalised batch, float32 ``(N, 3, H, W)``."""
        slices = [one["image"].to(self.pixel_mean.device) for one in batched_inputs]
        return ImageList.from_tensors([(one - self.pixel_mean) / self.pixel_std for one in slices]).tensor


def feature_loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the share of the target's variance within channels that features ``(N, C, H, W)`` miss."""
    target = target.float()
    centred = target - target.mean(dim=(0, 2, 3), keepdim=True)
    return (found.float() - target).square().mean() / centred.square().mean()


def feature_correlation(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation over all values of features ``(N, C, H, W)``."""
    pair = torch.stack([found.float().flatten(), target.float().flatten()])
    return torch.corrcoef(pair)[0, 1]
