"""The stop that the method describes: training ends once the loss has converged."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from detectron2.engine import HookBase
from detectron2.utils import comm

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_CHECK_PERIOD = 20  # iterations; in a distributed run each check is a message to all processes


def build_convergence_stop(cfg: CfgNode) -> ConvergenceStop | None:
    """Read ``SOLVER.CONVERGENCE``; None where it is off, or the learning rate changes to the end."""
    settings = cfg.SOLVER.CONVERGENCE
    if not settings.ENABLED:
        return None
    if cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupMultiStepLR":
        logger.warning("no convergence stop: %s changes the rate to the end", cfg.SOLVER.LR_SCHEDULER_NAME)
        return None
    steps = [step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER]
    armed_from = max([cfg.SOLVER.WARMUP_ITERS, *steps])
    stop = ConvergenceStop(settings.WINDOW, settings.PATIENCE, settings.TOLERANCE, armed_from)
    if stop.earliest >= cfg.SOLVER.MAX_ITER:
        logger.warning("the convergence stop cannot come before MAX_ITER: the rate falls until %d", armed_from)
    return stop


class ConvergenceStop(HookBase):  # type: ignore[misc]
    """Lower the trainer's ``max_iter`` to the present iteration once the loss has converged.

    The first process decides, and all of them act on its decision at the same iteration. The state is saved in the
    checkpoint, so that a resumed run neither forgets it nor trains on.

    Args:
        window: The loss is smoothed by its mean over this many iterations.
        patience: Iterations without a fall after which it has converged.
        tolerance: A fall is a drop of the smoothed loss by more than this share of its best value.
        armed_from: First iteration that counts: before it the learning rate still changes.

    Attributes:
        earliest: First iteration after which the loss can have converged.
    """

    def __init__(self, window: int, patience: int, tolerance: float, armed_from: int) -> None:
        self.patience, self.tolerance, self.armed_from = patience, tolerance, armed_from
        self.earliest = armed_from + window - 1 + patience
        self.converged_at: int | None = None
        self._found_at: int | None = None  # what the first process has found and the others do not know yet
        self._losses: deque[float] = deque(maxlen=window)
        self._best = float("inf")
        self._best_iter = -1

    def after_step(self) -> None:
        """Take the loss of this iteration; now and then learn whether the first process has found convergence."""
        iteration = self.trainer.iter
        if comm.is_main_process() and iteration >= self.armed_from:
            self._take(self.trainer.storage.history("total_loss").latest(), iteration)
        if iteration % _CHECK_PERIOD == 0 or comm.get_world_size() == 1:
            self.converged_at = comm.all_gather(self._found_at)[0]
        if self.converged_at is not None:
            logger.info("the loss has converged at iteration %d", iteration)
            self.trainer.max_iter = iteration + 1

    def _take(self, loss: float, iteration: int) -> None:
        self._losses.append(loss)
        if len(self._losses) < (self._losses.maxlen or 0):
            return
        smoothed = sum(self._losses) / len(self._losses)
        if smoothed < self._best * (1 - self.tolerance):
            self._best, self._best_iter = smoothed, iteration
        elif iteration - self._best_iter >= self.patience:
            self._found_at = iteration

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide as this one would have."""
        return {
            "losses": list(self._losses),
            "best": self._best,
            "best_iter": self._best_iter,
            "converged_at": self.converged_at,
            "found_at": self._found_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self._losses.extend(state["losses"])
        self._best, self._best_iter = state["best"], state["best_iter"]
        self.converged_at = state["converged_at"]
        self._found_at = state.get("found_at")  # checkpoints of earlier versions lack it
