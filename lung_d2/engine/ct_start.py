"""Make a ResNet-50 that knows chest CT: cut it out of a deep network, then teach it what was left out."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from fvcore.nn.precise_bn import update_bn_stats

from lung_d2.data.folders import create_folder, write_text
from lung_d2.data.loader import build_train_loader
from lung_d2.engine.trainer import LungTrainer
from lung_d2.modeling.ct_backbone import PREFIX, State, sampled_weights, teacher_weights
from lung_d2.modeling.ct_distiller import BackboneDistiller

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TEACHER_NAME, SAMPLED_NAME, FINAL_NAME = "ct_resnet152.pth", "ct_resnet50_sampled.pth", "ct_resnet50.pth"
NOTICE_NAME = "ct_backbone.LICENSE.txt"
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


def write_sources(state: State, notice: str, folder: Path) -> None:
    """Write the deep network as a 2-D one, the ResNet-50 of some of its blocks, and the notice of their licence."""
    create_folder(folder)
    write_text(notice, folder / NOTICE_NAME)
    _save(teacher_weights(state), folder / TEACHER_NAME)
    _save(sampled_weights(state), folder / SAMPLED_NAME)


def fit_batch_norm(cfg: CfgNode, folder: Path) -> None:
    """Estimate the batch norm of the sampled network anew, on the slices of ``DATASETS.TRAIN``, in place.

    What follows a block that was left out sees other means and variances than those it was trained with.
    """
    model = _load(cfg, folder / SAMPLED_NAME)
    network = model.backbone.bottom_up.train()
    batches = (model.preprocess(batch) for batch in build_train_loader(cfg, max(cfg.SEED, 0)))
    with torch.no_grad():
        update_bn_stats(network, batches, _BN_BATCHES, progress="tqdm")
    _save(_weights_of(model), folder / SAMPLED_NAME)


def distil(cfg: CfgNode, folder: Path, *, resume: bool) -> None:
    """Teach the sampled network the features of the deep one, on the slices of ``DATASETS.TRAIN``.

    Args:
        cfg: ``MODEL.META_ARCHITECTURE`` is ``BackboneDistiller``; ``OUTPUT_DIR`` keeps the checkpoints of the run.
        folder: Of the files that :func:`write_sources` wrote; :data:`FINAL_NAME` is written beside them.
        resume: Go on from the last checkpoint.
    """
    trainer = DistillationTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    _save(_weights_of(trainer.model), folder / FINAL_NAME)


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
    model: BackboneDistiller = LungTrainer.build_model(cfg)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"], strict=False)
    return model


def _weights_of(model: torch.nn.Module) -> State:
    """Return the weights of the backbone; the counters of batch norm are none."""
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(PREFIX)}
    return {name: value.detach().cpu() for name, value in kept.items() if not name.endswith("num_batches_tracked")}


def _save(weights: State, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save({"model": weights}, temporary)
    os.replace(temporary, path)
