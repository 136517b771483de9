"""Detectron2 as it comes, to measure what this project adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.data import DatasetMapper, build_detection_test_loader

from lung_d2.data.loader import TrainLoader, build_train_loader
from lung_d2.data.register import check_registered
from lung_d2.engine.trainer import LungTrainer

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class PlainTrainer(LungTrainer):
    """Our loop, order of images, checkpoints and evaluation around Detectron2's own mapper.

    The rest of plain Detectron2 is said by the config: its proposal network, heads, anchors, mean and deviation.
    """

    @classmethod
    def build_seeded_loader(cls, cfg: CfgNode, seed: int) -> TrainLoader:
        """Build the training loader with Detectron2's mapper."""
        return build_train_loader(cfg, seed, mapper=DatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the test loader with Detectron2's mapper."""
        check_registered([dataset_name])
        return build_detection_test_loader(cfg, dataset_name, mapper=DatasetMapper(cfg, is_train=False))
