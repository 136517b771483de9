from __future__ import annotations

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY, build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from lung_d2.modeling import LungRPN
from modeling.truth import EVERYWHERE, LEFT_HALF, SIZE, TILE_IS_LEFT, TILES, truth
from tiny import ring, square, tiny_config

DETECTRON2S = ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN")


@pytest.fixture
def build(tmp_path):
    """Return a function that builds the tiny model; the same seed gives the same weights."""

    def build_with(*opts):
        torch.manual_seed(0)
        return build_model(tiny_config(tmp_path, tmp_path, *opts))

    return build_with


def labels_of(model, anchors, *slices):
    """Return the label of each anchor in each slice; a mini-batch draws 32, at most 16 of them lesions."""
    torch.manual_seed(5)
    anchors = [Boxes(torch.as_tensor(anchors, dtype=torch.float32))]
    labels, _ = model.proposal_generator.label_and_sample_anchors(anchors, [*slices])
    return labels


def test_region_network_is_registered():
    assert PROPOSAL_GENERATOR_REGISTRY.get("LungRPN") is LungRPN


def test_anchors_by_hand(build):
    """One lesion is decided, another lies inside the lower right quarter, which is undecided."""
    expected = {
        (8, 8, 24, 24): 1,  # the first lesion
        (10, 8, 26, 24): 1,  # IoU 14 / 18 with it
        (12, 8, 28, 24): -1,  # IoU 12 / 20: between Detectron2's thresholds
        (32, 32, 44, 44): 1,  # the second lesion
        (46, 46, 62, 62): -1,  # undecided
        (25, 44, 41, 60): -1,  # 9 of 16 columns undecided
        (24, 44, 40, 60): 0,  # half of it decided
        (0, 40, 16, 56): 0,
        (56, 56, 72, 72): 0,  # a quarter undecided, the rest beyond the image
    }
    instances = truth([square(SIZE, 8, 8, 16), square(SIZE, 32, 32, 12)], [square(SIZE, 32, 32, 32)])
    (labels,) = labels_of(build(), list(expected), instances)
    assert dict(zip(expected, labels.tolist(), strict=True)) == expected


def test_hole_of_an_undecided_region_is_background(build):
    anchors = [[20, 20, 44, 44], [4, 4, 14, 14]]
    (labels,) = labels_of(build(), anchors, truth(undecided=[ring(SIZE, 0, 0, SIZE, wall=16)]))
    assert labels.tolist() == [0, -1]


def test_mini_batch_is_filled_with_known_background(build):
    """32 of the 64 tiles are undecided, so that all of the others are drawn, whatever the seed."""
    (labels,) = labels_of(build(), TILES, truth(undecided=[LEFT_HALF]))
    assert torch.equal(labels == 0, ~TILE_IS_LEFT)
    assert not (labels == 1).any()


def test_each_image_has_its_own_regions(build):
    plain, half = truth([square(SIZE, 48, 48, 8)]), truth(undecided=[LEFT_HALF])
    labels = labels_of(build(), TILES, plain, plain, half)
    assert [bool(((found == 0) & TILE_IS_LEFT).any()) for found in labels] == [True, True, False]
    assert [int((found == 1).sum()) for found in labels] == [1, 1, 0]


def test_undecided_region_is_matched_by_no_anchor(build):
    tile = square(SIZE, 16, 16, 8)
    (labels,) = labels_of(build(), TILES, truth(undecided=[tile, tile]))  # one for each category
    assert not (labels == 1).any()


def test_draws_are_detectron2s_where_nothing_is_undecided(build):
    slices = (truth([square(SIZE, 8, 8, 16)]), truth(), truth([ring(SIZE, 20, 20, 14)]))
    ours = labels_of(build(), TILES, *slices)
    state = torch.get_rng_state()
    theirs = labels_of(build(*DETECTRON2S), TILES, *slices)
    assert [found.tolist() for found in ours] == [found.tolist() for found in theirs]
    assert torch.equal(state, torch.get_rng_state())


def test_weights_are_named_as_in_detectron2s_region_network(build):
    assert list(build().state_dict()) == list(build(*DETECTRON2S).state_dict())


def test_slice_that_is_undecided_as_a_whole_teaches_nothing_and_breaks_nothing(build):
    model = build("MODEL.RPN.BOUNDARY_THRESH", 0).train()  # leaves out the anchors that go beyond the image
    images = model.preprocess_image([{"image": torch.full((3, SIZE, SIZE), 120, dtype=torch.uint8)}])
    with EventStorage(0):
        _, losses = model.proposal_generator(images, model.backbone(images.tensor), [truth(undecided=[EVERYWHERE])])
    sum(losses.values()).backward()
    assert {name: float(loss) for name, loss in losses.items()} == {"loss_rpn_cls": 0, "loss_rpn_loc": 0}
    gradients = [parameter.grad for parameter in model.proposal_generator.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_traced_inference_is_the_eager_one(build):
    model = build().eval()
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
    adapter = TracingAdapter(model, [{"image": image}], lambda model, inputs: model.inference(inputs, None, False))
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        expected = model.inference([{"image": image}], do_postprocess=False)[0]
        found = adapter.outputs_schema(traced(image))[0]
    assert len(found) > 0
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
