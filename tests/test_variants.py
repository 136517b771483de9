"""The variants of the method: what each changes, on a model that is tiny and whose base is another than theirs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from lung_d2 import load_config
from lung_d2.config.keys import input_settings
from lung_d2.ct import read_volume
from lung_d2.ct.grey import GreyLevels
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.errors import CheckpointError
from modeling.truth import EVERYWHERE, SIZE, truth
from tiny import CONFIGS, ring, square, tiny_config

FILES = {path.stem: path for path in sorted((CONFIGS / "variants").glob("*.yaml"))}
FILES["neighbours"] = CONFIGS / "mask_rcnn_R_50_FPN_lung_neighbours.yaml"
ONE_KEY: dict[str, dict[str, Any]] = {  # on a command line, as configs/README.md says
    "attention_channel": {
        "MODEL.BACKBONE.NAME": "build_resnet_attention_fpn_backbone",
        "MODEL.FPN.ATTENTION.SPATIAL": False,
    },
    "mask_56": {"MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 28},
    "loss_mask_2": {"MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK": 2.0},
    "box_giou": {"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "giou"},
    "objectness": {"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": True},
}
BASE = CONFIGS / "mask_rcnn_R_50_FPN_lung_1x.yaml"
OTHER_SHAPE = {"anchors_dense": "proposal_generator.rpn_head"}  # more anchors, so other outputs
OF_THEIR_OWN = {"attention": "backbone.attention", "attention_channel": "backbone.attention"}
MASK_SIDES = {"mask_56": 56}

# The tiny pyramid has 32 channels, of which a bottleneck of two may be below zero for every slice; and all anchors are
# drawn, since the loss of a few need not reach the coarsest level.
LIVELY = ("MODEL.FPN.ATTENTION.REDUCTION", 2, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 4096)

each_file = pytest.mark.parametrize("name", FILES)
each_variant = pytest.mark.parametrize("name", [*FILES, *ONE_KEY])


def delta_of(name: str) -> dict[str, Any]:
    """Return what a variant changes, by dotted key."""
    if name in ONE_KEY:
        return ONE_KEY[name]
    content = yaml.safe_load(FILES[name].read_text("utf-8"))
    assert (FILES[name].parent / content.pop("_BASE_")).resolve() == BASE
    return dict(flatten(content))


def flatten(node: dict[str, Any], prefix: str = ""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_of(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return list(cfg) if isinstance(cfg, tuple) else cfg


def build(folder: Path, name: str = "") -> torch.nn.Module:
    """Build the tiny model, with what the variant changes."""
    delta = delta_of(name) if name else {}
    opts = [item for pair in delta.items() for item in pair]
    torch.manual_seed(0)
    return build_model(tiny_config(folder, folder, *LIVELY, *opts))


def batch() -> list[dict[str, Any]]:
    lesions = [square(SIZE, 8, 8, 20), ring(SIZE, 36, 36, 16, wall=4)]
    seen = torch.from_numpy(lesions[0] | lesions[1])
    image = torch.where(seen, 200, 60).to(torch.uint8).expand(3, SIZE, SIZE).contiguous()
    return [{"image": image, "instances": truth(lesions), "height": SIZE, "width": SIZE}]


def losses_of(model: torch.nn.Module, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    with EventStorage(0):
        losses: dict[str, torch.Tensor] = model.train()(inputs)
    return losses


def stir(model: torch.nn.Module) -> torch.nn.Module:
    """Take a new model two steps of a training further, so that what starts at zero no longer is."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        sum(losses_of(model, batch()).values()).backward()
        optimizer.step()
    return model


@each_file
def test_variant_changes_what_it_says_and_nothing_else(name):
    delta, base, cfg = delta_of(name), load_config(BASE), load_config(FILES[name])
    assert {key: value_of(cfg, key) for key in delta} == delta
    assert any(value_of(base, key) != value for key, value in delta.items())
    changed = {
        key for key, value in flatten(cfg) if value_of(base, key) != (list(value) if type(value) is tuple else value)
    }
    assert changed <= set(delta)


@each_variant
def test_losses_are_finite_and_reach_every_parameter(tmp_path, name):
    model = stir(build(tmp_path, name))
    model.zero_grad()
    losses = losses_of(model, batch())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values()), losses
    named = dict(model.named_parameters())
    assert [name for name, value in named.items() if value.grad is None or not torch.isfinite(value.grad).all()] == []
    if name in OF_THEIR_OWN:
        assert [name for name in named if "attention" in name and not named[name].grad.any()] == []


@each_variant
def test_losses_are_finite_in_bfloat16(tmp_path, name):
    model = build(tmp_path, name)
    exact = losses_of(model, batch())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses_of(model, batch())
    sum(mixed.values()).backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters())
    assert mixed["loss_cls"].item() == pytest.approx(exact["loss_cls"].item(), rel=0.05)


@each_variant
def test_standard_weights_load_and_only_what_is_new_is_missing(tmp_path, name):
    standard = build(tmp_path)
    LungCheckpointer(standard, str(tmp_path)).save("standard")
    model = build(tmp_path, name)
    checkpointer = LungCheckpointer(model, allow_partial=True)
    checkpointer.load(str(tmp_path / "standard.pth"), checkpointables=[])
    new = OF_THEIR_OWN.get(name) or OTHER_SHAPE.get(name) or "nothing"
    weights, given = model.state_dict(), standard.state_dict()
    differing = [name for name in weights if name not in given or not torch.equal(weights[name], given[name])]
    settings = {"pixel_mean", "pixel_std"}  # buffers that no checkpoint holds
    assert all(name.startswith(new) for name in differing if name not in settings), differing
    if name in OF_THEIR_OWN:
        assert {name for name in weights if name.startswith(new)} == set(weights) - set(given)
        with pytest.raises(CheckpointError, match=rf"{new}\.p2.* first"):
            LungCheckpointer(model).load(str(tmp_path / "standard.pth"))


@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_attention_begins_with_the_standard_models_detections(tmp_path, name):
    standard, model = stir(build(tmp_path)).eval(), build(tmp_path, name).eval()
    model.load_state_dict(standard.state_dict(), strict=False)
    with torch.no_grad():
        expected, found = (one(batch())[0]["instances"] for one in (standard, model))
    assert len(found) > 0
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.pred_masks, expected.pred_masks)


@each_variant
def test_traced_inference_is_the_eager_one(tmp_path, name):
    model = stir(build(tmp_path, name)).eval()
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    adapter = TracingAdapter(model, [{"image": image}], lambda model, inputs: model.inference(inputs, None, False))
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        expected = model.inference([{"image": image}], do_postprocess=False)[0]
        found = adapter.outputs_schema(traced(image))[0]
    assert len(found) > 0
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    side = MASK_SIDES.get(name, 28)
    assert found.pred_masks.shape == (len(found), 1, side, side)
    assert torch.equal(found.pred_masks, expected.pred_masks)


def test_sigmoid_scores_are_those_of_class_against_background(tmp_path):
    """The categories do not compete, and the background's own score has no say."""
    predictor = build(tmp_path, "sigmoid").roi_heads.box_predictor
    logits = torch.tensor([[2.0, 1.0, 5.0], [-3.0, 0.0, -5.0]])
    proposals = truth([square(SIZE, 0, 0, 8), square(SIZE, 8, 8, 8)])
    proposals.proposal_boxes = proposals.gt_boxes
    (scores,) = predictor.predict_probs((logits, torch.zeros(2, 8)), [proposals])
    torch.testing.assert_close(scores[:, :2], torch.tensor([[0.880797, 0.731059], [0.047426, 0.5]]))


def test_sigmoid_reports_a_place_in_both_categories_and_suppresses_within_each(tmp_path):
    predictor = build(tmp_path, "sigmoid").roi_heads.box_predictor
    boxes = [square(SIZE, 10, 10, 30), square(SIZE, 10, 11, 30), square(SIZE, 44, 44, 10)]
    proposals = truth(boxes)
    proposals.proposal_boxes = proposals.gt_boxes
    logits = torch.tensor([[3.0, 2.0, 9.0], [2.0, 1.0, 9.0], [-4.0, 0.0, 9.0]])  # sigmoid(-4) = 0.018 < 0.05
    (found,), _ = predictor.inference((logits, torch.zeros(3, 8)), [proposals])
    kept = sorted(zip(found.pred_classes.tolist(), found.pred_boxes.tensor[:, 0].int().tolist(), strict=True))
    assert kept == [(0, 10), (1, 10), (1, 44)]


def test_sigmoid_starts_near_the_loss_of_softmax(tmp_path):
    """Two categories at 0.5 each cost 2 ln 2 where three classes cost ln 3: no prior bias is needed for two."""
    sigmoid, softmax = (losses_of(build(tmp_path, name), batch())["loss_cls"].item() for name in ("sigmoid", ""))
    assert sigmoid == pytest.approx(1.386, abs=0.05)
    assert softmax == pytest.approx(1.099, abs=0.05)


def test_sigmoid_loss_weighs_proposals_not_lesions(tmp_path):
    """By hand: the sum over both categories, over the number of proposals."""
    predictor = build(tmp_path, "sigmoid").roi_heads.box_predictor
    logits = torch.tensor([[2.0, -1.0, 7.0], [0.0, 0.0, 7.0]])
    loss = predictor.sigmoid_cross_entropy_loss(logits, torch.tensor([0, 2]))  # an opacity, and background
    softplus = torch.nn.functional.softplus(torch.tensor([-2.0, -1.0, 0.0, 0.0]))
    assert float(loss) == pytest.approx(float(softplus.sum()) / 2, abs=1e-6)


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bfloat16"])
def test_sigmoid_of_an_undecided_slice_reaches_every_parameter(tmp_path, mixed):
    """Distributed training waits for a gradient of each of them."""
    model = build(tmp_path, "sigmoid")
    image = torch.full((3, SIZE, SIZE), 120, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        losses = losses_of(model, [{"image": image, "instances": truth(undecided=[EVERYWHERE])}])
    sum(losses.values()).backward()
    assert losses["loss_cls"].item() == 0
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_dense_anchors_hold_the_bases_and_two_between():
    base, dense = (
        load_config(path).MODEL.ANCHOR_GENERATOR.SIZES for path in (BASE, CONFIGS / "variants/anchors_dense.yaml")
    )
    assert [[sizes[-1]] for sizes in dense] == base
    steps = [b / a for sizes in dense for a, b in itertools.pairwise(sizes)]
    assert all(1.2 < step < 1.32 for step in steps)  # the cube root of 2 is 1.26


@pytest.fixture(scope="module")
def histogram(data_root):
    """Give the HU of a real series, ascending, and how often each occurs."""
    hu = read_volume(data_root / "ct_series" / "normal_case_2").hu
    counts = np.bincount(hu.ravel().astype(np.int32) + (1 << 15))  # int16
    (found,) = np.nonzero(counts)
    return (found - (1 << 15)).astype(np.int16), counts[found]


@pytest.mark.parametrize("name", ["window_wide", "window_narrow"])
def test_window_has_the_mean_and_deviation_of_its_own_images(histogram, name):
    cfg = load_config(CONFIGS / "variants" / f"{name}.yaml")
    levels = GreyLevels("window", cfg.INPUT.CT.WINDOW_CENTER, cfg.INPUT.CT.WINDOW_WIDTH)
    hu, counts = histogram
    grey = levels.apply(hu[None])[0].astype(float)
    mean = np.average(grey, weights=counts)
    deviation = np.sqrt(np.average((grey - mean) ** 2, weights=counts))
    assert [mean] * 3 == pytest.approx(list(cfg.MODEL.PIXEL_MEAN), abs=0.1)
    assert [deviation] * 3 == pytest.approx(list(cfg.MODEL.PIXEL_STD), abs=0.1)


def test_window_of_a_checkpoint_is_compared(tmp_path):
    """Weights of another window are refused where a model is used, not trained on."""
    wide, plain = (load_config(path) for path in (CONFIGS / "variants/window_wide.yaml", BASE))
    model = build(tmp_path)
    LungCheckpointer(model, str(tmp_path), settings=input_settings(wide)).save("wide")
    with pytest.raises(CheckpointError, match=r"trained with (INPUT\.CT\.WINDOW|MODEL\.PIXEL)"):
        LungCheckpointer(model, settings=input_settings(plain)).load(str(tmp_path / "wide.pth"))
