"""Make a ResNet-50 that knows chest CT: cut it out of a deep network, then train it to make up for what was cut."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from fvcore.nn.precise_bn import update_bn_stats

from lung_d2.config.checks import as_plain, value_of
from lung_d2.config.keys import input_settings
from lung_d2.config.loading import load_config
from lung_d2.data.loader import build_train_loader
from lung_d2.engine.trainer import LungTrainer
from lung_d2.errors import CheckpointError, ConfigError
from lung_d2.files import create_folder, replace_file, write_text
from studies.ct_backbone.distiller import TEACHER_NAME, BackboneDistiller
from studies.ct_backbone.network import COUNTER, PREFIX, State, load_backbone, sampled_weights, teacher_weights
from studies.ct_backbone.source import SHA256

logger = logging.getLogger(__name__)

CUT_NAME = "ct_resnet50_cut.pth"
SAMPLED_NAME, FINAL_NAME = "ct_resnet50_sampled.pth", "ct_resnet50.pth"
NOTICE_NAME = "ct_backbone.LICENSE.txt"
COMPARED = (
    *("DATASETS.TRAIN", "INPUT", "SOLVER", "SEED"),
    *("MODEL.RESNETS", "MODEL.BACKBONE", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
)
"""Settings that must not change when a run is resumed."""
_BN_BATCHES = 80  # of 4 crops: hundreds of thousands of values for each channel
_COMPARED_BATCHES = 16


class DistillationTrainer(LungTrainer):
    """Train a :class:`BackboneDistiller` with AdamW (Loshchilov and Hutter 2019) and ``SOLVER``'s other settings.

    Where blocks were left out, the gradients of the stages differ a hundredfold: a rate of stochastic gradient descent
    that is safe for the first stage does not move the last.
    """

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of the parameters that are not frozen."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def is_begun(cfg: CfgNode) -> bool:
    """Return whether ``OUTPUT_DIR`` holds a run to resume; otherwise note the config of the new run there.

    Raises:
        ConfigError: The run there had other :data:`COMPARED` settings, or its config is missing.
    """
    run = Path(cfg.OUTPUT_DIR)
    noted = run / "config.yaml"  # Detectron2's name
    if not (run / "last_checkpoint").is_file():
        create_folder(run)
        write_text(cfg.dump(), noted)
        return False
    before = load_config(noted)
    for key in COMPARED:
        for name, old, new in _differences(value_of(before, key), value_of(cfg, key), key):
            remedy = "give the options that it began with, or another --output"
            raise ConfigError(run, found=f"a run with {name} {old}", expected=f"{new}, as now", remedy=remedy)
    return True


def write_sources(state: State, notice: str, folder: Path) -> None:
    """Write the deep network as a 2-D one, the ResNet-50 of some of its blocks, and their licence notice."""
    create_folder(folder)
    write_text(notice, folder / NOTICE_NAME)
    _save(teacher_weights(state), folder / TEACHER_NAME)
    _save(sampled_weights(state), folder / CUT_NAME)


def fit_batch_norm(cfg: CfgNode, folder: Path) -> None:
    """Estimate the batch norm of the cut network again on ``DATASETS.TRAIN``, and write :data:`SAMPLED_NAME`.

    A block that follows one that was left out sees other means and variances than those it was trained with.
    """
    model = _load(cfg, folder / CUT_NAME)
    _estimate_batch_norm(cfg, model)
    _save(_weights_of(model), folder / SAMPLED_NAME, input_settings(cfg))


def distil(cfg: CfgNode, folder: Path, *, resume: bool) -> None:
    """Train the sampled network to give the features of the deep one, on the slices of ``DATASETS.TRAIN``.

    Training keeps means and variances of the last few batches only, so they are estimated once more at its end.

    Args:
        cfg: ``MODEL.META_ARCHITECTURE`` is ``BackboneDistiller``; ``OUTPUT_DIR`` keeps the checkpoints of the run.
        folder: Where :func:`write_sources` wrote its files; :data:`FINAL_NAME` is written beside them.
        resume: Continue from the last checkpoint.
    """
    _read_notice(folder)  # fail before the training, not after it
    trainer = DistillationTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    model = cast("BackboneDistiller", trainer.evaluated)
    _estimate_batch_norm(cfg, model)
    _save(_weights_of(model), folder / FINAL_NAME, input_settings(cfg))


@torch.no_grad()
def _estimate_batch_norm(cfg: CfgNode, model: BackboneDistiller) -> None:
    network = model.backbone.bottom_up.train()
    batches = (model.preprocess(batch) for batch in build_train_loader(cfg, max(cfg.SEED, 0)))
    update_bn_stats(network, batches, _BN_BATCHES, progress="tqdm")


@torch.no_grad()
def measure_likeness(cfg: CfgNode, weights: Path) -> dict[str, float]:
    """Return the correlation of a network's features with the deep one's on ``DATASETS.TRAIN``, by stage."""
    model = _load(cfg, weights).eval()
    found: dict[str, list[float]] = defaultdict(list)
    for batch in islice(iter(build_train_loader(cfg, max(cfg.SEED, 0))), _COMPARED_BATCHES):
        for name, value in model(batch).items():
            found[name.removeprefix("correlation_")].append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _load(cfg: CfgNode, weights: Path) -> BackboneDistiller:
    model = cast(BackboneDistiller, LungTrainer.build_model(cfg))
    load_backbone(model.backbone.bottom_up, weights)
    return model


def _weights_of(model: torch.nn.Module) -> State:
    """Return the weights of the backbone, without the counters of batch norm."""
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(PREFIX)}
    return {name: value.detach().cpu() for name, value in kept.items() if not name.endswith(COUNTER)}


def _save(weights: State, path: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write weights with the licence notice that lies beside them, their source, and their input settings."""
    about: dict[str, Any] = {"licence": _read_notice(path.parent), "source": f"sha256:{SHA256}"}
    if settings is not None:  # a backbone has no anchors
        about["settings"] = {key: value for key, value in settings.items() if "ANCHOR" not in key}
    with replace_file(path) as temporary:
        torch.save({"model": weights, **about}, temporary)


def _read_notice(folder: Path) -> str:
    path = folder / NOTICE_NAME
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        remedy = "put the licence notice back, or start in another --output"
        raise CheckpointError(path, found=type(error).__name__, remedy=remedy) from error


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value before and value now wherever two configs, or the same part of them, differ."""
    if not isinstance(now, dict):
        if as_plain(before) != as_plain(now):
            yield key, before, now
        return
    for name in now:
        yield from _differences(before[name], now[name], f"{key}.{name}" if key else name)
