"""Test-time augmentation: one size is the plain model, mirrored input mirrors the result, and both ways to it agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lung_d2 import slice_image
from lung_d2.data.planes import read_plane
from lung_d2.engine import CTPredictor, LungCheckpointer, LungTrainer
from lung_d2.engine.lung_view import LungUse
from lung_d2.engine.predictor import build_tta, without_resize
from lung_d2.errors import ConfigError
from lung_d2.lungs import LungField
from tiny import tiny_config, volume_of, write_tiny_dataset

SIZES = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64, 96), "TEST.AUG.MAX_SIZE", 128)
ONE_SIZE = ("TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", False)
REPORT_ALL = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)  # a random model is sure of nothing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(folder)
    return folder


def build(root: Path, output: Path, *opts: Any) -> tuple[Any, Any]:
    """Return the config and the model, whose random weights are the same each time."""
    cfg = tiny_config(root, output, *SIZES, *REPORT_ALL, *opts)
    torch.manual_seed(0)
    return cfg, LungTrainer.build_model(cfg).eval()


def picture() -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 80), dtype=np.uint8)
    return {"image": torch.from_numpy(np.repeat(pixels, 3, axis=0)), "height": 64, "width": 80}


def run(model: Any, record: dict[str, Any]) -> Any:
    with torch.no_grad():
        found = model([record])[0]["instances"]
    return found[torch.argsort(found.scores, descending=True, stable=True)]


def test_one_size_without_flip_is_the_plain_model(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path, *ONE_SIZE)
    plain, augmented = run(model, picture()), run(build_tta(cfg, model), picture())
    assert len(plain) == len(augmented) > 0
    assert torch.allclose(plain.scores, augmented.scores, atol=1e-6)
    assert torch.allclose(plain.pred_boxes.tensor, augmented.pred_boxes.tensor, atol=1e-3)
    assert float((plain.pred_masks != augmented.pred_masks).float().mean()) < 1e-3


def test_mirrored_slice_gives_the_mirrored_result(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path)
    augmented = build_tta(cfg, model)
    record = picture()
    found = run(augmented, record)
    other = run(augmented, record | {"image": record["image"].flip(2)})
    plain = run(model, record)
    assert len(found) == len(other) > 0
    assert torch.allclose(found.scores, other.scores, atol=1e-5)
    assert not torch.allclose(plain.scores[: len(found)].sum(), found.scores.sum(), atol=1e-4)
    left, right = other.pred_boxes.tensor[:, 0], other.pred_boxes.tensor[:, 2]
    assert torch.allclose(found.pred_boxes.tensor[:, [0, 2]], torch.stack([80 - right, 80 - left], 1), atol=1e-2)
    assert float((found.pred_masks != other.pred_masks.flip(2)).float().mean()) < 1e-3


def test_slice_without_detection_is_empty(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    found = run(build_tta(cfg, model), picture())
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 64, 80)


def test_model_keeps_its_mask_head(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path)
    run(build_tta(cfg, model), picture())
    assert run(model, picture()).has("pred_masks")


def test_other_architectures_are_refused(root: Path, tmp_path: Path) -> None:
    cfg, _ = build(root, tmp_path)
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.ENABLED: .*GeneralizedRCNN"):
        build_tta(cfg, torch.nn.Linear(1, 1))


@pytest.mark.parametrize("sizes", [(), (0,), (64, -1)])
def test_sizes_that_are_none_are_refused(root: Path, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.MIN_SIZES"):
        tiny_config(root, tmp_path, "TEST.AUG.MIN_SIZES", sizes)


def test_evaluation_gives_a_second_set_of_results(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path, *ONE_SIZE)
    plain = LungTrainer.test(cfg, model)
    results = LungTrainer.test_with_tta(cfg, model)
    assert set(results) == {"bbox_TTA", "segm_TTA"}
    # Slices are of 64 pixels: no size but their own is the plain evaluation.
    assert results["segm_TTA"] == pytest.approx(plain["segm"], abs=1e-3, nan_ok=True)
    for name in ("inference", "inference_TTA"):
        found = json.loads((tmp_path / name / "tiny_val" / "coco_instances_results.json").read_text())
        assert len(found) > 0


def test_training_ends_with_both_evaluations(root: Path, tmp_path: Path) -> None:
    trainer = LungTrainer(tiny_config(root, tmp_path, *SIZES, "SOLVER.MAX_ITER", 1))
    trainer.resume_or_load(resume=False)
    assert set(trainer.train() or ()) == {"bbox", "segm"}
    last = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert {"segm/AP50", "segm_TTA/AP50"} <= last.keys()


def test_predictor_detects_as_the_evaluation_does(root: Path, tmp_path: Path) -> None:
    cfg, model = build(root, tmp_path)
    LungCheckpointer(model, str(tmp_path)).save("random")
    cfg.MODEL.WEIGHTS = str(tmp_path / "random.pth")
    records = [record for batch in LungTrainer.build_test_loader(without_resize(cfg), "tiny_val") for record in batch]
    volume = volume_of(np.stack([read_plane(record["file_name"]) for record in records]).astype(np.int16))
    predictor, augmented = CTPredictor(cfg), build_tta(cfg, model)
    found = predictor(volume, progress=False)
    for index, record in enumerate(records):
        image = slice_image(volume, index, grey=predictor.grey, channels="single")
        assert np.array_equal(record["image"].numpy(), image.transpose(2, 0, 1))
        expected = run(augmented, record)
        assert len(expected) > 0
        assert np.array_equal(found[index].scores, expected.scores.numpy())
        assert np.array_equal(found[index].boxes, expected.pred_boxes.tensor.numpy())


def test_predictor_augments_whole_slices_alone(root: Path, tmp_path: Path) -> None:
    """Group norm aside, the network would see the box of the lungs, which is resized to more than the whole slice."""
    cfg, model = build(root, tmp_path, "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    LungCheckpointer(model, str(tmp_path)).save("random")
    cfg.MODEL.WEIGHTS = str(tmp_path / "random.pth")
    volume = volume_of(np.zeros((1, 64, 64), np.int16))
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[:, 28:36, 28:36] = 1
    lungs = LungField(labels, volume.spacing_mm)
    for use in (LungUse(), LungUse(crop=True)):
        assert CTPredictor(cfg).view_of(volume, lungs, use).margin_mm is None
    cfg.TEST.AUG.ENABLED = False
    assert CTPredictor(cfg).view_of(volume, lungs).margin_mm == 30
