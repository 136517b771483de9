"""The joint head: class, box and mask, each loss with a weight of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import configurable
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import StandardROIHeads

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@ROI_HEADS_REGISTRY.register()
class LungROIHeads(StandardROIHeads):  # type: ignore[misc]
    """Detectron2's heads, with the weights by which the three losses are optimised together."""

    @configurable
    def __init__(self, *, loss_weights: dict[str, float], **kwargs: Any) -> None:
        """Keep the weights.

        Args:
            loss_weights: Weight of ``loss_cls``, ``loss_box_reg`` and ``loss_mask``.
            kwargs: What ``StandardROIHeads`` takes.
        """
        super().__init__(**kwargs)
        self.loss_weights = loss_weights

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """Read ``MODEL.ROI_HEADS.LOSS_WEIGHTS``, and the rest as Detectron2 does."""
        weights = cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS
        loss_weights = {"loss_cls": weights.CLS, "loss_box_reg": weights.BOX, "loss_mask": weights.MASK}
        return super().from_config(cfg, input_shape) | {"loss_weights": loss_weights}

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return proposals or detections, and in training the weighted losses."""
        instances, losses = super().forward(*args, **kwargs)
        return instances, {name: loss * self.loss_weights[name] for name, loss in losses.items()}
