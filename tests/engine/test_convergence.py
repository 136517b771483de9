"""The convergence rule, on losses known by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lung_d2 import load_config
from lung_d2.engine.convergence import ConvergenceStop, build_convergence_stop
from tiny import CONFIGS


class Trainer:
    """As much of a trainer as the hook looks at."""

    def __init__(self) -> None:
        self.iter, self.max_iter, self._loss = 0, 10_000, 0.0
        self.storage = SimpleNamespace(history=lambda name: SimpleNamespace(latest=lambda: self._loss))


def feed(stop: ConvergenceStop, losses: list[float], start: int = 0) -> int | None:
    """Give one loss an iteration until the hook lowers ``max_iter``; return that iteration."""
    trainer: Any = Trainer()
    stop.trainer = trainer
    for trainer.iter, trainer._loss in enumerate(losses, start):
        stop.after_step()
        if trainer.max_iter == trainer.iter + 1:
            return int(trainer.iter)
    return None


RULE = {"window": 2, "patience": 5, "tolerance": 0.01, "armed_from": 0}


def test_flat_loss_converges_after_window_and_patience() -> None:
    assert feed(ConvergenceStop(**RULE), [1.0] * 50) == 1 + 5


def test_falling_loss_does_not_converge() -> None:
    assert feed(ConvergenceStop(**RULE), [0.97**step for step in range(200)]) is None


def test_fall_below_the_tolerance_does_not_count() -> None:
    assert feed(ConvergenceStop(**RULE), [1 - 0.001 * step for step in range(50)]) == 1 + 5


def test_noise_is_smoothed() -> None:
    stop = ConvergenceStop(window=10, patience=30, tolerance=0.01, armed_from=0)
    noisy = [0.98**step * (1.3 if step % 2 else 0.7) for step in range(300)]
    assert feed(stop, noisy) is None


def test_losses_before_it_is_armed_do_not_count() -> None:
    stop = ConvergenceStop(window=2, patience=5, tolerance=0.01, armed_from=100)
    assert feed(stop, [1.0] * 200) == 101 + 5


def test_state_goes_on_as_if_uninterrupted() -> None:
    first = ConvergenceStop(**RULE)
    assert feed(first, [1.0] * 4) is None
    second = ConvergenceStop(**RULE)
    second.load_state_dict(first.state_dict())
    assert feed(second, [1.0] * 50, start=4) == 1 + 5


def test_convergence_that_no_process_has_learnt_of_yet_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    comm = SimpleNamespace(is_main_process=lambda: True, get_world_size=lambda: 2, all_gather=lambda found: [found])
    monkeypatch.setattr("lung_d2.engine.convergence.comm", comm)  # two processes learn of it at iterations 20, 40, ...
    first, second = ConvergenceStop(**RULE), ConvergenceStop(**RULE)
    assert feed(first, [1.0] * 10) is None
    second.load_state_dict(first.state_dict())
    assert feed(second, [0.5**step for step in range(50)], start=10) == 20


def test_state_of_an_earlier_version_loads() -> None:
    state = ConvergenceStop(**RULE).state_dict()
    del state["found_at"]
    stop = ConvergenceStop(**RULE)
    stop.load_state_dict(state)
    assert feed(stop, [1.0] * 50) == 1 + 5


@pytest.mark.parametrize(
    ("opts", "armed_from"),
    [
        (("SOLVER.STEPS", (300, 400), "SOLVER.MAX_ITER", 1000, "SOLVER.WARMUP_ITERS", 50), 400),
        (("SOLVER.STEPS", (300, 4000), "SOLVER.MAX_ITER", 1000, "SOLVER.WARMUP_ITERS", 50), 300),
        (("SOLVER.STEPS", (), "SOLVER.MAX_ITER", 1000, "SOLVER.WARMUP_ITERS", 50), 50),
    ],
)
def test_rule_is_armed_where_the_rate_is_flat(opts: tuple[Any, ...], armed_from: int) -> None:
    stop = build_convergence_stop(load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", opts))
    assert stop is not None
    assert stop.armed_from == armed_from


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_stop_can_come_before_max_iter_in_every_config_that_has_it(path: Path) -> None:
    cfg = load_config(path)
    stop = build_convergence_stop(cfg)
    assert stop is None or stop.earliest < cfg.SOLVER.MAX_ITER - 1


@pytest.mark.parametrize(
    "opts", [("SOLVER.CONVERGENCE.ENABLED", False), ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")]
)
def test_no_rule_where_it_is_off_or_the_rate_falls_to_the_end(opts: tuple[Any, ...]) -> None:
    assert build_convergence_stop(load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", opts)) is None
