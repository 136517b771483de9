"""Making the chest CT backbone, on a narrow network: files, batch norm, teaching."""

from __future__ import annotations

import pytest
import torch

from ct_networks import NARROW, as_source, build_narrow
from lung_d2.config import load_config
from lung_d2.data import register_lung_datasets
from lung_d2.engine import ct_start
from lung_d2.modeling.ct_backbone import PREFIX
from tiny import CONFIGS, write_tiny_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """The whole way on a narrow network: its config, its folder, and its likeness before and after."""
    folder = tmp_path_factory.mktemp("backbone")
    write_tiny_dataset(folder / "data")
    register_lung_datasets(folder / "data")
    torch.manual_seed(0)
    ct_start.write_sources(as_source(build_narrow(152)), "MIT License", folder)
    own = ["MODEL.CT_BACKBONE.TEACHER", str(folder / ct_start.TEACHER_NAME), "OUTPUT_DIR", str(folder / "run")]
    small = ["INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.CROP.SIZE", [64, 64], "SOLVER.MAX_ITER", 15, "SOLVER.BASE_LR", 0.003]
    fixed = ["DATASETS.TRAIN", ("tiny_train",), "DATALOADER.NUM_WORKERS", 0, "SOLVER.AMP.ENABLED", False]
    weights = ["MODEL.WEIGHTS", str(folder / ct_start.SAMPLED_NAME), "MODEL.DEVICE", "cpu"]
    cfg = load_config(CONFIGS / "ct_backbone.yaml", [*NARROW, *own, *small, *fixed, *weights])
    ct_start.fit_batch_norm(cfg, folder)
    before = ct_start.measure_likeness(cfg, folder / ct_start.SAMPLED_NAME)
    ct_start.distil(cfg, folder, resume=False)
    return folder, before, ct_start.measure_likeness(cfg, folder / ct_start.FINAL_NAME)


def test_notice_of_the_licence_is_kept_with_the_weights(made):
    folder, _, _ = made
    assert (folder / ct_start.NOTICE_NAME).read_text() == "MIT License"


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
    weights = torch.load(folder / ct_start.FINAL_NAME, weights_only=True)["model"]
    assert set(weights) == {f"{PREFIX}{name}" for name in build_narrow(50).state_dict()}
