"""The runs of an ablation: their configs, and training one."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml

from lung_d2.ablation.plan import Arm, Plan
from lung_d2.config import load_config
from lung_d2.config_checks import check_config
from lung_d2.errors import ConfigError
from lung_d2.evaluation.results import RESULTS_NAME

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

FINAL = "final"
"""In place of a fold's number: the whole training split, measured on val."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: What is trained.
        split: Number of the fold, or :data:`FINAL`.
        seed: ``SEED`` of the config.
        folder: Where all of it is written.
    """

    arm: Arm
    split: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"{self.arm.name}, {self.split}, seed {self.seed}"

    def dataset(self, prefix: str) -> str:
        """Return the name of the data sets of its split, without ``_train`` and ``_val``."""
        return prefix if self.split == FINAL else f"{prefix}_fold{self.split}"

    def results(self, prefix: str) -> Path:
        """Return the file of its detections; it is there once the run has ended."""
        return self.folder / "inference" / f"{self.dataset(prefix)}_val" / RESULTS_NAME


def list_runs(
    plan: Plan, output: Path, *, reduced: bool = False, arms: Sequence[str] = (), splits: Sequence[str] = ()
) -> Iterator[Run]:
    """Yield the runs of a plan: every arm on every fold, then the final arms on val for every seed.

    Args:
        plan: The plan.
        output: Folder of the ablation.
        reduced: The first fold alone.
        arms: Names of those wanted; empty: all.
        splits: Numbers of folds, or :data:`FINAL`; empty: all.
    """
    wanted = [plan.arm(name) for name in arms] or list(plan.arms)
    folds = plan.folds[:1] if reduced else plan.folds
    cases = [(str(fold), plan.seeds[:1]) for fold in range(len(folds))] + [(FINAL, plan.seeds)]
    for split, seeds in cases:
        if splits and split not in splits:
            continue
        for seed in seeds:
            for arm in wanted:
                if split != FINAL or arm.final:
                    yield Run(arm, split, seed, output / arm.name / f"{split}_seed{seed}")


def build_config(plan: Plan, run: Run, *, reduced: bool = False, opts: Sequence[str] = ()) -> CfgNode:
    """Return the config of a run.

    Args:
        plan: The plan.
        run: The run.
        reduced: Lay the plan's ``reduced`` over its ``settings``.
        opts: ``KEY VALUE`` pairs over everything.

    Raises:
        ConfigError: A config is broken.
    """
    from detectron2.config import CfgNode

    cfg = load_config(plan.base, [*plan.settings, *(plan.reduced if reduced else ())])
    for part in run.arm.parts:
        delta = yaml.safe_load(part.read_text(encoding="utf-8"))
        delta.pop("_BASE_", None)
        try:
            cfg.merge_from_other_cfg(CfgNode(delta))
        except (KeyError, ValueError, AssertionError) as error:
            raise ConfigError(part, found=str(error).strip("'\""), remedy="correct the key or its value") from error
    name = run.dataset(plan.dataset)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{name}_train", *run.arm.datasets), (f"{name}_val",)
    cfg.MODEL.WEIGHTS = start_of(plan, run, reduced=reduced) if run.arm.start else ""
    cfg.SEED, cfg.OUTPUT_DIR = run.seed, str(run.folder)
    cfg.merge_from_list(list(opts))
    check_config(cfg)
    return cfg


def start_of(plan: Plan, run: Run, *, reduced: bool) -> str:
    """Return the checkpoint that a run starts from."""
    return (plan.starts or {})[run.arm.start].format(split="0" if reduced else run.split)


def train_run(cfg: CfgNode, *, plain: bool, threads: int) -> None:
    """Train and evaluate one run in this process, or take it up where it was stopped.

    Args:
        cfg: Its config.
        plain: With Detectron2's own mapper.
        threads: Of torch.
    """
    from detectron2.engine import default_setup

    import lung_d2.modeling  # noqa: F401  a process of its own has read no config, which would register our heads
    from lung_d2.data import register_lung_datasets
    from lung_d2.engine import LungTrainer
    from lung_d2.engine.plain import PlainTrainer

    torch.set_num_threads(threads)
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
    register_lung_datasets()
    trainer = (PlainTrainer if plain else LungTrainer)(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
