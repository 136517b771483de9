#!/usr/bin/env python
"""Train or evaluate a lesion detector, with Detectron2's usual arguments; tools/README.md has examples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_d2.command_line import ERROR_STATUS, run_tool
from lung_d2.config.loading import load_config
from lung_d2.errors import ConfigError, detectron2_missing
from lung_d2.processes import ignore_deprecations

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def train(args: argparse.Namespace) -> Mapping[str, Any] | None:
    """Run on one process of a training or an evaluation."""
    from detectron2.evaluation import verify_results
    from detectron2.utils import comm

    from lung_d2.data import register_lung_datasets
    from lung_d2.engine import LungCheckpointer, LungTrainer
    from lung_d2.engine.trainer import adopt_categories
    from lung_d2.engine.weights.file import bound_settings

    ignore_deprecations()  # also in the further processes of a distributed run
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    _set_up(cfg, args)
    register_lung_datasets()
    if not args.eval_only:
        trainer = LungTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        if results and comm.is_main_process():
            _write_pages(trainer.cfg)
        return results
    cfg, categories = adopt_categories(cfg, cfg.DATASETS.TEST)
    model = LungTrainer.build_model(cfg)
    checkpointer = LungCheckpointer(model, cfg.OUTPUT_DIR, settings=bound_settings(cfg), categories=categories)
    if not (checkpointer.has_checkpoint() if args.resume else cfg.MODEL.WEIGHTS):
        found = f"no checkpoint in {cfg.OUTPUT_DIR}" if args.resume else "no MODEL.WEIGHTS"
        raise ConfigError("--eval-only", found=found, expected="trained weights", remedy="give MODEL.WEIGHTS FILE")
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = dict(LungTrainer.test(cfg, model))
    if cfg.TEST.AUG.ENABLED:
        results |= LungTrainer.test_with_tta(cfg, model)
    if comm.is_main_process():
        _write_pages(cfg)
        verify_results(cfg, results)
    return results


def _write_pages(cfg: CfgNode) -> None:
    """Write ``evaluation.json`` and ``evaluation.html`` beside the results of each test set."""
    from lung_d2.engine.trainer import TTA_FOLDER
    from lung_d2.evaluation.files import write_evaluation
    from lung_d2.evaluation.results import RESULTS_NAME
    from lung_d2.evaluation.truth import find_sources

    folders = ["inference", *([TTA_FOLDER] if cfg.TEST.AUG.ENABLED else [])]
    for folder in (Path(cfg.OUTPUT_DIR, one, name) for one in folders for name in cfg.DATASETS.TEST):
        write_evaluation(find_sources([folder.name]), [folder / RESULTS_NAME], folder, brief=True)


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set up log and output folder; an evaluation leaves the log and the config.yaml of its run as they are."""
    from detectron2.engine import default_setup
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    cfg = cfg.clone()
    if args.eval_only:
        cfg.defrost()
        cfg.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}/inference"
    try:
        default_setup(cfg, args)
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="lung_d2", abbrev_name="lung_d2")
    except OSError as error:
        raise ConfigError(
            "OUTPUT_DIR", found=f"{cfg.OUTPUT_DIR} cannot be written ({error.strerror})", remedy="name another folder"
        ) from error


def main() -> int:
    """Parse the arguments, then launch one process per GPU."""
    try:
        from detectron2.engine import default_argument_parser, launch
    except ImportError as error:
        raise detectron2_missing() from error
    from torch.multiprocessing import ProcessRaisedException

    args = default_argument_parser().parse_args()
    try:
        launch(
            train,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessRaisedException as error:
        # Several processes: an error of ours arrives as the last line of a child's traceback.
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if not kind.startswith("lung_d2.errors."):
            raise
        sys.stderr.write(f"error: {message}\n")
        return ERROR_STATUS
    return 0


if __name__ == "__main__":
    run_tool(main)
