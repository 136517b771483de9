"""A detector as one TorchScript file, which runs with torch and torchvision alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model

from lung_d2.categories import CATEGORIES
from lung_d2.config.keys import input_settings
from lung_d2.data.mapper import grey_levels_from_config
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.inference import fold_batch_norm
from lung_d2.errors import OutputError
from lung_d2.files import replace_file

if TYPE_CHECKING:
    from detectron2.config import CfgNode

CONFIG_NAME, FACTS_NAME = "config.yaml", "lung_d2.json"
"""The extra files in the TorchScript file."""
OUTPUTS = ("boxes", "classes", "masks", "scores", "image_size")


def export_torchscript(cfg: CfgNode, path: str | Path) -> Path:
    """Trace the detector of a config and save it with all that its input needs.

    The file takes an image, uint8 ``(3, H, W)`` of any size, as :func:`lung_d2.slice_image` makes it and resized by
    ``resize`` of its facts, and returns :data:`OUTPUTS`: boxes in pixels of that image, masks ``(N, 1, M, M)`` as
    probabilities in the frames of the boxes. It computes in float32.

    Args:
        cfg: With ``MODEL.WEIGHTS``.
        path: The file to write; replaced if it exists.

    Returns:
        The file. Beside the network it holds the config (:data:`CONFIG_NAME`) and :data:`FACTS_NAME`: categories, grey
        levels, channels, mean and standard deviation of the pixels, sizes of the resize, names of the outputs.

    Raises:
        CheckpointError: The weights cannot be loaded.
        OutputError: The file cannot be written.
    """
    model = build_model(cfg).eval()
    checkpointer = LungCheckpointer(model, settings=input_settings(cfg))
    checkpointer.load(cfg.MODEL.WEIGHTS)
    fold_batch_norm(model)
    image = _example(cfg).to(cfg.MODEL.DEVICE)
    with torch.no_grad():
        adapter = TracingAdapter(model, [{"image": image}], _detect).eval()
        traced = torch.jit.trace(adapter, (image,), check_trace=False)
    facts = {
        "categories": [asdict(category) for category in checkpointer.categories or CATEGORIES],
        "grey_levels": asdict(grey_levels_from_config(cfg)),
        "channels": cfg.INPUT.CT.CHANNELS,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "resize": {"shorter_side": cfg.INPUT.MIN_SIZE_TEST, "longest_side": cfg.INPUT.MAX_SIZE_TEST},
        "outputs": OUTPUTS,
    }
    try:
        with replace_file(Path(path)) as temporary:
            extra = {CONFIG_NAME: cfg.dump(), FACTS_NAME: json.dumps(facts)}
            torch.jit.save(traced, str(temporary), _extra_files=extra)
    except (OSError, RuntimeError) as error:
        raise OutputError(path, found="cannot be written", remedy="check the folder and the disk space") from error
    return Path(path)


def _detect(model: Any, inputs: list[dict[str, torch.Tensor]]) -> list[dict[str, Any]]:
    return [{"instances": found} for found in model.inference(inputs, do_postprocess=False)]


def _example(cfg: CfgNode) -> torch.Tensor:
    """Return noise, which every part of a network finds something in."""
    side = max(64, cfg.INPUT.MIN_SIZE_TEST)
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
