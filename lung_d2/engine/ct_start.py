"""Make a ResNet-50 that knows chest CT: cut it out of a deep network, then teach it what was left out."""

from __future__ import annotations

import logging
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from fvcore.nn.precise_bn import update_bn_stats

from lung_d2.config.checks import differences, value_of
from lung_d2.config.keys import input_settings, load_config
from lung_d2.data.loader import build_train_loader
from lung_d2.engine.ct_source import SHA256
from lung_d2.engine.trainer import LungTrainer
from lung_d2.errors import CheckpointError, ConfigError
from lung_d2.files import create_folder, replace_file, write_text
from lung_d2.modeling.ct_backbone import COUNTER, PREFIX, State, load_backbone, sampled_weights, teacher_weights
from lung_d2.modeling.ct_distiller import BackboneDistiller

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TEACHER_NAME, CUT_NAME = "ct_resnet152.pth", "ct_resnet50_cut.pth"
SAMPLED_NAME, FINAL_NAME = "ct_resnet50_sampled.pth", "ct_resnet50.pth"
NOTICE_NAME = "ct_backbone.LICENSE.txt"
COMPARED = (
    *("DATASETS.TRAIN", "INPUT", "SOLVER", "SEED"),
    *("MODEL.RESNETS", "MODEL.BACKBONE", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
)
"""What has to be the same where a run is taken up again."""
_RUN_CONFIG = "config.yaml"  # Detectron2's name
_BN_BATCHES = 80  # of 4 crops: hundreds of thousands of values for each channel
_JUDGED_BATCHES = 16


class DistillationTrainer(LungTrainer):
    """Trains a :class:`BackboneDistiller` with AdamW (Loshchilov and Hutter 2019), in ``SOLVER``'s other settings.

    Where blocks were left out, the gradients of the stages differ a hundredfold: stochastic gradient descent that
    leaves the first in peace does not move the last.
    """

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of what is not frozen."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def is_begun(cfg: CfgNode) -> bool:
    """Return whether ``OUTPUT_DIR`` holds a run to be taken up; where it holds none, note the config of the new one.

    Raises:
        ConfigError: The run there had other settings in :data:`COMPARED`, or says nothing of them.
    """
    run = Path(cfg.OUTPUT_DIR)
    noted = run / _RUN_CONFIG
    if not (run / "last_checkpoint").is_file():
        create_folder(run)
        write_text(cfg.dump(), noted)
        return False
    before = load_config(noted)
    for key in COMPARED:
        for name, old, new in differences(value_of(before, key), value_of(cfg, key), key):
            remedy = "give the options that it began with, or another --output"
            raise ConfigError(run, found=f"a run with {name} {old}", expected=f"{new}, as now", remedy=remedy)
    return True


def write_sources(state: State, notice: str, folder: Path) -> None:
    """Write the deep network as a 2-D one, the ResNet-50 of some of its blocks, and the notice of their licence."""
    create_folder(folder)
    write_text(notice, folder / NOTICE_NAME)
    _save(teacher_weights(state), folder / TEACHER_NAME)
    _save(sampled_weights(state), folder / CUT_NAME)


def fit_batch_norm(cfg: CfgNode, folder: Path) -> None:
    """Estimate the batch norm of the cut network anew on ``DATASETS.TRAIN``; :data:`SAMPLED_NAME` holds the result.

    What follows a block that was left out sees other means and variances than those it was trained with.
    """
    model = _load(cfg, folder / CUT_NAME)
    _estimate_batch_norm(cfg, model)
    _save(_weights_of(model), folder / SAMPLED_NAME, input_settings(cfg))


def distil(cfg: CfgNode, folder: Path, *, resume: bool) -> None:
    """Teach the sampled network the features of the deep one, on the slices of ``DATASETS.TRAIN``.

    Training keeps means and variances of the last few batches alone, so that they are estimated once more at its end.

    Args:
        cfg: ``MODEL.META_ARCHITECTURE`` is ``BackboneDistiller``; ``OUTPUT_DIR`` keeps the checkpoints of the run.
        folder: Of the files that :func:`write_sources` wrote; :data:`FINAL_NAME` is written beside them.
        resume: Go on from the last checkpoint.
    """
    _read_notice(folder)  # so that nothing is missing after the training
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
    """Return how the features of a network correlate with the deep one's on ``DATASETS.TRAIN``, by stage; 1: equal."""
    model = _load(cfg, weights).eval()
    found: dict[str, list[float]] = defaultdict(list)
    for batch in islice(iter(build_train_loader(cfg, max(cfg.SEED, 0))), _JUDGED_BATCHES):
        for name, value in model(batch).items():
            found[name.removeprefix("correlation_")].append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _load(cfg: CfgNode, weights: Path) -> BackboneDistiller:
    model = cast(BackboneDistiller, LungTrainer.build_model(cfg))
    load_backbone(model.backbone.bottom_up, weights)
    return model


def _weights_of(model: torch.nn.Module) -> State:
    """Return the weights of the backbone; the counters of batch norm are none."""
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(PREFIX)}
    return {name: value.detach().cpu() for name, value in kept.items() if not name.endswith(COUNTER)}


def _save(weights: State, path: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write weights with the notice of their licence, which lies beside them, their source, and what they saw."""
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
        remedy = "put the notice of the licence back, or start in another --output"
        raise CheckpointError(path, found=type(error).__name__, remedy=remedy) from error
