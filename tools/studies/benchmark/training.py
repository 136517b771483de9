"""Our loader and our step of training against Detectron2's, on the same slices and from the same weights."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.ct import CTVolume
from lung_d2.ct.grey import GreyLevels
from lung_d2.data import CTDatasetMapper
from lung_d2.data.planes import write_plane
from lung_d2.engine import LungTrainer
from lung_d2.engine.precision import build_step
from lung_d2.engine.weights import config_of
from lung_d2.masks import build_annotation
from studies.benchmark.timing import Timing, alternate

OURS, PLAIN = "lung_d2", "Detectron2"
_DISC = 12  # a lesion is so many times smaller than its slice
Record = dict[str, Any]


def training_config(weights: str, device: str, side: int) -> CfgNode:
    """Return the config of both sides: resized to ``side`` and flipped, nothing else."""
    cfg = config_of(weights, ["MODEL.DEVICE", device])
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.CROP.ENABLED = (side,), side, False
    cfg.INPUT.CT.AUGMENT = _off(cfg.INPUT.CT.AUGMENT)
    cfg.INPUT.CT.HU_JITTER = 0.0
    cfg.INPUT.CT.GREY = "minmax_clahe"  # the slices on disk are 8-bit, which both mappers read
    cfg.SOLVER.BASE_LR = 1e-4
    return cfg


def _off(value: Any) -> Any:
    if isinstance(value, CfgNode):
        return CfgNode({name: _off(part) for name, part in value.items()})
    return 0.0 if isinstance(value, float) else value


def write_slices(volume: CTVolume, folder: Path, count: int) -> list[Record]:
    """Write slices as 8-bit PNG, with two lesions each, and return their records."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = volume.hu.shape[1:]
    y, x = np.ogrid[:rows, :columns]
    records = []
    for number, index in enumerate(np.linspace(0, len(volume.hu) - 1, count).astype(int)):
        path = folder / f"{number:04d}.png"
        write_plane(GreyLevels().apply(volume.hu[index]), path)
        annotations = []
        for row, column in ((rows // 2, columns // 3), (rows // 3, 2 * columns // 3)):
            disc = (y - row) ** 2 + (x - column) ** 2 <= (min(rows, columns) / _DISC) ** 2
            one = build_annotation(disc, GROUND_GLASS_OPACITY)
            annotations.append({**one, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0})
        records.append(
            {
                "file_name": str(path),
                "height": rows,
                "width": columns,
                "image_id": number,
                "hu": False,
                "annotations": annotations,
            }
        )
    return records


def measure_loading(cfg: CfgNode, records: list[Record]) -> dict[str, Timing]:
    """Time how a mapper loads a slice that is not in the page cache."""
    mappers = {OURS: CTDatasetMapper(cfg, is_train=True), PLAIN: DatasetMapper(cfg, is_train=True)}

    def load(name: str, number: int) -> Record:
        _forget(records[number]["file_name"])
        return mappers[name](copy.deepcopy(records[number]))

    return alternate({name: lambda number, name=name: load(name, number) for name in mappers}, len(records))


def _forget(path: str) -> None:
    """Drop a file from the page cache, where the system can."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def measure_training(cfg: CfgNode, records: list[Record], batch: int, steps: int) -> dict[str, Timing]:
    """Time an iteration of each, alternately, from the same random weights and on the same batch."""
    images = [CTDatasetMapper(cfg, is_train=True)(record) for record in records[:batch]]
    plain = build_model(cfg)
    ours = LungTrainer.build_model(cfg)
    ours.load_state_dict(plain.state_dict())
    device = torch.device(cfg.MODEL.DEVICE)
    loader = [images] * (steps + 1)
    trainers = {
        OURS: build_step(ours, loader, build_optimizer(cfg, ours), mixed=True, device=device),
        PLAIN: SimpleTrainer(plain, loader, build_optimizer(cfg, plain)),
    }
    for trainer in trainers.values():
        trainer.model.train()

    def step(name: str, number: int) -> None:
        trainers[name].iter = number
        trainers[name].run_step()

    with EventStorage():
        return alternate(
            {name: lambda number, name=name: step(name, number) for name in trainers}, steps, cfg.MODEL.DEVICE
        )
