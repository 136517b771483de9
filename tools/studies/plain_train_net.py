#!/usr/bin/env python
"""Train or evaluate Detectron2 as it comes, to measure what this project adds: the arm `plain` of the ablation.

Loop, order of images, checkpoints and evaluation are those of tools/train_net.py, so that runs can be compared, and so
are the arguments. The mapper is Detectron2's own; the plan sets its anchors, heads, mean and standard deviation.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.engine import default_argument_parser, default_setup

from lung_d2 import load_config, register_lung_datasets
from lung_d2.command_line import run_tool
from lung_d2.data.loader import TrainLoader, build_train_loader
from lung_d2.engine import LungCheckpointer, LungTrainer


class PlainTrainer(LungTrainer):
    """Our trainer around Detectron2's own mapper."""

    @classmethod
    def build_seeded_loader(cls, cfg: CfgNode, seed: int) -> TrainLoader:
        """Build the training loader with Detectron2's mapper."""
        return build_train_loader(cfg, seed, mapper=DatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the test loader with Detectron2's mapper."""
        return build_detection_test_loader(cfg, dataset_name, mapper=DatasetMapper(cfg, is_train=False))


def main() -> None:
    """Train, or evaluate ``MODEL.WEIGHTS``, in one process."""
    args = default_argument_parser().parse_args()
    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    register_lung_datasets()
    if not args.eval_only:
        trainer = PlainTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = PlainTrainer.build_model(cfg)
    LungCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    PlainTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        PlainTrainer.test_with_tta(cfg, model)


if __name__ == "__main__":
    run_tool(main)
