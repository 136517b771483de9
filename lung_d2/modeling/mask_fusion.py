"""What is done with soft masks before they are pasted: larger boxes, fusion of second hits, another threshold.

All of it happens in the heads, in the frames of the boxes, so whatever pastes Detectron2's masks pastes these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch.nn import functional

FRAME = 56
"""Rows and columns of a mask that was moved to another frame: twice those of the head, since frames grow."""
_EPSILON = 1e-4


@dataclass(frozen=True)
class MaskFusion:
    """How masks and boxes of detections change; the defaults change nothing.

    Attributes:
        box_scale: How much wider and higher than the box the region is that the mask head sees, 1 or more.
        iou: Detections of one category whose masks overlap by more than this become one, below 1; 1: none.
        threshold: From which probability on a pixel is lesion, between 0 and 1.
    """

    box_scale: float = 1.0
    iou: float = 1.0
    threshold: float = 0.5

    @property
    def any(self) -> bool:
        """Whether anything changes."""
        return self.box_scale != 1.0 or self.iou < 1.0 or self.threshold != 0.5

    def widen(self, instances: Instances) -> Instances:
        """Return the detections of an image with larger ``pred_boxes``, as far as the image goes."""
        boxes = instances.pred_boxes.tensor
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * self.box_scale
        wide = Instances(instances.image_size, **instances.get_fields())
        wide.pred_boxes = Boxes(torch.cat([middle - half, middle + half], dim=1))
        wide.pred_boxes.clip(instances.image_size)
        return wide

    def refine(self, instances: Instances) -> Instances:
        """Fuse and tighten the detections of an image.

        Args:
            instances: ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``, float ``(N, 1, M, M)``, the
                probabilities in the frames of the boxes.

        Returns:
            The detections by falling score: masks ``(K, 1, 56, 56)`` that are lesion from 0.5 on, whatever the
            threshold, and boxes that fit them. Those that are nowhere lesion are left out.
        """
        if not len(instances):
            return instances
        order = torch.argsort(instances.scores, descending=True, stable=True)
        fused = self._fuse(instances[order])
        probability = fused.pred_masks.float().clamp(_EPSILON, 1 - _EPSILON)
        shifted = torch.sigmoid(torch.logit(probability) - torch.logit(torch.tensor(self.threshold)))
        fused.pred_masks = shifted
        return _tighten(fused)

    def _fuse(self, instances: Instances) -> Instances:
        """Join each detection with those of lower score that outline the same; the sum of scores weighs their masks."""
        boxes, masks = instances.pred_boxes.tensor, instances.pred_masks.float()
        groups = self._group(instances) if self.iou < 1.0 else [[index] for index in range(len(instances))]
        frames = torch.stack([_union(boxes[group]) for group in groups])
        fused = []
        for group, frame in zip(groups, frames, strict=True):
            weights = instances.scores[group].float()[:, None, None, None]
            moved = move_masks(masks[group], boxes[group], frame.expand(len(group), 4))
            fused.append((moved * weights).sum(dim=0) / weights.sum())
        leaders = [group[0] for group in groups]
        joined = Instances(
            instances.image_size,
            pred_boxes=Boxes(frames),
            scores=instances.scores[leaders],
            pred_classes=instances.pred_classes[leaders],
        )
        joined.pred_masks = torch.stack(fused)
        return joined

    def _group(self, instances: Instances) -> list[list[int]]:
        boxes, masks = instances.pred_boxes.tensor, instances.pred_masks.float()
        classes = instances.pred_classes.tolist()
        free = list(range(len(instances)))
        groups = []
        while free:
            leader, *others = free
            group, free = [leader], []
            for other in others:
                same = classes[other] == classes[leader]
                if same and _overlap(masks, boxes, leader, other) > self.iou:
                    group.append(other)
                else:
                    free.append(other)
            groups.append(group)
        return groups


def move_masks(masks: torch.Tensor, boxes: torch.Tensor, frames: torch.Tensor, size: int = FRAME) -> torch.Tensor:
    """Resample soft masks from the frames of their boxes to others.

    Args:
        masks: float ``(N, 1, M, M)``; outside of its box a mask is 0.
        boxes: ``(N, 4)``, x0, y0, x1, y1.
        frames: ``(N, 4)``, likewise.
        size: Rows and columns of the result.

    Returns:
        float ``(N, 1, size, size)``.
    """
    steps = (torch.arange(size, device=masks.device) + 0.5) / size
    places = []
    for axis in (0, 1):
        start, length = frames[:, axis], frames[:, axis + 2] - frames[:, axis]
        there = start[:, None] + steps * length[:, None]
        own = (boxes[:, axis + 2] - boxes[:, axis]).clamp(min=_EPSILON)
        places.append((there - boxes[:, axis, None]) / own[:, None] * 2 - 1)
    x, y = places[0][:, None, :].expand(-1, size, -1), places[1][:, :, None].expand(-1, -1, size)
    return functional.grid_sample(masks, torch.stack([x, y], dim=-1).to(masks.dtype), align_corners=False)


def _union(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])


def _overlap(masks: torch.Tensor, boxes: torch.Tensor, one: int, other: int) -> float:
    """Return the intersection over union of two masks, in the frame that holds both."""
    pair = [one, other]
    low, high = boxes[pair, :2].amax(dim=0), boxes[pair, 2:].amin(dim=0)
    if bool((low >= high).any()):
        return 0.0
    frame = _union(boxes[pair]).expand(2, 4)
    first, second = move_masks(masks[pair], boxes[pair], frame)[:, 0] >= 0.5
    both, either = int((first & second).sum()), int((first | second).sum())
    return both / either if either else 0.0


def _tighten(instances: Instances) -> Instances:
    """Fit the boxes to where the masks are 0.5 and more, to a cell of their frames."""
    masks, boxes = instances.pred_masks, instances.pred_boxes.tensor
    inside = masks[:, 0] >= 0.5
    kept = inside.flatten(1).any(dim=1)
    instances, masks, boxes, inside = instances[kept], masks[kept], boxes[kept], inside[kept]
    tight = boxes.clone()
    for axis, reduced in ((0, inside.any(dim=1)), (1, inside.any(dim=2))):
        size = reduced.shape[1]
        first = reduced.float().argmax(dim=1)
        last = size - reduced.flip(1).float().argmax(dim=1)
        step = (boxes[:, axis + 2] - boxes[:, axis]) / size
        tight[:, axis], tight[:, axis + 2] = boxes[:, axis] + first * step, boxes[:, axis] + last * step
    instances.pred_masks = move_masks(masks, boxes, tight)
    instances.pred_boxes = Boxes(tight)
    return instances
