"""Backbone and candidate regions computed by OpenVINO, where it is installed: faster than torch on a CPU.

Heads, boxes and suppression stay with torch, so that a detection is the same but for rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lung_d2.engine.inference import MOST_AT_ONCE
from lung_d2.errors import ConfigError, DependencyError

COMPILED = ("backbone", "rpn_head")
"""What OpenVINO computes, in the precision that it chooses by the processor."""
_EXAMPLE = 64  # pixels a side; what is traced takes any size
Arrange = Callable[[list[torch.Tensor]], Any]


class _Flat(nn.Module):
    """A module that takes tensors and returns a tuple of them, as tracing wants it."""

    def __init__(self, module: nn.Module, *, as_list: bool) -> None:
        super().__init__()
        self.module, self.as_list = module, as_list

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.module(list(given)) if self.as_list else self.module(*given)
        if isinstance(found, dict):
            return tuple(found.values())
        return tuple(tensor for part in found for tensor in part)


class OpenVINOPart(nn.Module):
    """A part of a network, compiled; it takes and gives what the part does.

    What it gives is valid until the same thread calls it again.
    """

    def __init__(self, part: nn.Module, example: Sequence[torch.Tensor], arrange: Arrange, *, as_list: bool) -> None:
        """Compile the part.

        Args:
            part: Kept beside, for who asks what layers it has.
            example: Its inputs, of any size.
            arrange: Puts its outputs into the form in which the part gives them.
            as_list: Whether the part takes its inputs as one list.
        """
        super().__init__()
        self.part, self._arrange, self._as_list = part, arrange, as_list
        self._compiled = _compile(_Flat(part, as_list=as_list).eval(), tuple(example))
        self._own = threading.local()

    def __getattr__(self, name: str) -> Any:
        """Give what the part says of itself, as ``size_divisibility``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("part"), name)

    def forward(self, given: Any) -> Any:
        """Compute it, in the thread that asks."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        tensors = given if self._as_list else [given]
        self._own.request.infer([tensor.contiguous().numpy() for tensor in tensors], share_inputs=True)
        outputs = range(len(self._compiled.outputs))
        return self._arrange([torch.from_numpy(self._own.request.get_output_tensor(index).data) for index in outputs])


def use_openvino(model: Any) -> None:
    """Let OpenVINO compute the backbone and the head of the candidate regions of a model, in place.

    Args:
        model: Detectron2's ``GeneralizedRCNN`` on a CPU, as :func:`~lung_d2.engine.inference.prepare_model` leaves it.

    Raises:
        ConfigError: The model is on a GPU.
        DependencyError: OpenVINO is not installed.
    """
    if model.device.type != "cpu":
        raise ConfigError("--backend openvino", found=str(model.device), expected="a CPU", remedy="leave it out")
    with torch.no_grad():
        image = torch.zeros(1, 3, _EXAMPLE, _EXAMPLE)
        features = model.backbone(image)
        names = list(features)
        inputs = [features[name] for name in model.proposal_generator.in_features]
        model.backbone = OpenVINOPart(
            model.backbone, [image], lambda found: dict(zip(names, found, strict=True)), as_list=False
        )
        model.proposal_generator.rpn_head = OpenVINOPart(
            model.proposal_generator.rpn_head,
            inputs,
            lambda found: (found[: len(found) // 2], found[len(found) // 2 :]),
            as_list=True,
        )


def _compile(module: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    """Convert by the frontend itself: openvino.convert_model would send telemetry."""
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError as error:
        remedy = "run \"pip install 'lung_d2[openvino]'\""
        raise DependencyError(
            "openvino", found="not installed", expected="it, for --backend openvino", remedy=remedy
        ) from error
    decoder = TorchScriptPythonDecoder(torch.jit.trace(module, example, check_trace=False))  # has to outlive the rest
    frontend = FrontEndManager().load_by_framework("pytorch")
    network = frontend.convert(frontend.load(decoder))
    threads = torch.get_num_threads()
    streams = min(threads, MOST_AT_ONCE)
    return openvino.Core().compile_model(network, "CPU", {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads})
