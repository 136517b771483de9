"""One training step, in full or mixed precision, on GPU and on CPU."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer

logger = logging.getLogger(__name__)


class ScaledStep(AMPTrainer):  # type: ignore[misc]
    """Detectron2's step in half precision, which also resumes runs that had no loss scaling, as from a CPU."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint; without a loss scale in it, begin with the default one."""
        if not state.get("grad_scaler"):
            logger.info("no loss scale in the checkpoint: starting with the default one")
            state = {**state, "grad_scaler": self.grad_scaler.state_dict()}
        super().load_state_dict(state)


def build_step(
    model: torch.nn.Module, loader: Any, optimizer: torch.optim.Optimizer, *, mixed: bool, device: torch.device
) -> SimpleTrainer:
    """Build what trains one iteration.

    Args:
        model: The model, wrapped for distributed training where that is on.
        loader: Iterable of batches.
        optimizer: The optimizer.
        mixed: ``SOLVER.AMP.ENABLED``: on a GPU bfloat16, or float16 with loss scaling (Detectron2's own) on one without
            it; bfloat16 autocast on a CPU that computes it, full precision on one that does not.
        device: Where the model is.
    """
    if mixed and device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        scaler = torch.amp.GradScaler("cuda", enabled=not fast)  # bfloat16 has the range of float32
        precision = torch.bfloat16 if fast else torch.float16
        return ScaledStep(model, loader, optimizer, grad_scaler=scaler, precision=precision)
    if mixed and device.type == "cpu" and not cpu_has_bfloat16():
        logger.info("this processor has no bfloat16: training in full precision")
    elif mixed and device.type == "cpu":
        logger.info("training in bfloat16 autocast")
        _autocast_training(model)
    return SimpleTrainer(model, loader, optimizer)


def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware, so that autocast pays."""
    has_amx = torch.cpu._is_amx_tile_supported()
    return bool(has_amx or torch.cpu._is_avx512_bf16_supported())


def _autocast_training(model: torch.nn.Module) -> None:
    # AMPTrainer asserts CUDA, and SimpleTrainer calls the model, so its forward is replaced. bfloat16 has the range of
    # float32, so no loss scaling is needed. Evaluation stays in full precision, as --eval-only and prediction are.
    forward = model.forward

    def mixed_forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
            return forward(*args, **kwargs)

    model.forward = mixed_forward  # type: ignore[method-assign]
