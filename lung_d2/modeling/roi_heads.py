"""The joint head: class, box and mask, each with its own loss weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import configurable
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.structures import Instances, pairwise_iou

from lung_d2.modeling.mask_fusion import MaskFusion
from lung_d2.modeling.undecided import mostly_inside, split_undecided

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class ObjectnessOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]
    """Detectron2's class and box layers, whose scores are ``sqrt(class x objectness)``.

    Objectness is the candidate region network's probability that there is any lesion, class the box head's probability
    that it is of this category. Zhou et al., Probabilistic two-stage detection, 2021 (CenterNet2), whose paper
    multiplies both and whose code takes the root. It has the parameters of the standard layers and trains like them.
    """

    def predict_probs(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> tuple[torch.Tensor, ...]:
        """Return scores of each image, float ``(R, K + 1)``, 0 to 1; ``proposals`` have ``objectness_logits``."""
        each = zip(super().predict_probs(predictions, proposals), proposals, strict=True)
        return tuple((scores * found.objectness_logits.sigmoid()[:, None]).sqrt() for scores, found in each)


@ROI_HEADS_REGISTRY.register()
class LungROIHeads(StandardROIHeads):  # type: ignore[misc]
    """Detectron2's heads, with weights for the three losses that are optimised together.

    A proposal mostly inside an undecided region is never background, and the region itself is not a lesion.
    """

    @configurable
    def __init__(self, *, loss_weights: dict[str, float], fusion: MaskFusion | None = None, **kwargs: Any) -> None:
        """Keep the weights.

        Args:
            loss_weights: Weight of ``loss_cls``, ``loss_box_reg`` and ``loss_mask``.
            fusion: What is done with the masks of detections; None: nothing, as in Detectron2.
            kwargs: What ``StandardROIHeads`` takes.
        """
        super().__init__(**kwargs)
        self.loss_weights = loss_weights
        self.fusion = fusion if fusion is not None and fusion.any else None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """Read ``LOSS_WEIGHTS`` and ``MASK_FUSION`` of ``MODEL.ROI_HEADS``, and the rest as Detectron2 does."""
        weights = cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS
        loss_weights = {"loss_cls": weights.CLS, "loss_box_reg": weights.BOX, "loss_mask": weights.MASK}
        fuse = cfg.MODEL.ROI_HEADS.MASK_FUSION
        fusion = MaskFusion(fuse.BOX_SCALE, fuse.IOU, fuse.THRESHOLD)
        return super().from_config(cfg, input_shape) | {"loss_weights": loss_weights, "fusion": fusion}

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return proposals or detections, and in training the weighted losses."""
        if self.fusion is not None and not self.training:
            return self._detect(*args, **kwargs), {}
        instances, losses = super().forward(*args, **kwargs)
        if "loss_cls" in losses and not losses["loss_cls"].requires_grad:
            # Detectron2's sigmoid loss of no proposal is a constant, and distributed training waits for a gradient of
            # every parameter.
            losses["loss_cls"] = losses["loss_cls"] + 0.0 * _total(self.box_predictor.cls_score)
        return instances, {name: loss * self.loss_weights[name] for name, loss in losses.items()}

    def _detect(
        self, images: Any, features: dict[str, torch.Tensor], proposals: list[Instances], targets: Any = None
    ) -> list[Instances]:
        """Detect as Detectron2 does, with our masks; test-time augmentation, which averages masks, does without."""
        assert self.fusion is not None
        boxes = self._forward_box(features, proposals)
        found = self.forward_with_given_boxes(features, [self.fusion.widen(one) for one in boxes])
        return [self.fusion.refine(one) for one in found]

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        parts: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        if cfg.MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE:
            parts["box_predictor"] = ObjectnessOutputLayers(cfg, parts["box_head"].output_shape)
        return parts

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Match the proposals with the lesions only, and sample from those that are decided.

        Args:
            proposals: Proposals of each image.
            targets: Instances of each image, undecided regions among them where ``gt_crowd`` says so.

        Returns:
            The sampled proposals of each image, with what is matched to them, as in Detectron2; an image that is
            undecided as a whole may have none.
        """
        parted = [split_undecided(instances) for instances in targets]
        decided = [
            found if region is None else self._drop_undecided(found, lesions, region)
            for found, (lesions, region) in zip(proposals, parted, strict=True)
        ]
        drawn: list[Instances] = super().label_and_sample_proposals(decided, [lesions for lesions, _ in parted])
        return drawn

    def _drop_undecided(self, proposals: Instances, lesions: Instances, region: torch.Tensor) -> Instances:
        """Drop what would be sampled as background and lies mostly inside ``region``, bool ``(H, W)``."""
        _, labels = self.proposal_matcher(pairwise_iou(lesions.gt_boxes, proposals.proposal_boxes))
        return proposals[(labels != 0) | ~mostly_inside(proposals.proposal_boxes, region)]


def _total(layer: torch.nn.Module) -> torch.Tensor:
    return torch.stack([parameter.sum() for parameter in layer.parameters()]).sum()
