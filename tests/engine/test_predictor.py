"""Prediction gives what the test loader and a plain DefaultPredictor give, with test-time augmentation too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.weights_samples import PROVENANCE, write_weights
from lung_d2 import slice_image
from lung_d2.ct import CTVolume
from lung_d2.data.planes import read_plane
from lung_d2.engine import CTPredictor, LungCheckpointer, LungTrainer
from lung_d2.engine.lung_view import LungUse
from lung_d2.engine.predictor import ModelOrigin, build_tta, without_resize
from lung_d2.errors import CheckpointError, ConfigError
from lung_d2.lungs import LungField
from lung_d2.masks import decode_mask
from tiny import tiny_config, volume_of, write_tiny_dataset

# A random model is sure of nothing: let it report all the same.
REPORT_ALL = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 128)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(folder)
    return folder


def tiny_weights(root: Path, folder: Path, *opts: Any) -> Any:
    """Save random weights; return the config that loads them."""
    cfg = tiny_config(root, folder, *REPORT_ALL, *opts)
    torch.manual_seed(0)
    LungCheckpointer(LungTrainer.build_model(cfg), str(folder)).save("random")
    cfg.MODEL.WEIGHTS = str(folder / "random.pth")
    return cfg


@pytest.mark.parametrize("channels", ["single", "neighbours"])
def test_mapper_predictor_and_default_predictor_agree(root: Path, tmp_path: Path, channels: str) -> None:
    from detectron2.engine import DefaultPredictor

    cfg = tiny_weights(root, tmp_path, "INPUT.CT.CHANNELS", channels)
    loader = LungTrainer.build_test_loader(cfg, "tiny_val")
    records = [record for batch in loader for record in batch]
    volume = volume_of(np.stack([read_plane(record["file_name"]) for record in records]).astype(np.int16))
    predictor = CTPredictor(cfg)
    plain = DefaultPredictor(cfg)
    found = predictor(volume)
    assert len(found) == len(records)
    for index, record in enumerate(records):
        image = slice_image(volume, index, grey=predictor.grey, channels=channels)
        resized = predictor.resize.get_transform(image).apply_image(image)
        assert np.array_equal(record["image"].numpy(), resized.transpose(2, 0, 1))
        with torch.no_grad():
            from_loader = predictor.model([record])[0]["instances"]
        from_plain = plain(image)["instances"]
        assert len(from_loader) > 0
        for other in (from_loader, from_plain):
            assert np.allclose(np.sort(found[index].scores), np.sort(other.scores.numpy()), atol=1e-5)
            assert found[index].boxes.sum() == pytest.approx(float(other.pred_boxes.tensor.sum()), rel=1e-4)


def test_detections_are_sorted_and_in_pixels_of_the_slice(root: Path, tmp_path: Path) -> None:
    predictor = CTPredictor(tiny_weights(root, tmp_path))
    picture = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    found = predictor.predict_image(np.repeat(picture[..., None], 3, axis=2), 5)
    assert found.slice_index == 5
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert found.boxes[:, 2].max() <= 50
    assert found.boxes[:, 3].max() <= 40
    assert all(mask["size"] == [40, 50] for mask in found.masks)
    assert set(found.category_ids) <= {1, 2}


def noise_volume(slices: int = 5) -> CTVolume:
    """Return a volume with something to find everywhere; sides of 64 pixels are 96 once resized."""
    return volume_of(np.random.default_rng(1).integers(-1000, 200, (slices, 64, 64)).astype(np.int16))


def lungs_of(volume: CTVolume, *slices: int) -> LungField:
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[list(slices), 28:36, 28:36] = 1
    return LungField(labels, volume.spacing_mm)


@pytest.fixture(scope="module")
def predictor(root: Path, tmp_path_factory: pytest.TempPathFactory) -> CTPredictor:
    return CTPredictor(tiny_weights(root, tmp_path_factory.mktemp("weights")))


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_batches_change_nothing(root: Path, tmp_path: Path, batch_size: int) -> None:
    cfg = tiny_weights(root, tmp_path)
    volume = noise_volume()
    one, many = (CTPredictor(cfg, batch_size=size)(volume, progress=False) for size in (1, batch_size))
    assert len(one) == len(many) == 5
    for left, right in zip(one, many, strict=True):
        assert len(left) == len(right) > 0
        assert np.allclose(left.boxes, right.boxes, atol=1e-3)
        assert np.allclose(left.scores, right.scores, atol=1e-5)


def test_batch_size_below_one_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size: 0; expected 1 or more"):
        CTPredictor(tiny_weights(root, tmp_path), batch_size=0)


def test_slices_without_lung_are_not_run(predictor: CTPredictor) -> None:
    volume = noise_volume(14)  # 2 mm apart
    found = predictor(volume, lungs_of(volume, 0), LungUse(drop_outside=False), progress=False)
    assert [one.slice_index for one in found] == list(range(14))
    assert [len(one) > 0 for one in found] == [True] * 6 + [False] * 8


def test_box_of_the_lungs_is_what_the_network_sees(predictor: CTPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, seen = noise_volume(1), []
    run = predictor.model.inference

    def look(batch: list[dict[str, Any]], **options: Any) -> Any:
        seen.extend(one["image"] for one in batch)
        return run(batch, **options)

    monkeypatch.setattr(predictor.model, "inference", look)
    monkeypatch.setattr("lung_d2.engine.lung_view.BOX_MARGIN_MM", 2.0)
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[:, 28:56, 10:36] = 1
    for crop in (False, True):
        predictor(volume, LungField(labels, volume.spacing_mm), LungUse(crop=crop), progress=False)
    whole, part = seen
    assert whole.shape == (3, 96, 96)
    # With their margin rows 25 to 59 and columns 8 to 38 of 64: 37 to 89 and 12 to 57 of 96, in steps of 32.
    assert torch.equal(part, whole[:, 32:96, 0:64])


def test_network_with_group_norm_sees_whole_slices_unless_told(predictor: CTPredictor) -> None:
    volume = noise_volume(1)
    assert not predictor.takes_crops
    assert predictor.view_of(volume, lungs_of(volume, 0)).margin_mm is None
    assert predictor.view_of(volume, lungs_of(volume, 0), LungUse(crop=True)).margin_mm == 30


def test_network_without_group_norm_sees_the_box(root: Path, tmp_path: Path) -> None:
    norms = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    predictor = CTPredictor(tiny_weights(root, tmp_path, *norms))
    volume = noise_volume(1)
    assert predictor.view_of(volume, lungs_of(volume, 0)).margin_mm == 30


def test_detections_outside_the_lungs_are_dropped(predictor: CTPredictor) -> None:
    volume = noise_volume(1)
    volume_lungs = lungs_of(volume, 0)
    kept, every = (
        predictor(volume, volume_lungs, LungUse(drop_outside=drop), progress=False) for drop in (True, False)
    )
    inside = predictor.view_of(volume, volume_lungs).inside(0, np.stack([decode_mask(rle) for rle in every[0].masks]))
    assert 0 < len(kept[0]) < len(every[0])
    assert kept[0].scores.tolist() == every[0].scores[inside].tolist()


def test_progress_is_shown_unless_told(predictor: CTPredictor, capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (False, True):
        predictor(noise_volume(1), progress=progress)
        assert ("recognise" in capsys.readouterr().err) is progress


def test_predictor_without_weights_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
        CTPredictor(tiny_config(root, tmp_path))


def origin(folder: Path, *opts: Any) -> ModelOrigin:
    (folder / "model.pth").write_bytes(b"weights")
    return ModelOrigin.of(tiny_config(folder, folder, "MODEL.WEIGHTS", str(folder / "model.pth"), *opts))


def test_origin_tells_the_config_without_paths(tmp_path: Path) -> None:
    found = origin(tmp_path)
    assert (found.weights, found.provenance) == (tmp_path / "model.pth", "")
    assert str(tmp_path) not in found.config_text
    assert found.config_text == origin(tmp_path).config_text
    assert found.config_text != origin(tmp_path, "INPUT.MIN_SIZE_TEST", 65).config_text
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file"):
        ModelOrigin.of(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", str(tmp_path / "gone.pth")))


def test_origin_of_a_weights_file_tells_its_provenance(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    found = ModelOrigin.of(tiny_config(tmp_path, tmp_path, "MODEL.WEIGHTS", f"lung_d2://{weights}"))
    assert (found.weights, json.loads(found.provenance)) == (weights, PROVENANCE)


SIZES = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64, 96), "TEST.AUG.MAX_SIZE", 128)
ONE_SIZE = ("TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", False)
ALL_SCORES = REPORT_ALL[:2]


def build(root: Path, output: Path, *opts: Any) -> tuple[Any, Any]:
    """Return the config and the model, whose random weights are the same each time."""
    cfg = tiny_config(root, output, *SIZES, *ALL_SCORES, *opts)
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
