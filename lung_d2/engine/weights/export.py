"""Weights files as they are written: in fp16 where that does no harm, whole or not at all, and read again before use.

The provenance in them is JSON::

    name          of the weights
    date          of the export, UTC, YYYY-MM-DD
    source        weights (file name), sha256: the checkpoint that was exported
    data          a list: name; where the data set is prepared here also patients, series, slices,
                  slices_without_lesions, lesions and undecided by category
    iterations    of the training; null where the checkpoint does not say
    start         what the training started from: an address, a file name, or "random"
    start_licence, start_source
                  notice and origin that the weights carry from a start, as from the chest CT backbone; "" without one
    seed          null where it was drawn and is not known
    versions      of lung_d2, Python and its packages, at the export
    evaluations   a list: data (as above, names for name), results_sha256, figures: figure, category, value, low, high
                  (95 % over patients), patients
    licence, notes
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import torch
from detectron2.modeling import build_model
from safetensors import SafetensorError
from safetensors.torch import save_file

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.config.keys import input_settings
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.weights.file import (
    FORMAT_VERSION,
    PREFIX,
    bound_settings,
    check_finite,
    config_of,
    portable_config,
)
from lung_d2.engine.weights.names import check_digest
from lung_d2.errors import CheckpointError, DatasetError, OutputError
from lung_d2.evaluation.evaluate import SCHEMA_VERSION, describe_truth
from lung_d2.evaluation.page import ROWS, shown_categories
from lung_d2.evaluation.truth import read_truth
from lung_d2.files import write_text

if TYPE_CHECKING:
    from detectron2.config import CfgNode

HALF_ROUNDING = 2.0**-11
"""Largest relative error of a rounding to fp16, in its normal range (IEEE 754 binary16: 11 significant bits)."""
HALF_SUBNORMAL_STEP = 2.0**-24
"""Distance of the fp16 numbers next to zero; a rounding there is wrong by at most half of it."""


def export_weights(
    model: torch.nn.Module,
    cfg: CfgNode,
    provenance: Mapping[str, Any],
    path: Path,
    categories: Categories = CATEGORIES,
) -> str:
    """Write a weights file, and ``NAME.safetensors.sha256`` beside it, which ``sha256sum -c`` reads.

    The file gets its name after it has been loaded as a user loads it and compared with the model.

    Args:
        model: Detectron2's ``GeneralizedRCNN``, on any device.
        cfg: Its config.
        provenance: Where it comes from, :func:`build_provenance`.
        path: Replaced where it exists.
        categories: What the model tells apart.

    Returns:
        SHA-256 of the file.

    Raises:
        CheckpointError: A parameter holds NaN or infinity, or what was written differs by more than rounding.
        OutputError: It cannot be written.
    """
    check_finite(model.state_dict(), path)
    texts = {
        "format_version": FORMAT_VERSION,
        "config": portable_config(cfg),
        "categories": json.dumps(categories.to_coco()),
        "input": json.dumps(input_settings(cfg)),
        "provenance": json.dumps(provenance, allow_nan=False),
    }
    state = model.state_dict()
    tensors = {name: value.detach().cpu().to(choose_type(value)).contiguous().clone() for name, value in state.items()}
    sums, staging = path.with_name(f"{path.name}.sha256"), path.with_name(f".{path.stem}.partial")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # what a killed export left
        staging.mkdir(parents=True)
        written = staging / path.name
        save_file(tensors, written, {"format": "pt", **{f"{PREFIX}{key}": text for key, text in texts.items()}})
        check_written(model, written)
        digest = check_digest(written)
        written.chmod(staging.stat().st_mode & 0o666)  # safetensors lets only the owner read it
        sums.unlink(missing_ok=True)  # of an earlier file: after a kill, none is better than a wrong one
        os.replace(written, path)
    except (OSError, SafetensorError) as error:  # the latter on a full disk
        found = f"cannot be written ({getattr(error, 'strerror', None) or type(error).__name__})"
        raise OutputError(path, found=found, remedy="check the disk space and the permissions") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_text(f"{digest}  {path.name}\n", sums)
    return digest


def choose_type(value: torch.Tensor) -> torch.dtype:
    """Return the type in which a parameter is written: float16, float32, or int64 for whole numbers.

    fp16 has 11 bits between 6e-5 and 65504, fewer down to 6e-8, and nothing beyond. Kernels and matrices fit. What has
    one axis stays in float32: the running variance of batch norm may be 1e-9 or 1e6, is divided by, and together they
    take less than one part in a hundred. So does a kernel whose values are so small or so large that, as a whole, it
    would be off by more than :data:`HALF_ROUNDING`.
    """
    if not value.is_floating_point():
        return torch.int64
    exact = value.double()
    off = (exact.half().double() - exact).norm()  # not finite where a value is beyond fp16
    fits = value.dim() > 1 and bool(off <= HALF_ROUNDING * exact.norm())
    return torch.float16 if fits else torch.float32


def check_written(model: torch.nn.Module, path: Path) -> None:
    """Load a weights file as a user does, and compare its parameters with those of the model that it was made from.

    Raises:
        CheckpointError: It does not load, or a parameter is further off than a rounding to fp16.
    """
    cfg = config_of(path, ["MODEL.DEVICE", str(next(model.parameters()).device)])
    loaded = build_model(cfg)
    LungCheckpointer(loaded, settings=bound_settings(cfg)).load(cfg.MODEL.WEIGHTS)
    written = loaded.state_dict()
    for name, value in model.state_dict().items():
        exact = value.detach().cpu().double()
        off = (written[name].cpu().double() - exact).abs()
        if not bool((off <= HALF_ROUNDING * exact.abs() + HALF_SUBNORMAL_STEP / 2).all()):
            raise CheckpointError(path, found=f"{name} off by {off.max():g}", remedy="do not use it, and report this")


def build_provenance(
    name: str,
    cfg: CfgNode,
    weights: Path,
    checkpoint: Mapping[str, Any],
    versions: Mapping[str, str | None],
    *,
    evaluations: Sequence[Path] = (),
    licence: str = "",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Gather where weights come from, see the module.

    Args:
        name: Of the weights.
        cfg: Config of the training; its ``MODEL.WEIGHTS`` is what the training started from.
        weights: The checkpoint.
        checkpoint: What it holds beside the model, as ``LungCheckpointer.load`` returns it.
        versions: By package.
        evaluations: Files ``evaluation.json`` of these weights.
        licence: Under which they may be used.
        notes: Sentences, as the notices that the licence of a start asks for; kept as they are.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        DatasetError: An evaluation, or a data set that is prepared here, is broken.
    """
    trainer, iteration = checkpoint.get("trainer"), checkpoint.get("iteration")
    seed = trainer.get("seed", cfg.SEED) if isinstance(trainer, Mapping) else cfg.SEED
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(weights, found="cannot be read", remedy="check its path and permissions") from error
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "source": {"weights": weights.name, "sha256": digest},
        "data": [_describe_data(name) for name in cfg.DATASETS.TRAIN],
        "iterations": iteration + 1 if isinstance(iteration, int) else None,
        "start": _describe_start(cfg.MODEL.WEIGHTS),
        "start_licence": checkpoint.get("licence", ""),
        "start_source": checkpoint.get("source", ""),
        "seed": seed if isinstance(seed, int) and seed >= 0 else None,
        "versions": dict(versions),
        "evaluations": [_read_evaluation(path) for path in evaluations],
        "licence": licence,
        "notes": list(notes),
    }


def _describe_start(weights: str) -> str:
    if not weights or weights.startswith("detectron2://"):
        return weights or "random"
    place = urlsplit(weights).path if "://" in weights else weights  # without user, key and host
    return PurePath(place.replace("\\", "/")).name


def _describe_data(name: str) -> dict[str, Any]:
    from detectron2.data import DatasetCatalog

    from lung_d2.evaluation.truth import find_sources

    if name not in DatasetCatalog.list():
        return {"name": name}
    described = describe_truth(read_truth(find_sources([name])))
    return {"name": name, **{key: value for key, value in described.items() if key != "names"}}


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {content['schema_version']}")
        figures = list(_list_figures(content))
        json.dumps(figures, allow_nan=False)
        return {"data": content["data"], "results_sha256": content["results"]["sha256"], "figures": figures}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            path,
            found=f"not an evaluation.json ({type(error).__name__}: {error})",
            remedy="run tools/evaluate.py again",
        ) from error


def _list_figures(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in ROWS:
        for category in shown_categories(content):
            figure = row.find(content["metrics"], category)
            if figure is not None and figure["value"] is not None:
                kept = {key: figure[key] for key in ("value", "low", "high", "patients")}
                yield {"figure": row.label, "category": category, **kept}
