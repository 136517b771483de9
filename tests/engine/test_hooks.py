"""Hooks: the average of the weights, known by hand and exact after a kill, and the picture of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from detectron2.engine import HookBase

from lung_d2 import load_config
from lung_d2.engine import CTPredictor, LungTrainer
from lung_d2.engine.hooks import WeightAverage, draw_training_curves, read_metrics
from lung_d2.errors import CheckpointError, ConfigError
from tiny import CONFIGS, tiny_config, write_tiny_dataset

EMA = ("SOLVER.EMA.ENABLED", True)
SHORT = (
    *("SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.BASE_LR", 0.01, "SOLVER.WARMUP_ITERS", 0),
    *("DATASETS.TEST", (), "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
    # Both categories are in three of four images: these come 1.15 times.
    *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 1.0),
)


def averages(model: torch.nn.Module, tensor: torch.Tensor, values: list[float], decay: float) -> list[float]:
    """Set a tensor of the model to one value after another; return its average after each."""
    average, found = WeightAverage(model, decay), []
    name = next(name for name, own in model.state_dict(keep_vars=True).items() if own is tensor)
    for value in values:
        with torch.no_grad():
            tensor.fill_(value)
        average.after_step()
        found.append(average.averaged.state_dict()[name].flatten()[0].item())
    return found


def test_average_moves_by_the_ramp_and_then_by_the_decay() -> None:
    linear = torch.nn.Linear(1, 1)
    # The first is copied; then 2/11 are kept, then 3/12.
    by_ramp = [1.0, 1 * 2 / 11 + 2 * 9 / 11]
    by_ramp.append(by_ramp[1] / 4 + 3 * 3 / 4)
    assert averages(linear, linear.weight, [1, 2, 3], decay=0.999) == pytest.approx(by_ramp)
    assert averages(linear, linear.weight, [1, 2, 3], decay=0.1) == pytest.approx([1.0, 1.9, 2.89])


def test_statistics_of_batch_norm_are_averaged() -> None:
    norm = torch.nn.BatchNorm2d(1)
    assert norm.running_mean is not None
    assert averages(norm, norm.running_mean, [1, 2], decay=0.5) == pytest.approx([1, 1 * 2 / 11 + 2 * 9 / 11])


def test_decay_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER\.EMA\.DECAY"):
        load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", ["SOLVER.EMA.DECAY", 1.0])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(folder)
    return folder


class Stop(HookBase):  # type: ignore[misc]
    """End the run as an interruption does."""

    def after_step(self) -> None:
        if self.trainer.iter == 4:
            raise KeyboardInterrupt


Run = Callable[..., LungTrainer]


@pytest.fixture
def run(root: Path) -> Run:
    def train(output: Path, *opts: Any, resume: bool = False, stop: bool = False) -> LungTrainer:
        trainer = LungTrainer(tiny_config(root, output, *SHORT, *EMA, *opts))
        trainer.register_hooks([Stop()] if stop else [])
        trainer.resume_or_load(resume=resume)
        trainer.train()
        return trainer

    return train


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_interrupted_run_ends_with_the_average_of_the_uninterrupted(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop=True)
    assert not (tmp_path / "parts" / "model_final_raw.pth").exists()
    resumed = run(tmp_path / "parts", resume=True)
    assert resumed.start_iter == 3
    whole, parts = (load(tmp_path / name / "model_final.pth") for name in ("whole", "parts"))
    for key in ("model", "raw_model"):
        assert same(whole[key], parts[key])
    assert parts["trainer"]["hooks"]["WeightAverage"] == {"updates": 8}


def test_final_weights_are_the_average_and_the_raw_ones_have_a_name(run: Run, root: Path, tmp_path: Path) -> None:
    trainer = run(tmp_path)
    assert trainer.average is not None
    final, raw = load(tmp_path / "model_final.pth"), load(tmp_path / "model_final_raw.pth")
    assert same(final["model"], trainer.average.averaged.state_dict())
    assert same(raw["model"], trainer.model.state_dict())
    assert not same(final["model"], raw["model"])
    for name, expected in (("model_final", final), ("model_final_raw", raw)):
        cfg = tiny_config(root, tmp_path, "MODEL.WEIGHTS", str(tmp_path / f"{name}.pth"))
        assert same(CTPredictor(cfg).model.state_dict(), expected["model"])
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_notice_of_the_start_is_in_all_that_is_saved(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "first", "SOLVER.MAX_ITER", 1)
    start = load(tmp_path / "first" / "model_final.pth")
    torch.save({"model": start["model"], "licence": "MIT"}, tmp_path / "start.pth")
    opts = ("MODEL.WEIGHTS", str(tmp_path / "start.pth"), "DATASETS.TEST", ("tiny_val",))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "second", *opts, stop=True)
    run(tmp_path / "second", *opts, resume=True)
    saved = [load(tmp_path / "second" / f"{name}.pth") for name in ("model_final", "model_final_raw", "model_best")]
    assert [one["licence"] for one in saved] == ["MIT"] * 3


def test_average_is_what_is_evaluated_and_best(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(cfg: Any, model: torch.nn.Module) -> dict[str, dict[str, float]]:
        seen.append(model)
        return {"segm": {"AP50": float(len(seen))}}

    monkeypatch.setattr(LungTrainer, "test", staticmethod(look))
    trainer = run(tmp_path, "DATASETS.TEST", ("tiny_val",), "TEST.EVAL_PERIOD", 4)
    assert trainer.average is not None
    assert seen == [trainer.average.averaged] * 2
    assert same(load(tmp_path / "model_best.pth")["model"], trainer.average.averaged.state_dict())


def test_run_starts_from_the_weights_it_is_given(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "first", "SOLVER.MAX_ITER", 2)
    start = tmp_path / "first" / "model_final.pth"
    still = ("SOLVER.BASE_LR", 1e-20, "MODEL.WEIGHTS", str(start), "SOLVER.MAX_ITER", 2)
    second = run(tmp_path / "second", *still)
    given = load(start)["model"]
    assert all(torch.allclose(value, given[name], atol=1e-12) for name, value in second.model.state_dict().items())


def test_mixed_precision_stays_with_the_model_that_trains(run: Run, tmp_path: Path) -> None:
    """A copy of a model whose forward was replaced would run the original."""
    trainer = run(tmp_path, "SOLVER.AMP.ENABLED", True, "SOLVER.MAX_ITER", 1)
    assert trainer.average is not None
    assert "forward" not in vars(trainer.average.averaged)


@pytest.mark.parametrize("before", [True, False])
def test_run_is_resumed_as_it_began(run: Run, tmp_path: Path, before: bool) -> None:
    run(tmp_path, "SOLVER.MAX_ITER", 1, "SOLVER.EMA.ENABLED", before)
    with pytest.raises(CheckpointError, match=rf"a run with SOLVER\.EMA\.ENABLED {before}; expected {not before}"):
        run(tmp_path, "SOLVER.EMA.ENABLED", not before, resume=True)


def test_resumed_iterations_count_once_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    rows = [{"iteration": 19, "total_loss": 3.0}, {"iteration": 39, "total_loss": 2.0}]
    again = [{"iteration": 39, "total_loss": 1.5}, {"iteration": 40, "segm/AP": 12.0}]
    lines = [json.dumps(row) for row in rows] + ['{"iteration": 59, "total'] + [json.dumps(row) for row in again]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    series = read_metrics(tmp_path)
    assert series["total_loss"] == [(19, 3.0), (39, 1.5)]
    assert series["segm/AP"] == [(40, 12.0)]
    path = draw_training_curves(tmp_path)
    assert path is not None
    assert cv2.imread(str(path)).std() > 5  # something is drawn


def test_older_run_in_the_folder_does_not_show(tmp_path: Path) -> None:
    rows = [{"iteration": 99, "total_loss": 9.0}, {"iteration": 19, "total_loss": 1.0}]
    (tmp_path / "metrics.json").write_text("\n".join(json.dumps(row) for row in rows))
    assert read_metrics(tmp_path)["total_loss"] == [(19, 1.0)]


def test_losses_stand_alone_before_an_evaluation(tmp_path: Path) -> None:
    widths = []
    for row in ({"iteration": 19, "total_loss": 3.0}, {"iteration": 19, "total_loss": 3.0, "segm/AP": 1.0}):
        (tmp_path / "metrics.json").write_text(json.dumps(row))
        widths.append(cv2.imread(str(draw_training_curves(tmp_path))).shape[1])
    assert widths[1] == 2 * widths[0]


def test_no_picture_before_the_first_loss(tmp_path: Path) -> None:
    assert draw_training_curves(tmp_path) is None
