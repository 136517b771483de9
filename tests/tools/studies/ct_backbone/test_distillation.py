"""Making the chest CT backbone, on a narrow network: files, batch norm, teaching."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from ct_networks import NARROW, as_source, build_narrow
from lung_d2.config.loading import load_config
from lung_d2.data import register_lung_datasets
from lung_d2.engine import LungCheckpointer
from lung_d2.errors import CheckpointError, ConfigError
from studies.ct_backbone import distillation as steps
from studies.ct_backbone.network import PREFIX
from studies.ct_backbone.source import SHA256
from tiny import write_tiny_dataset

CONFIG = Path(steps.__file__).with_name("config.yaml")


def narrow_config(folder: Path, *opts: object) -> CfgNode:
    """Return the config of a run in a folder, on a tiny data set."""
    own = ["OUTPUT_DIR", str(folder / "run")]
    small = ["INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.CROP.SIZE", [0.9, 0.9], "SOLVER.MAX_ITER", 15]
    fixed = ["DATASETS.TRAIN", ("tiny_train",), "DATALOADER.NUM_WORKERS", 0, "SOLVER.AMP.ENABLED", False]
    weights = ["MODEL.WEIGHTS", str(folder / steps.SAMPLED_NAME), "MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", 0.003]
    return load_config(CONFIG, [*NARROW, *own, *small, *fixed, *weights, *opts])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """All steps on a narrow network: its folder, and its correlations before and after."""
    folder = tmp_path_factory.mktemp("backbone")
    write_tiny_dataset(folder / "data")
    register_lung_datasets(folder / "data")
    torch.manual_seed(0)
    cfg = narrow_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_BN_BATCHES", 10)
        steps.write_sources(as_source(build_narrow(152)), "MIT License", folder)
        assert not (folder / steps.SAMPLED_NAME).exists()  # a kill leaves nothing that looks fitted
        steps.fit_batch_norm(cfg, folder)
        before = steps.measure_likeness(cfg, folder / steps.SAMPLED_NAME)
        steps.distil(cfg, folder, resume=False)
    return folder, before, steps.measure_likeness(cfg, folder / steps.FINAL_NAME)


def test_notice_of_the_licence_is_kept_with_the_weights(made):
    folder, _, _ = made
    assert (folder / steps.NOTICE_NAME).read_text() == "MIT License"


def test_stages_of_which_nothing_was_left_out_are_the_deep_ones(made):
    _, before, after = made
    assert before["res2"] == pytest.approx(1, abs=1e-4)
    assert after["res2"] == pytest.approx(1, abs=1e-4)


def test_teaching_brings_the_features_closer(made):
    _, before, after = made
    assert after["res3"] > before["res3"]
    assert after["res4"] > before["res4"]


def test_checkpoint_holds_the_weights_of_a_resnet_50_under_the_names_of_a_detector(made):
    folder, _, _ = made
    weights = torch.load(folder / steps.FINAL_NAME, weights_only=True)["model"]
    assert set(weights) == {f"{PREFIX}{name}" for name in build_narrow(50).state_dict()}


def test_checkpoint_says_its_licence_its_source_and_what_it_saw(made):
    folder, _, _ = made
    for name in (steps.TEACHER_NAME, steps.CUT_NAME, steps.SAMPLED_NAME, steps.FINAL_NAME):
        checkpoint = torch.load(folder / name, weights_only=True)
        assert (checkpoint["licence"], checkpoint["source"]) == ("MIT License", f"sha256:{SHA256}")
    assert checkpoint["settings"]["MODEL.PIXEL_STD"] == [255.0, 255.0, 255.0]


def test_checkpoint_is_a_start_like_any_other(made):
    folder, _, _ = made
    network = torch.nn.Module()
    network.backbone = torch.nn.Module()
    network.backbone.bottom_up, network.head = build_narrow(50), torch.nn.Linear(2, 2)
    path = folder / steps.FINAL_NAME
    start = LungCheckpointer(network, allow_partial=True, settings={"MODEL.PIXEL_MEAN": [0.0, 0.0, 0.0]})
    start.load(str(path), checkpointables=[])
    weights = torch.load(path, weights_only=True)["model"]
    torch.testing.assert_close(network.backbone.bottom_up.res5[2].conv3.weight, weights[f"{PREFIX}res5.2.conv3.weight"])


def test_batch_norm_at_the_end_is_that_of_many_batches_with_the_last_weights(made):
    folder, _, _ = made
    name = f"{PREFIX}res5.2.conv3.norm.running_var"
    trained = torch.load(folder / "run" / "model_final.pth", weights_only=True)["model"]
    final = torch.load(folder / steps.FINAL_NAME, weights_only=True)["model"]
    weight = f"{PREFIX}res5.2.conv3.weight"
    torch.testing.assert_close(final[weight], trained[weight])
    assert not torch.allclose(final[name], trained[name], rtol=1e-3)


def test_run_is_resumed_with_its_own_settings_only(tmp_path):
    cfg = narrow_config(tmp_path)
    assert not steps.is_begun(cfg)
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000004.pth")
    assert steps.is_begun(cfg)
    with pytest.raises(ConfigError, match=r"a run with DATASETS\.TRAIN \('tiny_train',\).*other_train"):
        steps.is_begun(narrow_config(tmp_path, "DATASETS.TRAIN", ("other_train",)))
    with pytest.raises(ConfigError, match=r"INPUT\.CT\.WINDOW_CENTER -400\.0; expected -500\.0"):
        steps.is_begun(narrow_config(tmp_path, "INPUT.CT.WINDOW_CENTER", -500.0))


def test_missing_notice_is_found_before_the_training(tmp_path):
    with pytest.raises(CheckpointError, match=r"ct_backbone\.LICENSE\.txt"):
        steps.distil(narrow_config(tmp_path), tmp_path, resume=False)
