"""The lesion candidate region network: Detectron2's, which does not take undecided regions for background."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances

from lung_d2.modeling.undecided import mostly_inside, split_undecided


@PROPOSAL_GENERATOR_REGISTRY.register()
class LungRPN(RPN):  # type: ignore[misc]
    """Detectron2's ``RPN``, whose anchors mostly inside an undecided region are never background.

    They are left out before anchors are sampled, so that the mini-batch is filled with known background.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """Take what ``RPN`` takes."""
        super().__init__(**kwargs)
        # For each image still to be sampled: which of its anchors are undecided; None if none is.
        self._undecided: deque[torch.Tensor | None] = deque()

    @torch.jit.unused
    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Match the anchors with the lesions only, and sample from those that are decided.

        Args:
            anchors: Anchors of each feature map.
            gt_instances: Instances of each image, undecided regions among them where ``gt_crowd`` says so.

        Returns:
            For each image the label of each anchor, 1, 0 or -1 (not sampled, or ignored), and the box matched to it.
        """
        parted = [split_undecided(instances) for instances in gt_instances]
        every = Boxes.cat(anchors)
        self._undecided = deque(None if region is None else mostly_inside(every, region) for _, region in parted)
        return super().label_and_sample_anchors(anchors, [lesions for lesions, _ in parted])

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        # Called once per image, in order, after its anchors are matched and before any is sampled.
        undecided = self._undecided.popleft()
        if undecided is not None:
            label[undecided & (label == 0)] = -1
        return super()._subsample_labels(label)
