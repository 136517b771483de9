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
from lung_d2.config import check_config, load_config
from lung_d2.config_checks import differences
from lung_d2.data.folders import write_json
from lung_d2.errors import ConfigError
from lung_d2.evaluation.results import RESULTS_NAME

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

FINAL = "final"
"""In place of a fold's number: the whole training split, measured on val."""

_ENDED = "ended.json"
# What may differ between a run and its continuation: neither changes what comes out.
_MAY_DIFFER = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "MODEL.DEVICE")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Of the arm.
        arm: What is trained.
        split: Number of the fold, or :data:`FINAL`.
        seed: ``SEED`` of the config.
        folder: Where all of it is written.
    """

    name: str
    arm: Arm
    split: str
    seed: int
    folder: Path

    def __str__(self) -> str:
        """Return what logs call it."""
        return f"{self.name}, {self.split}, seed {self.seed}"

    def dataset(self, prefix: str) -> str:
        """Return the name of the data sets of its split, without ``_train`` and ``_val``."""
        return dataset_of(prefix, self.split)

    def results(self, prefix: str) -> Path:
        """Return the file of its detections."""
        return self.folder / "inference" / f"{self.dataset(prefix)}_val" / RESULTS_NAME

    @property
    def has_ended(self) -> bool:
        """Whether it was trained and measured to its end."""
        return (self.folder / _ENDED).is_file()


def dataset_of(prefix: str, split: str) -> str:
    """Return the name of the data sets of a split, without ``_train`` and ``_val``."""
    return prefix if split == FINAL else f"{prefix}_fold{split}"


def list_runs(
    plan: Plan,
    output: Path,
    *,
    reduced: bool = False,
    arms: Sequence[str] = (),
    splits: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Run]:
    """Return the runs of a plan: every arm on every fold, then the final arms on val for every seed.

    Args:
        plan: The plan.
        output: Folder of the ablation.
        reduced: The first fold alone.
        arms: Names of those wanted; empty: all.
        splits: Numbers of folds, or :data:`FINAL`; empty: all.
        seeds: Those wanted; empty: all. Folds know the plan's first alone.

    Raises:
        ConfigError: An arm, a split or a seed is none of the plan's, or no run is all that was asked for.
    """
    folds = [str(fold) for fold in range(len(plan.folds[:1] if reduced else plan.folds))]
    choices: list[tuple[str, Sequence[object], Sequence[object]]] = [
        ("arm", arms, list(plan.arms)),
        ("split", splits, [*folds, FINAL]),
        ("seed", seeds, plan.seeds),
    ]
    for kind, wanted, known in choices:
        for one in wanted:
            if one not in known:
                expected = ", ".join(map(str, known))
                raise ConfigError(f"{kind} {one}", found="not in the plan", expected=expected, remedy="take one")
    every = _runs(plan, output, folds, arms or list(plan.arms))
    runs = [run for run in every if run.split in (splits or [run.split]) and run.seed in (seeds or [run.seed])]
    if not runs:
        final = ", ".join(name for name, arm in plan.arms.items() if arm.final)
        expected = f"folds with seed {plan.seeds[0]}, or {FINAL} for {final}"
        raise ConfigError("arms, splits and seeds", found="no run of all", expected=expected, remedy="take others")
    return runs


def _runs(plan: Plan, output: Path, folds: list[str], arms: Sequence[str]) -> Iterator[Run]:
    cases = [(fold, plan.seeds[:1]) for fold in folds] + [(FINAL, plan.seeds)]
    for split, seeds in cases:
        for seed in seeds:
            for name in arms:
                if split != FINAL or plan.arms[name].final:
                    yield Run(name, plan.arms[name], split, seed, output / name / f"{split}_seed{seed}")


def build_config(plan: Plan, run: Run, *, reduced: bool = False, opts: Sequence[str] = ()) -> CfgNode:
    """Return the config of a run.

    Args:
        plan: The plan.
        run: The run.
        reduced: Lay the plan's ``reduced``, on val its ``reduced_final`` too, over its ``settings``.
        opts: ``KEY VALUE`` pairs over everything.

    Raises:
        ConfigError: A config is broken, or the run was begun with another one.
    """
    from detectron2.config import CfgNode

    settings = plan.settings
    if reduced:
        settings = settings | plan.reduced | (plan.reduced_final if run.split == FINAL else {})
    pairs = [str(part) for pair in settings.items() for part in pair]
    cfg = load_config(Path(plan.configs, plan.base), pairs)
    for part in run.arm.parts:
        delta = yaml.safe_load(Path(plan.configs, part).read_text(encoding="utf-8"))
        delta.pop("_BASE_", None)
        try:
            cfg.merge_from_other_cfg(CfgNode(delta))
        except (KeyError, ValueError, AssertionError) as error:
            raise ConfigError(part, found=str(error).strip("'\""), remedy="correct the key or its value") from error
    name = run.dataset(plan.dataset)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{name}_train", *run.arm.datasets), (f"{name}_val",)
    cfg.MODEL.WEIGHTS = plan.starts[run.arm.start].path.format(split=start_split(run, reduced)) if run.arm.start else ""
    cfg.SEED, cfg.OUTPUT_DIR = run.seed, str(run.folder)
    cfg.merge_from_list(list(opts))
    check_config(cfg)
    _check_unchanged(cfg, run.folder / "config.yaml")
    return cfg


def start_split(run: Run, reduced: bool) -> str:
    """Return the split whose training slices the start of a run has seen."""
    return "0" if reduced else run.split


def _check_unchanged(cfg: CfgNode, path: Path) -> None:
    """Refuse to go on with, or to measure, what was begun with another config."""
    if not path.is_file():
        return
    for key, _, _ in differences(load_config(path), cfg):
        if key not in _MAY_DIFFER:
            found = f"a run with another {key}"
            raise ConfigError(path, found=found, expected="that of the plan", remedy="give another --output")


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
    write_json({"iterations": trainer.iter}, Path(cfg.OUTPUT_DIR, _ENDED))
