"""The network against plain Detectron2 and torchvision, and the whole command against the plain loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from torch.utils.flop_counter import FlopCounterMode

from lung_d2 import slice_image
from lung_d2.ct import CTVolume
from lung_d2.engine import CTPredictor
from lung_d2.engine.precision import cpu_has_bfloat16
from lung_d2.engine.weights import config_of
from studies.benchmark.timing import Timing, Work, alternate, time_once

TOOLS = Path(__file__).resolve().parents[2]
DEFAULTS, PLAIN, OURS = "Detectron2, its defaults", "Detectron2", "lung_d2"
_LOAD = """
import sys
sys.path.insert(0, {tools!r})
import recognize
from lung_d2.recognition.job import ModelChoice, load_predictor
load_predictor(ModelChoice(None, ("MODEL.WEIGHTS", {weights!r}, "MODEL.DEVICE", {device!r})))
"""


@dataclass(frozen=True)
class Setting:
    """What is measured with.

    Attributes:
        weights: A weights file or its name.
        device: As ``MODEL.DEVICE``.
        side: Pixels of the shorter side of a slice for the network.
        default_side: The same of Detectron2's defaults.
    """

    weights: str
    device: str = "cpu"
    side: int = 512
    default_side: int = 800


def plain_config(setting: Setting, side: int, longest: int) -> CfgNode:
    """Return the config of a plain Detectron2 with the same weights: its own heads, sizes and numbers of proposals."""
    opts = ["MODEL.DEVICE", setting.device, "INPUT.MIN_SIZE_TEST", str(side), "INPUT.MAX_SIZE_TEST", str(longest)]
    cfg = config_of(setting.weights, opts)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.ROI_HEADS.NAME = "RPN", "StandardROIHeads"
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 1000  # of its configs with a pyramid
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    cfg.TEST.AUG.ENABLED = False
    return cfg


def build_contenders(setting: Setting, images: list[np.ndarray]) -> dict[str, Work]:
    """Return what detects on the image of a number, by name."""
    side = str(setting.side)
    sized = ("MODEL.DEVICE", setting.device, "INPUT.MIN_SIZE_TEST", side, "INPUT.MAX_SIZE_TEST", side)
    defaults = DefaultPredictor(plain_config(setting, setting.default_side, 1333))
    plain = DefaultPredictor(plain_config(setting, setting.side, 1333))
    ours = CTPredictor.from_weights(setting.weights, sized)
    vision = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=setting.side, max_size=1333
    )
    vision.eval().to(setting.device)
    return {
        DEFAULTS: lambda number: defaults(images[number]),
        PLAIN: lambda number: plain(images[number]),
        "torchvision, random weights": lambda number: _run_torchvision(vision, images[number], setting.device),
        OURS: lambda number: ours.predict_image(images[number]),
    }


@torch.no_grad()
def _run_torchvision(model: torch.nn.Module, image: np.ndarray, device: str) -> Any:
    return model([torch.from_numpy(image.transpose(2, 0, 1)).to(device) / 255.0])


def measure_network(setting: Setting, volume: CTVolume, slices: int) -> tuple[dict[str, Timing], float]:
    """Time a slice by every contender, on slices spread over the volume.

    Returns:
        The times, and the floating-point operations of the network on a slice of :attr:`Setting.side`.
    """
    cfg = config_of(setting.weights)
    predictor = CTPredictor.from_weights(setting.weights, ("MODEL.DEVICE", setting.device))
    chosen = np.linspace(0.2 * len(volume.hu), 0.8 * len(volume.hu), slices).astype(int)
    images = [slice_image(volume, int(index), grey=predictor.grey, channels=predictor.channels) for index in chosen]
    times = alternate(build_contenders(setting, images), slices, setting.device)
    model = DefaultPredictor(plain_config(setting, setting.side, 1333))
    model.model.proposal_generator.post_nms_topk[False] = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    with FlopCounterMode(display=False) as counter:
        model(images[len(images) // 2])
    return times, float(counter.get_total_flops())


@torch.no_grad()
def measure_limit(device: str) -> tuple[float, str]:
    """Return the most operations a second that a convolution reaches here, and its precision."""
    fast = device.startswith("cuda") or cpu_has_bfloat16()
    dtype = torch.bfloat16 if fast else torch.float32
    image = torch.randn(1, 256, 128, 128, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device, dtype, memory_format=torch.channels_last)
    layer(image)
    best = min(time_once(lambda: layer(image), device)[0] for _ in range(10))
    return 2 * 256 * 256 * 9 * 128 * 128 / best, str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Command:
    """A run of ``tools/recognize.py``.

    Attributes:
        timing: Of all of it, the process and its workers.
        stages: Seconds by stage, from its manifest.
        peak_memory_mib: From there too.
    """

    timing: Timing
    stages: dict[str, float]
    peak_memory_mib: float | None


def measure_command(setting: Setting, source: Path, output: Path) -> Command:
    """Run ``tools/recognize.py`` on a series."""
    words = [TOOLS / "recognize.py", "--weights", setting.weights, "--input", source, "--output", output]
    before = os.times()
    wall, _ = time_once(lambda: _run([*map(str, words), "--overwrite", "MODEL.DEVICE", setting.device]))
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    (path,) = output.glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    return Command(Timing(wall, cpu, 1), manifest["seconds"], manifest["peak_memory_mib"])


def measure_start(setting: Setting, turns: int) -> float:
    """Return the least seconds that a process takes to import the command and to load the model, until its end."""
    code = _LOAD.format(tools=str(TOOLS), weights=setting.weights, device=setting.device)
    return min(time_once(lambda: _run(["-c", code]))[0] for _ in range(turns))


def measure_series(setting: Setting, source: Path, volume: CTVolume, slices: int) -> tuple[Command, Timing]:
    """Time the whole command, and before and after it the plain loop on some slices.

    Returns:
        The command, and the time of the plain loop over all slices; it reads no file and writes none.
    """
    plain = DefaultPredictor(plain_config(setting, setting.default_side, 1333))
    channels = config_of(setting.weights).INPUT.CT.CHANNELS
    grey = CTPredictor.from_weights(setting.weights).grey
    chosen = np.linspace(0, len(volume.hu) - 1, 2 * slices).astype(int)
    images = [slice_image(volume, int(index), grey=grey, channels=channels) for index in chosen]
    plain(images[0])
    times = [time_once(lambda image=image: plain(image), setting.device) for image in images[::2]]
    with tempfile.TemporaryDirectory() as folder:
        command = measure_command(setting, source, Path(folder))
    times += [time_once(lambda image=image: plain(image), setting.device) for image in images[1::2]]
    wall, cpu = (float(np.mean(part)) * len(volume.hu) for part in zip(*times, strict=True))
    return command, Timing(wall, cpu, len(times))


def _run(words: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TOOLS.parent), *sys.path)))}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
