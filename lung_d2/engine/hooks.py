"""Hooks that save the last and the best checkpoint and draw the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks

from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.curves import draw_training_curves


class LastCheckpoint(hooks.PeriodicCheckpointer):  # type: ignore[misc]
    """Keep the newest periodic checkpoint, and ``model_final`` wherever training ends."""

    def before_train(self) -> None:
        """Know the checkpoint that a resumed run took up, so that it is removed in its turn."""
        super().before_train()
        if self.trainer.start_iter > 0:
            self.recent_checkpoints = [self.checkpointer.get_checkpoint_file()]

    def after_step(self) -> None:
        """Save where it is due; the convergence stop may have lowered ``max_iter``."""
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


class RawCheckpoint(HookBase):  # type: ignore[misc]
    """Save the last weights as ``model_final_raw`` at the end, beside their average, to be compared with it."""

    def __init__(self, checkpointer: LungCheckpointer) -> None:
        """Keep what saves the weights alone."""
        self.checkpointer = checkpointer

    def after_train(self) -> None:
        """Save, unless the run failed."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self.checkpointer.save("model_final_raw")


class CurvePicture(HookBase):  # type: ignore[misc]
    """Draw losses and AP as ``training_curves.png`` in the output folder, now and then and at the end."""

    def __init__(self, output_dir: str, period: int) -> None:
        """Set the folder and the period in iterations; 0 draws at the end only."""
        self.output_dir, self.period = Path(output_dir), period

    def after_step(self) -> None:
        """Draw where it is due."""
        if self.period > 0 and (self.trainer.iter + 1) % self.period == 0:
            draw_training_curves(self.output_dir)

    def after_train(self) -> None:
        """Draw the whole run."""
        draw_training_curves(self.output_dir)
