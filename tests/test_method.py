"""The steps of the method, on the model that the base config builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional

from lung_d2 import load_config
from lung_d2.categories import CATEGORIES
from lung_d2.data import CTDatasetMapper
from lung_d2.data.planes import write_plane
from lung_d2.masks import build_annotation
from lung_d2.modeling.undecided import share_inside
from tiny import CONFIGS, GGO_HU, GROUND_HU, Mask, square, tiny_config

LESION, UNDECIDED = square(64, 4, 4, 16), square(64, 24, 24, 36)
BACKGROUND = 2


@pytest.fixture(scope="module")
def cfg() -> Any:
    return load_config(CONFIGS / "mask_rcnn_R_50_FPN_lung_scratch.yaml", ["MODEL.DEVICE", "cpu"])


@pytest.fixture(scope="module")
def model(cfg: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).eval()


def test_image_is_normalised_once_by_the_fixed_mean_and_deviation(cfg: Any, model: Any) -> None:
    image = torch.full((3, 64, 64), 200, dtype=torch.uint8)
    images = model.preprocess_image([{"image": image}])
    expected = (200 - cfg.MODEL.PIXEL_MEAN[0]) / cfg.MODEL.PIXEL_STD[0]
    assert images.tensor[0, :, :64, :64].unique().item() == pytest.approx(expected, rel=1e-6)


def test_base_features_are_those_of_a_resnet_50(model: Any) -> None:
    stages = {name: len(getattr(model.backbone.bottom_up, name)) for name in ("res2", "res3", "res4", "res5")}
    assert stages == {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
    with torch.no_grad():
        features = model.backbone.bottom_up(torch.zeros(1, 3, 64, 64))
    shapes = {name: tuple(value.shape[1:]) for name, value in features.items()}
    assert shapes == {"res2": (256, 16, 16), "res3": (512, 8, 8), "res4": (1024, 4, 4), "res5": (2048, 2, 2)}


@torch.no_grad()
def test_pyramid_upsamples_and_sums_neighbouring_levels(model: Any) -> None:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    fpn = model.backbone
    base = fpn.bottom_up(image)
    above = fpn.fpn_lateral5(base["res5"])
    summed = fpn.fpn_lateral4(base["res4"]) + functional.interpolate(above, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(fpn(image)["p4"], fpn.fpn_output4(summed))


def test_candidate_regions_keep_the_likely_and_drop_the_rest(cfg: Any) -> None:
    boxes = torch.tensor([[[0.0, 0, 20, 20], [1, 1, 21, 21], [40, 40, 60, 60], [70, 70, 90, 90]]])
    logits = torch.tensor([[3.0, 2.0, 1.0, -5.0]])
    found = find_top_rpn_proposals(
        [boxes], [logits], [(100, 100)], cfg.MODEL.RPN.NMS_THRESH, 100, post_nms_topk=2, min_box_size=0, training=False
    )
    assert found[0].proposal_boxes.tensor.tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]]


def test_each_head_predicts_class_box_and_mask_of_two_categories(model: Any) -> None:
    heads = model.roi_heads
    pooled = torch.zeros(5, 256, 7, 7)
    scores, deltas = heads.box_predictor(heads.box_head(pooled))
    assert scores.shape == (5, 3)  # two categories and the background
    assert deltas.shape == (5, 2 * 4)
    assert heads.mask_head.layers(torch.zeros(5, 256, 14, 14)).shape == (5, 2, 28, 28)


def test_suppression_keeps_the_best_of_a_category_and_both_of_two(cfg: Any) -> None:
    box, near, far = [10.0, 10, 40, 40], [12.0, 10, 42, 40], [60.0, 60, 80, 80]
    boxes = torch.tensor([box * 2, near * 2, far * 2])
    scores = torch.tensor([[0.9, 0.7, 0.0], [0.8, 0.0, 0.2], [0.6, 0.0, 0.4]])  # opacity, bronchiectasis, background
    found, _ = fast_rcnn_inference(
        [boxes],
        [scores],
        [(100, 100)],
        score_thresh=0.5,
        nms_thresh=cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
        topk_per_image=9,
    )
    kept = sorted(zip(found[0].pred_classes.tolist(), found[0].scores.tolist(), strict=True))
    assert [(category, round(score, 1)) for category, score in kept] == [(0, 0.6), (0, 0.9), (1, 0.7)]
    assert isinstance(found[0].pred_boxes, Boxes)


def partly_labelled(folder: Path) -> dict[str, Any]:
    """Write a slice with two opacities, the smaller labelled and the larger left undecided for both categories."""
    write_plane(np.where(LESION | UNDECIDED, GGO_HU, GROUND_HU).astype(np.int16), folder / "slice.png")

    def annotation(mask: Mask, index: int, undecided: bool) -> dict[str, Any]:
        ours = {"category_id": index, "iscrowd": int(undecided), "bbox_mode": BoxMode.XYWH_ABS}
        return build_annotation(mask, CATEGORIES[index]) | ours

    annotations = [annotation(LESION, 0, False), annotation(UNDECIDED, 0, True), annotation(UNDECIDED, 1, True)]
    return {
        "file_name": str(folder / "slice.png"), "height": 64, "width": 64, "hu": True, "annotations": annotations
    }  # fmt: skip


def watch_draws(model: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return two lists that fill, step by step, with the boxes drawn as background: anchors and proposals."""
    anchors_drawn, proposals_drawn = [], []
    anchors_loss, draw_proposals = model.proposal_generator.losses, model.roi_heads.label_and_sample_proposals

    def losses(anchors: list[Boxes], logits: Any, labels: list[torch.Tensor], *rest: Any) -> Any:
        anchors_drawn.append(Boxes.cat(anchors).tensor[labels[0] == 0])
        return anchors_loss(anchors, logits, labels, *rest)

    def label_and_sample_proposals(*args: Any) -> list[Instances]:
        (found,) = drawn = draw_proposals(*args)
        proposals_drawn.append(found.proposal_boxes.tensor[found.gt_classes == BACKGROUND])
        return drawn

    monkeypatch.setattr(model.proposal_generator, "losses", losses)
    monkeypatch.setattr(model.roi_heads, "label_and_sample_proposals", label_and_sample_proposals)
    return anchors_drawn, proposals_drawn


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("opts", "spared"),
    [((), True), (("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"), False)],
    ids=["ours", "detectron2's"],
)
def test_training_draws_no_background_from_an_undecided_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opts: tuple[str, ...], spared: bool, mixed: bool
) -> None:
    torch.manual_seed(0)
    cfg = tiny_config(tmp_path, tmp_path, *opts, "INPUT.RANDOM_FLIP", "none")
    model = build_model(cfg).train()
    batch = [CTDatasetMapper(cfg, is_train=True)(partly_labelled(tmp_path))]
    drawn = watch_draws(model, monkeypatch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(8):
        with EventStorage(step), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = sum(model(batch).values())
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    for boxes in map(torch.cat, drawn):
        assert len(boxes) > 50
        assert bool((share_inside(boxes, torch.from_numpy(UNDECIDED)) > 0.5).any()) != spared
