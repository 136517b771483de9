"""An exponential moving average of the weights: what a run is judged by and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.engine import HookBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class WeightAverage(HookBase):  # type: ignore[misc]
    """Move a copy of the model towards it after each step.

    Of ``n`` updates so far the average keeps ``min(decay, (1 + n) / (10 + n))``, so that the random start is soon
    forgotten; the ramp is that of ``tf.train.ExponentialMovingAverage``. Statistics of batch norm are averaged as well:
    those of the last weights would not fit.

    Attributes:
        model: The model that is trained.
        averaged: Its average, a model of its own.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        """Copy the model.

        Args:
            model: Neither distributed nor with another ``forward``, which a copy would share.
            decay: The share that an update keeps in the end, 0 to below 1.
        """
        self.model = model
        self._average = AveragedModel(model, multi_avg_fn=_ramped(decay), use_buffers=True)
        self.averaged: torch.nn.Module = self._average.module.requires_grad_(False).eval()

    def start_from_average(self) -> None:
        """Give the model the weights of its average: weights that a run starts from are loaded into the latter."""
        self.model.load_state_dict(self.averaged.state_dict())

    def after_step(self) -> None:
        """Take up the weights of this iteration; the first are copied."""
        self._average.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates; the weights themselves are a checkpoint's ``model``."""
        return {"updates": int(self._average.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self._average.n_averaged.fill_(state["updates"])


def build_weight_average(cfg: CfgNode, model: torch.nn.Module) -> WeightAverage | None:
    """Read ``SOLVER.EMA``; None where it is off."""
    return WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None


def _ramped(decay: float) -> Any:
    def move(averages: Any, weights: Any, updates: Any) -> None:
        count = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averages, weights, updates)

    return move
