"""How a trained network runs fast: fused, in the layout and precision of the processor, several slices side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from lung_d2.engine.precision import cpu_has_bfloat16

Given = TypeVar("Given")
Made = TypeVar("Made")

MOST_AT_ONCE = 4
"""Batches that run side by side on a CPU at most: more cores work on one batch together, to save memory."""
GPU_AT_ONCE = 2
"""One batch is made and taken apart on the CPU while the GPU works on another."""


def prepare_model(model: nn.Module, full_precision: Container[str] = ()) -> nn.Module:
    """Make a trained model fast, for prediction alone; it is changed in place.

    Frozen batch norm becomes part of the convolution before it, weights lie channels-last, and where the device has it,
    backbone and heads compute in bfloat16. What is rounded once stays in float32: anchors, boxes, suppression, the
    scores, and the masks that are pasted. A model other than Detectron2's ``GeneralizedRCNN`` keeps its precision.

    Args:
        model: The model with its weights, on its device.
        full_precision: Names of the parts whose precision is left alone, as ``backbone``.

    Returns:
        The same model, in evaluation mode.
    """
    model.eval()
    fold_batch_norm(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = next(model.parameters()).device.type
    if has_bfloat16(device):
        for name, part, method in _heavy_parts(model):
            if name not in full_precision:
                _compute_in_bfloat16(part, method, device)
    return model


def has_bfloat16(device: str) -> bool:
    """Return whether a type of device, as ``cpu``, computes bfloat16 in hardware."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else cpu_has_bfloat16()


def fold_batch_norm(model: nn.Module) -> None:
    """Move each frozen batch norm into the weights and the bias of Detectron2's convolution that it follows."""
    for layer in model.modules():
        norm = getattr(layer, "norm", None)
        if isinstance(layer, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            bias = norm.bias - norm.running_mean * scale
            if layer.bias is not None:
                bias = bias + layer.bias * scale
            layer.weight = nn.Parameter(layer.weight.detach() * scale[:, None, None, None], requires_grad=False)
            layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
            layer.norm = None  # type: ignore[assignment]


def _heavy_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield name and part of a ``GeneralizedRCNN`` that multiply, with the method that does it."""
    proposals, heads = getattr(model, "proposal_generator", None), getattr(model, "roi_heads", None)
    places = (
        *((model, "backbone", "forward"), (proposals, "rpn_head", "forward")),
        *((heads, "box_head", "forward"), (heads, "mask_head", "layers")),
    )
    for owner, name, method in places:
        part = getattr(owner, name, None)
        if isinstance(part, nn.Module) and hasattr(part, method):
            yield name, part, method


def _compute_in_bfloat16(part: nn.Module, method: str, device: str) -> None:
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.to(torch.bfloat16)  # once, and not in each autocast
    compute = getattr(part, method)

    def mixed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _to_float(compute(*args, **kwargs))

    setattr(part, method, mixed)


def _to_float(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _to_float(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(_to_float(value) for value in found)
    return found.float()


def map_side_by_side(work: Callable[[Given], Made], given: Iterable[Given], device: str) -> Iterator[Made]:
    """Yield the results of some work in order, several at a time, while the next inputs are made.

    On a CPU the threads of torch are shared out: two slices with a thread each are faster than one slice with two,
    because no thread waits for another after each layer.

    Args:
        work: Done in threads of its own.
        given: Its inputs; read in this thread, and at most two more than run.
        device: Type of the device that works.
    """
    budget = torch.get_num_threads()
    at_once = GPU_AT_ONCE if device == "cuda" else min(budget, MOST_AT_ONCE)
    if at_once == 1:
        yield from map(work, given)
        return
    share = partial(torch.set_num_threads, max(1, budget // at_once))
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(at_once, initializer=share) as pool:
        try:
            for one in given:
                waiting.append(pool.submit(work, one))
                if len(waiting) > at_once + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(budget)  # torch gives threads that begin later what was set last
