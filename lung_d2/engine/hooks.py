"""Hooks of the training: the average of the weights, the checkpoints and the picture of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lung_d2.files import replace_file

METRICS_FILE = "metrics.json"
PICTURE_FILE = "training_curves.png"

_LOSSES = {
    "total_loss": "total",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_rpn_cls": "RPN objectness",
    "loss_rpn_loc": "RPN box",
}
_SCORES = {"bbox/AP": "box AP", "bbox/AP50": "box AP50", "segm/AP": "mask AP", "segm/AP50": "mask AP50"}


class WeightAverage(HookBase):  # type: ignore[misc]
    """Move a copy of the model towards it after each step.

    After ``n`` updates the average keeps ``min(decay, (1 + n) / (10 + n))`` of itself, so that the random start is
    soon forgotten; the ramp is that of ``tf.train.ExponentialMovingAverage``. The statistics of batch norm are averaged
    as well: those of the last weights would not fit.

    Attributes:
        model: The model that is trained.
        averaged: Its average, a model of its own.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        """Copy the model.

        Args:
            model: Neither distributed nor with a replaced ``forward``, which a copy would share.
            decay: The share that each update keeps in the end, 0 to below 1.
        """
        self.model = model
        self._decay, self._updates = decay, 0
        self._average = AveragedModel(model, multi_avg_fn=self._move, use_buffers=True)
        self.averaged: torch.nn.Module = self._average.module.requires_grad_(False).eval()

    def start_from_average(self) -> None:
        """Give the model the weights of its average, into which the weights that a run starts from are loaded."""
        self.model.load_state_dict(self.averaged.state_dict())

    def after_step(self) -> None:
        """Add the weights of this iteration; the first are copied."""
        self._updates = int(self._average.n_averaged)  # on the CPU: the device is not waited for
        self._average.update_parameters(self.model)

    def _move(self, averages: Any, weights: Any, updates: Any) -> None:
        count = self._updates  # and not ``updates``, which torch moved to the device
        get_ema_multi_avg_fn(min(self._decay, (1 + count) / (10 + count)))(averages, weights, updates)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates; the weights themselves are a checkpoint's ``model``."""
        return {"updates": int(self._average.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self._average.n_averaged.fill_(state["updates"])


class LastCheckpoint(hooks.PeriodicCheckpointer):  # type: ignore[misc]
    """Keep the newest periodic checkpoint, and ``model_final`` wherever training ends."""

    def before_train(self) -> None:
        """Note the checkpoint that a resumed run started from, so that it is removed in its turn."""
        super().before_train()
        if self.trainer.start_iter > 0:
            self.recent_checkpoints = [self.checkpointer.get_checkpoint_file()]

    def after_step(self) -> None:
        """Save when due; the convergence stop may have lowered ``max_iter``."""
        self.max_iter = self.trainer.max_iter
        super().after_step()


class BestCheckpoint(hooks.BestCheckpointer):  # type: ignore[misc]
    """Keep the checkpoint of the best evaluation as ``model_best``, across resumed runs."""

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and its iteration."""
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class CurvePicture(HookBase):  # type: ignore[misc]
    """Draw losses and AP as ``training_curves.png`` in the output folder, periodically and at the end."""

    def __init__(self, output_dir: str, period: int) -> None:
        """Set the folder and the period in iterations; 0 draws at the end only."""
        self.output_dir, self.period = Path(output_dir), period

    def after_step(self) -> None:
        """Draw when due."""
        if self.period > 0 and (self.trainer.iter + 1) % self.period == 0:
            draw_training_curves(self.output_dir)

    def after_train(self) -> None:
        """Draw the whole run."""
        draw_training_curves(self.output_dir)


def read_metrics(output_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Read Detectron2's ``metrics.json`` as ``(iteration, value)`` of each metric.

    A value replaces earlier lines of the same metric at the same or later iterations: these come from a run that was
    killed after its last checkpoint, or from an older run in the same folder. A line that a kill cut short is left out.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    path = output_dir / METRICS_FILE
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in row.items():
            points = series.setdefault(name, [])
            while points and points[-1][0] >= row["iteration"]:
                points.pop()
            points.append((row["iteration"], value))
    return series


def draw_training_curves(output_dir: Path) -> Path | None:
    """Draw the run in ``output_dir`` from its ``metrics.json``; without an evaluation, only the losses.

    Returns:
        The picture's path, or None while nothing was logged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_metrics(output_dir)
    if "total_loss" not in series:
        return None
    panels = 2 if series.keys() & _SCORES.keys() else 1
    figure = Figure(figsize=(5.5 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = figure.subplots(1, panels, squeeze=False)[0]
    _draw_lines(left, series, _LOSSES, marker="")
    left.set(xlabel="iteration", ylabel="loss", title="Losses", ylim=(0, None))
    for axes in right:
        _draw_lines(axes, series, _SCORES, marker="o")
        axes.set(xlabel="iteration", ylabel="%", title="Evaluation", ylim=(0, 100))
    if "lr" in series:
        rate = left.twinx()
        rate.plot(*zip(*series["lr"], strict=True), color="0.7", linewidth=1, linestyle=":")
        rate.set_ylabel("learning rate (dotted)", color="0.5")
        rate.set_ylim(0, None)
    path = output_dir / PICTURE_FILE
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _draw_lines(axes: Any, series: dict[str, list[tuple[int, float]]], names: dict[str, str], marker: str) -> None:
    for name, label in names.items():
        if name in series:
            axes.plot(*zip(*series[name], strict=True), label=label, linewidth=1.4, marker=marker, markersize=3)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.grid(color="0.9")
    axes.spines[["top"]].set_visible(False)
