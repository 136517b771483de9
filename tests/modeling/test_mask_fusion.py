from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances

from lung_d2.modeling.mask_fusion import MaskFusion, move_masks

# A cell of a frame of 12 pixels is 12 / 56 of a pixel wide.
CELL = 12 / 56


def detections(boxes, scores, classes=None):
    """Return detections whose masks fill their boxes."""
    found = Instances((40, 40), pred_boxes=Boxes(torch.tensor(boxes)), scores=torch.tensor(scores))
    found.pred_classes = torch.tensor(classes or [0] * len(scores))
    found.pred_masks = torch.ones(len(scores), 1, 28, 28)
    return found


# They share 80 of 120 pixels. The fused mask is 1 where both are, 0.9 / 1.5 = 0.6 where the first alone is, 0.4 where
# the second alone is.
PAIR = detections([[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0]], [0.9, 0.6])


@pytest.mark.parametrize(("threshold", "right"), [(0.5, 10.0), (0.3, 12.0)])
def test_second_hits_become_one_with_the_mean_mask(threshold, right):
    found = MaskFusion(iou=0.5, threshold=threshold).refine(PAIR)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx([0.0, 0.0, right, 10.0], abs=1.5 * CELL)
    assert bool((found.pred_masks >= 0.5).float().mean() > 0.95)


def test_where_neither_outweighs_the_other_what_only_one_outlines_is_left_out():
    found = MaskFusion(iou=0.5, threshold=0.7).refine(PAIR)
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx([2.0, 0.0, 10.0, 10.0], abs=1.5 * CELL)


@pytest.mark.parametrize(
    ("fusion", "classes"), [(MaskFusion(iou=0.7), [0, 0]), (MaskFusion(iou=0.5), [0, 1]), (MaskFusion(), [0, 0])]
)
def test_others_stay_apart(fusion, classes):
    apart = detections(PAIR.pred_boxes.tensor.tolist(), [0.9, 0.6], classes)
    found = fusion.refine(apart)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert torch.allclose(found.pred_boxes.tensor, apart.pred_boxes.tensor)


def test_a_mask_that_is_nowhere_lesion_leaves():
    found = detections([[0.0, 0.0, 10.0, 10.0]], [0.9])
    found.pred_masks = torch.full((1, 1, 28, 28), 0.4)
    assert len(MaskFusion(threshold=0.45).refine(found)) == 0


def test_the_mask_head_sees_wider_boxes_within_the_image():
    wide = MaskFusion(box_scale=1.5).widen(detections([[10.0, 10.0, 20.0, 30.0], [0.0, 0.0, 8.0, 8.0]], [0.9, 0.8]))
    assert wide.pred_boxes.tensor.tolist() == [[7.5, 5.0, 22.5, 35.0], [0.0, 0.0, 10.0, 10.0]]


def test_a_mask_moved_to_its_own_frame_is_the_same():
    masks = torch.rand(2, 1, 28, 28)
    boxes = torch.tensor([[1.0, 2.0, 11.0, 9.0], [0.0, 0.0, 5.0, 5.0]])
    assert torch.allclose(move_masks(masks, boxes, boxes, 28), masks, atol=1e-5)


def test_nothing_is_changed_by_default():
    assert not MaskFusion().any
    assert MaskFusion(iou=0.5).any
