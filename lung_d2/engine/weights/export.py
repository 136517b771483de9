"""Weights files written: in fp16 where that harms nothing, whole or not at all, and read again before they count."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import build_model
from safetensors import SafetensorError
from safetensors.torch import save_file

from lung_d2.config.keys import input_settings
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.weights.file import (
    FORMAT_VERSION,
    PREFIX,
    check_finite,
    describe_categories,
    read_weights_file,
)
from lung_d2.engine.weights.lookup import config_of
from lung_d2.engine.weights.names import SUFFIX, check_digest
from lung_d2.engine.weights.settings import bound_settings, portable_config
from lung_d2.errors import CheckpointError, OutputError
from lung_d2.files import write_text

if TYPE_CHECKING:
    from detectron2.config import CfgNode

Tensors = Mapping[str, torch.Tensor]

HALF_ROUNDING = 2.0**-11
"""Largest relative error of a rounding to fp16, in its normal range (IEEE 754 binary16: 11 significant bits)."""
HALF_SUBNORMAL_STEP = 2.0**-24
"""Distance of the numbers of fp16 next to zero; a rounding there is wrong by half of it at most."""
OUTPUT_TOLERANCE = 0.05
"""Relative root mean square error of the features. Trained models had 0.0005 to 0.0015; tiny ones with random weights
and group norm, which amplifies, 0.015. A layer that was lost or swapped makes it about 1."""
_PROBE_SIZE = 128  # pixels


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes:
        sha256: Of the file.
        difference: Of its features from those of the model, see :func:`check_written`.
    """

    sha256: str
    difference: float


def choose_type(value: torch.Tensor) -> torch.dtype:
    """Return the type in which a parameter is written.

    fp16 has 11 bits between 6e-5 and 65504, fewer down to 6e-8, and nothing beyond. Kernels and matrices fit. What has
    one axis stays as it is: the running variance of batch norm may be 1e-9 or 1e6, is divided by, and together they
    take less than one part in a hundred. So does a kernel whose values are so small or so large that, as a whole, it
    would be off by more than :data:`HALF_ROUNDING`.

    Args:
        value: Of any shape.

    Returns:
        float16, float32, or for whole numbers int64.
    """
    if not value.is_floating_point():
        return torch.int64
    exact = value.double()
    off = (exact.half().double() - exact).norm()  # not finite where a value is beyond fp16
    fits = value.dim() > 1 and bool(off <= HALF_ROUNDING * exact.norm())
    return torch.float16 if fits else torch.float32


def export_weights(model: torch.nn.Module, cfg: CfgNode, provenance: Mapping[str, Any], path: Path) -> Exported:
    """Write a weights file, and ``NAME.safetensors.sha256`` beside it, which ``sha256sum -c`` reads.

    The file gets its name once it was loaded as a user loads it, and compared with the model.

    Args:
        model: Detectron2's ``GeneralizedRCNN``, on any device.
        cfg: Its config.
        provenance: Where it is from, :func:`lung_d2.engine.weights.provenance.build_provenance`.
        path: Replaced where it exists.

    Raises:
        CheckpointError: A parameter holds NaN or infinity, or what was written differs by more than rounding.
        OutputError: It cannot be written.
    """
    check_finite(model.state_dict(), path)
    sums, staging = path.with_name(f"{path.name}.sha256"), path.with_name(f".{path.stem}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # what a killed export left
        staging.mkdir(parents=True)
        write_weights_file(model.state_dict(), cfg, provenance, staging / path.name)
        difference = check_written(model, staging / path.name)
        digest = check_digest(staging / path.name)
        (staging / path.name).chmod(staging.stat().st_mode & 0o666)  # safetensors lets the owner alone read it
        sums.unlink(missing_ok=True)  # of an earlier file: after a kill none is better than a wrong one
        os.replace(staging / path.name, path)
    except OSError as error:
        found = f"cannot be written ({error.strerror or type(error).__name__})"
        raise OutputError(path, found=found, remedy="check the disk space and the permissions") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_text(f"{digest}  {path.name}\n", sums)
    return Exported(digest, difference)


def write_weights_file(state: Tensors, cfg: CfgNode, provenance: Mapping[str, Any], path: Path) -> None:
    """Write the file alone.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {name: value.detach().cpu().to(choose_type(value)).contiguous().clone() for name, value in state.items()}
    texts = {
        "format_version": FORMAT_VERSION,
        "config": portable_config(cfg),
        "categories": json.dumps(describe_categories()),
        "input": json.dumps(input_settings(cfg)),
        "provenance": json.dumps(provenance, allow_nan=False),
    }
    try:
        save_file(tensors, path, {"format": "pt", **{f"{PREFIX}{key}": text for key, text in texts.items()}})
    except SafetensorError as error:
        raise OSError(str(error)) from error  # as of a full disk


def check_written(model: torch.nn.Module, path: Path) -> float:
    """Load a weights file as a user does, and compare it with the model that it was made of.

    Args:
        model: Detectron2's ``GeneralizedRCNN`` on any device; its mode is kept.
        path: The file.

    Returns:
        Relative root mean square difference of the features of a picture, the worst level's.

    Raises:
        CheckpointError: A parameter is further off than a rounding to fp16, or the features are.
    """
    _check_parameters(model.state_dict(), read_weights_file(path).read_tensors(), path)
    cfg = config_of(path, ["MODEL.DEVICE", str(next(model.parameters()).device)])
    again = build_model(cfg)
    LungCheckpointer(again, settings=bound_settings(cfg)).load(cfg.MODEL.WEIGHTS)
    worst = max(_relative_difference(a, b) for a, b in zip(_features(model), _features(again), strict=True))
    if not worst <= OUTPUT_TOLERANCE:
        raise CheckpointError(
            path,
            found=f"features that differ from those of the checkpoint by {worst:.2%}",
            expected=f"at most {OUTPUT_TOLERANCE:.0%}",
            remedy="do not use it, and report this",
        )
    return worst


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that is no weights file's, or that is taken.

    Raises:
        OutputError: So it is.
    """
    if path.suffix != SUFFIX:
        raise OutputError(path, found="another ending", expected=f"NAME{SUFFIX}", remedy="name it so")
    if path.exists() and not overwrite:
        raise OutputError(path, found="there already", remedy="give --overwrite, or another --output")


def _check_parameters(exact: Tensors, written: Tensors, path: Path) -> None:
    for name, value in exact.items():
        reference = value.detach().cpu().double()
        off = (written[name].double() - reference).abs()
        allowed = HALF_ROUNDING * reference.abs() + HALF_SUBNORMAL_STEP / 2
        if not bool((off <= allowed).all()):
            raise CheckpointError(path, found=f"{name} off by {off.max():g}", remedy="do not use it, and report this")


def _features(model: Any) -> list[torch.Tensor]:
    picture = torch.randint(0, 256, (3, _PROBE_SIZE, _PROBE_SIZE), generator=torch.Generator().manual_seed(0))
    mode = model.training
    model.eval()
    with torch.no_grad():
        images = model.preprocess_image([{"image": picture.to(torch.uint8)}])
        found = model.backbone(images.tensor)
    model.train(mode)
    return [found[level].double().cpu() for level in sorted(found)]


def _relative_difference(exact: torch.Tensor, written: torch.Tensor) -> float:
    return float((exact - written).norm() / exact.norm().clamp(min=torch.finfo(torch.float32).tiny))
