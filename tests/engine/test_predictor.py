"""Prediction gives what the test loader and a plain DefaultPredictor give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lung_d2 import slice_image
from lung_d2.data.planes import read_plane
from lung_d2.engine import CTPredictor, LungCheckpointer, LungTrainer
from lung_d2.errors import ConfigError
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
            assert np.array_equal(np.sort(found[index].scores), np.sort(other.scores.numpy()))
            assert found[index].boxes.sum() == pytest.approx(float(other.pred_boxes.tensor.sum()), rel=1e-6)


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


def test_predictor_without_weights_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
        CTPredictor(tiny_config(root, tmp_path))
