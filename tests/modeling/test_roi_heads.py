from __future__ import annotations

import pytest
import torch
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from lung_d2.modeling import LungROIHeads
from modeling.truth import EVERYWHERE, LEFT_HALF, SIZE, TILES, truth
from tiny import ring, square, tiny_config

PRODUCT = "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE"
LOSSES = {"CLS": "loss_cls", "BOX": "loss_box_reg", "MASK": "loss_mask"}
DETECTRON2S = ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "MODEL.ROI_HEADS.NAME", "StandardROIHeads")
BACKGROUND = 2


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
    theirs = detections(build(tmp_path, *DETECTRON2S))
    assert len(ours) > 0
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.pred_masks, theirs.pred_masks)


def test_fusion_joins_detections_and_gives_each_the_box_of_its_mask(tmp_path):
    apart = detections(build(tmp_path))
    fused = detections(build(tmp_path, "MODEL.ROI_HEADS.MASK_FUSION.IOU", 0.2))
    assert 0 < len(fused) < len(apart)
    assert set(fused.scores.tolist()) <= set(apart.scores.tolist())
    fused = fused[fused.pred_masks.flatten(1).any(dim=1)]  # thin ones may fall between the pixels
    drawn = BitMasks(fused.pred_masks).get_bounding_boxes().tensor
    assert (drawn - fused.pred_boxes.tensor).abs().median() < 1


def test_weights_of_a_standard_mask_rcnn_fit(tmp_path):
    standard = build(tmp_path, *DETECTRON2S).state_dict()
    missing, unexpected = build(tmp_path).load_state_dict(standard, strict=False)
    assert (missing, unexpected) == ([], [])


@pytest.mark.parametrize("sigmoid", [True, False])
def test_class_and_objectness_make_the_score_by_hand(tmp_path, sigmoid):
    predictor = build(tmp_path, PRODUCT, True, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", sigmoid).roi_heads.box_predictor
    images = [proposals_of([[0, 0, 8, 8], [8, 8, 16, 16]]), proposals_of([[16, 16, 24, 24]])]
    for proposals, objectness in zip(images, ([0.81, 0.04], [0.25]), strict=True):
        proposals.objectness_logits = torch.logit(torch.tensor(objectness))
    logits = torch.log(torch.tensor([[1.0, 2.0, 1.0]])).expand(3, 3)  # softmax 1/4, 1/2, 1/4; sigmoid 1/2, 2/3, 1/2
    first, second = predictor.predict_probs((logits, torch.zeros(3, 8)), images)
    classes = torch.tensor([1 / 2, 2 / 3] if sigmoid else [1 / 4, 1 / 2]).sqrt()
    torch.testing.assert_close(first[:, :2], torch.stack([0.9 * classes, 0.2 * classes]))
    torch.testing.assert_close(second[:, :2], 0.5 * classes[None])


def test_scores_of_class_and_objectness_leave_the_training_as_it_is(tmp_path):
    standard, model = build(tmp_path), build(tmp_path, PRODUCT, True)
    model.load_state_dict(standard.state_dict())
    assert losses(model) == losses(standard)


def proposals_of(boxes):
    proposals = Instances((SIZE, SIZE))
    proposals.proposal_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    proposals.objectness_logits = torch.zeros(len(boxes))
    return proposals


def drawn(model, boxes, *slices):
    """Return what is drawn of the same proposals in each slice: 16, at most half of them lesions."""
    torch.manual_seed(5)
    with EventStorage(0):
        return model.roi_heads.label_and_sample_proposals([proposals_of(boxes) for _ in slices], [*slices])


def build_drawing(tmp_path, *opts):
    return build(tmp_path, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5, *opts)


def test_proposals_by_hand(tmp_path):
    """A GGO is decided, a bronchus lies inside the lower right quarter, which is undecided."""
    expected = {
        (8, 8, 24, 24): 0,  # the GGO
        (12, 8, 28, 24): 0,  # IoU 12 / 20 with it
        (16, 8, 32, 24): BACKGROUND,  # IoU 8 / 24
        (32, 32, 44, 44): 1,  # the bronchus
        (32, 32, 46, 44): 1,  # IoU 12 / 14 with it
        (46, 46, 62, 62): None,  # undecided
        (25, 44, 41, 60): None,  # 9 of 16 columns undecided
        (24, 44, 40, 60): BACKGROUND,  # half of it decided
        (0, 40, 16, 56): BACKGROUND,
    }
    lesions = [square(SIZE, 8, 8, 16), square(SIZE, 32, 32, 12)]
    (found,) = drawn(build_drawing(tmp_path), list(expected), truth(lesions, [square(SIZE, 32, 32, 32)]))
    boxes = [tuple(box) for box in found.proposal_boxes.tensor.int().tolist()]
    classes = dict(zip(boxes, found.gt_classes.tolist(), strict=True))
    assert {box: classes.get(box) for box in expected} == expected
    assert set(classes) <= set(expected)
    assert set(found.get_fields()) == {"proposal_boxes", "objectness_logits", "gt_boxes", "gt_classes", "gt_masks"}


def test_mini_batch_is_filled_with_known_background(tmp_path):
    (found,) = drawn(build_drawing(tmp_path), TILES, truth(undecided=[LEFT_HALF]))
    assert found.gt_classes.tolist() == [BACKGROUND] * 16
    assert (found.proposal_boxes.tensor[:, 0] >= SIZE // 2).all()


def test_each_image_has_its_own_regions(tmp_path):
    plain, half = truth([square(SIZE, 48, 48, 8)]), truth([square(SIZE, 48, 48, 8)], [LEFT_HALF])
    found = drawn(build_drawing(tmp_path), TILES, plain, plain, half)
    assert [len(one) for one in found] == [16, 16, 16]
    assert [bool((one.proposal_boxes.tensor[:, 0] < SIZE // 2).any()) for one in found] == [True, True, False]


@pytest.mark.parametrize("boxes", [[], TILES], ids=["no proposal", "all undecided"])
def test_nothing_is_drawn_where_nothing_is_left(tmp_path, boxes):
    (found,) = drawn(build_drawing(tmp_path), boxes, truth(undecided=[EVERYWHERE]))
    assert len(found) == 0
    assert found.gt_classes.dtype == torch.int64


def test_lesions_are_drawn_where_all_else_is_undecided(tmp_path):
    (found,) = drawn(build_drawing(tmp_path), TILES, truth([square(SIZE, 20, 20, 12)], [EVERYWHERE]))
    assert found.gt_classes.tolist() == [0]
    assert found.gt_boxes.tensor.tolist() == [[20, 20, 32, 32]]
    assert found.gt_masks.tensor.sum() == 144


def test_draws_are_detectron2s_where_nothing_is_undecided(tmp_path):
    slices = (truth([square(SIZE, 8, 8, 8)]), truth(), truth([ring(SIZE, 20, 20, 14), square(SIZE, 40, 40, 9)]))
    ours = drawn(build_drawing(tmp_path), TILES, *slices)
    state = torch.get_rng_state()
    theirs = drawn(build_drawing(tmp_path, *DETECTRON2S), TILES, *slices)
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.proposal_boxes.tensor, other.proposal_boxes.tensor)
        assert torch.equal(one.gt_classes, other.gt_classes)
        assert set(one.get_fields()) == set(other.get_fields())


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "slices",
    [
        [truth(undecided=[EVERYWHERE])],
        [truth(undecided=[EVERYWHERE]), truth()],
        [truth([square(SIZE, 8, 8, 16)]), truth([square(SIZE, 8, 8, 16)], [EVERYWHERE, LEFT_HALF])],
    ],
    ids=["undecided as a whole", "beside an empty one", "with lesions"],
)
def test_loss_is_finite_and_reaches_every_weight(tmp_path, slices, mixed):
    model = build(tmp_path).train()
    image = torch.full((3, SIZE, SIZE), 120, dtype=torch.uint8)
    with EventStorage(0), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = model([{"image": image, "instances": instances} for instances in slices])
    sum(found.values()).backward()
    assert all(torch.isfinite(loss) for loss in found.values())
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert (found["loss_cls"] > 0) == (len(slices) > 1)
    assert (found["loss_mask"] > 0) == any(not instances.has("gt_crowd") and len(instances) for instances in slices)
