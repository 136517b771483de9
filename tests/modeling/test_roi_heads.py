from __future__ import annotations

import pytest
import torch
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from lung_d2.modeling import LungROIHeads
from tiny import ring, square, tiny_config

LOSSES = {"CLS": "loss_cls", "BOX": "loss_box_reg", "MASK": "loss_mask"}


def build(tmp_path, *opts):
    """Build the tiny model; the same seed gives the same weights."""
    torch.manual_seed(0)
    return build_model(tiny_config(tmp_path, tmp_path, *opts))


def batch():
    masks = torch.stack([torch.from_numpy(square(64, 8, 8, 20)), torch.from_numpy(ring(64, 36, 36, 16, wall=4))])
    instances = Instances((64, 64))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 28.0, 28.0], [36.0, 36.0, 52.0, 52.0]]))
    instances.gt_classes = torch.tensor([0, 1])
    image = torch.where(masks.any(dim=0), 200, 60).to(torch.uint8).expand(3, 64, 64).contiguous()
    return [{"image": image, "instances": instances, "height": 64, "width": 64}]


def losses(model):
    torch.manual_seed(1)  # anchors and proposals are sampled
    with torch.no_grad(), EventStorage(0):
        return {name: float(loss) for name, loss in model.train()(batch()).items()}


def detections(model):
    with torch.no_grad():
        return model.eval()(batch())[0]["instances"]


def test_heads_are_registered():
    assert ROI_HEADS_REGISTRY.get("LungROIHeads") is LungROIHeads


@pytest.mark.parametrize("key", LOSSES)
def test_weight_scales_its_own_loss_alone(tmp_path, key):
    plain = losses(build(tmp_path))
    weighted = losses(build(tmp_path, f"MODEL.ROI_HEADS.LOSS_WEIGHTS.{key}", 2.0))
    assert plain[LOSSES[key]] > 0
    assert weighted == {name: loss * (2 if name == LOSSES[key] else 1) for name, loss in plain.items()}


def test_losses_are_those_of_the_method(tmp_path):
    assert set(losses(build(tmp_path))) == {*LOSSES.values(), "loss_rpn_cls", "loss_rpn_loc"}


def test_detections_are_those_of_detectron2s_heads(tmp_path):
    opts = ("MODEL.ROI_HEADS.LOSS_WEIGHTS.CLS", 5.0, "MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK", 5.0)
    ours = detections(build(tmp_path, *opts))
    theirs = detections(build(tmp_path, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"))
    assert len(ours) > 0
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.pred_masks, theirs.pred_masks)


def test_weights_of_a_standard_mask_rcnn_fit(tmp_path):
    standard = build(tmp_path, "MODEL.ROI_HEADS.NAME", "StandardROIHeads").state_dict()
    missing, unexpected = build(tmp_path).load_state_dict(standard, strict=False)
    assert (missing, unexpected) == ([], [])
