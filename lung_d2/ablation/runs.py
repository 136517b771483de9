"""The runs of an ablation: their configs, and carrying one out."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from lung_d2.ablation.folds import FINAL, dataset_of, split_rows
from lung_d2.ablation.plan import Arm, Plan
from lung_d2.ablation.steps import Workshop
from lung_d2.config.checks import differences
from lung_d2.config.keys import check_config, load_config
from lung_d2.errors import ConfigError
from lung_d2.evaluation.results import RESULTS_NAME
from lung_d2.files import hash_identity, write_json

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from lung_d2.engine import LungTrainer

logger = logging.getLogger(__name__)

_BEGUN, _ENDED = "begun.json", "ended.json"
_CONFIG = "config.yaml"  # Detectron2's name
_RESULTS_FOLDER = "inference"  # Detectron2's name
# What may differ between a run and its continuation: neither changes what comes out.
_MAY_DIFFER = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "MODEL.DEVICE")
_TEST_ALONE = re.compile(r"TEST\..*|.*_TEST|MODEL\.ROI_BOX_HEAD\.MULT_PROPOSAL_SCORE")
"""In what an arm of another may differ from that."""


@dataclass(frozen=True)
class Run:
    """One training, or one measurement of what another run has trained.

    Attributes:
        name: Of the arm.
        arm: What is trained or measured.
        split: Number of the fold, or :data:`FINAL`.
        seed: ``SEED`` of the config.
        output: Folder of the ablation.
        made_from: Digests of its ``split``, and of the marks of its ``start`` and further data sets; empty: not known.
    """

    name: str
    arm: Arm
    split: str
    seed: int
    output: Path
    made_from: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return what logs call it."""
        return f"{self.name}, {self.split}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where all of it is written."""
        return self._folder_of(self.name)

    @property
    def weights_folder(self) -> Path:
        """The folder of the run that trains its weights: its own, or that of the arm that it is of."""
        return self._folder_of(self.arm.of or self.name)

    def _folder_of(self, name: str) -> Path:
        return self.output / name / f"{self.split}_seed{self.seed}"

    def dataset(self, prefix: str) -> str:
        """Return the name of the data sets of its split, without ``_train`` and ``_val``."""
        return dataset_of(prefix, self.split)

    def results(self, prefix: str) -> Path:
        """Return the file of its detections."""
        return self.folder / _RESULTS_FOLDER / f"{self.dataset(prefix)}_val" / RESULTS_NAME

    @property
    def is_trained(self) -> bool:
        """Whether the run that trains its weights has ended."""
        return bool(_read_record(self.weights_folder, _ENDED))

    @property
    def has_ended(self) -> bool:
        """Whether it was carried out to its end, and with the weights that are there now."""
        if not self.arm.of:
            return self.is_trained
        trained = _read_record(self.weights_folder, _ENDED)
        return bool(trained) and _read_record(self.folder, _ENDED).get("of") == trained

    @property
    def says_split(self) -> bool:
        """Whether the run that trains its weights has noted its split; those of earlier versions have not."""
        return "split" in self.record

    @property
    def record(self) -> dict[str, Any]:
        """What the run that trains its weights has noted at its end, or before at its begin; empty: nothing."""
        return _read_record(self.weights_folder, _ENDED) or _read_record(self.weights_folder, _BEGUN)


def _read_record(folder: Path, name: str) -> dict[str, Any]:
    """Return what a run wrote at its begin or its end; empty: it has not got there."""
    path = folder / name
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def list_runs(
    plan: Plan,
    output: Path,
    source: Path | None = None,
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
        source: Folder of the data, with ``split.csv``, by which runs of another split or start are told; none: not.
        reduced: The first fold alone.
        arms: Names of those wanted, to which those whose weights they measure are added; empty: all.
        splits: Numbers of folds, or :data:`FINAL`; empty: all.
        seeds: Those wanted; empty: all. Folds are run with the plan's first seed alone.

    Raises:
        ConfigError: An arm, a split or a seed is none of the plan's, or none of the runs chosen is of it; or a fold
            holds out a patient that is not trained on.
        DatasetError: The split file is broken.
    """
    folds = [str(fold) for fold in range(len(plan.folds[:1] if reduced else plan.folds))]
    choices: list[tuple[str, str, Sequence[Any], Sequence[Any]]] = [
        ("arm", "name", arms, list(plan.arms)),
        ("split", "split", splits, [*folds, FINAL]),
        ("seed", "seed", seeds, plan.seeds),
    ]
    for kind, _, wanted, known in choices:
        for one in wanted:
            if one not in known:
                expected = ", ".join(map(str, known))
                raise ConfigError(f"{kind} {one}", found="not in the plan", expected=expected, remedy="take one")
    with_weights = {*arms, *(plan.arms[name].of for name in arms)} if arms else plan.arms
    every = _runs(plan, output, folds, [name for name in plan.arms if name in with_weights])
    runs = [run for run in every if run.split in (splits or [run.split]) and run.seed in (seeds or [run.seed])]
    for kind, field, wanted, _ in choices:
        for one in wanted:
            if one not in [getattr(run, field) for run in runs]:
                final = ", ".join(name for name, arm in plan.arms.items() if arm.final) or "no arm"
                expected = f"folds with seed {plan.seeds[0]}, or {FINAL} for {final}"
                raise ConfigError(f"{kind} {one}", found="in no run chosen", expected=expected, remedy="choose others")
    return [replace(run, made_from=tuple(_made_from(plan, run, source, reduced))) for run in runs] if source else runs


def _runs(plan: Plan, output: Path, folds: list[str], arms: Sequence[str]) -> Iterator[Run]:
    cases = [(fold, plan.seeds[:1]) for fold in folds] + [(FINAL, plan.seeds)]
    for split, seeds in cases:
        for seed in seeds:
            for name in arms:
                if split != FINAL or plan.arms[name].final:
                    yield Run(name, plan.arms[name], split, seed, output)


def _made_from(plan: Plan, run: Run, source: Path, reduced: bool) -> Iterator[tuple[str, str]]:
    yield "split", hash_identity("split", split_rows(plan, run.split, source))
    workshop = Workshop(plan, start_split(run, reduced), source)
    if marks := [workshop.step(name).mark for name in run.arm.needs]:
        yield "start", hash_identity("start", "\n".join(marks))


def build_config(plan: Plan, run: Run, *, reduced: bool = False, opts: Sequence[str] = ()) -> CfgNode:
    """Return the config of a run.

    Args:
        plan: The plan.
        run: The run.
        reduced: Lay the plan's ``reduced``, on val its ``reduced_final`` too, over its ``settings``.
        opts: ``KEY VALUE`` pairs over everything.

    Raises:
        ConfigError: A config is broken, the run was begun with another one, split or start, or an arm of another
            differs from it in more than the test.
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
    if run.arm.of:
        trained = replace(run, name=run.arm.of, arm=plan.arms[run.arm.of])
        _check_test_alone(run, build_config(plan, trained, reduced=reduced, opts=opts), cfg)
        cfg.MODEL.WEIGHTS = str(run.weights_folder / "model_final.pth")
    elif cfg.TEST.AUG.ENABLED:
        found = f"True in arm {run.name}, which is trained"
        raise ConfigError("TEST.AUG.ENABLED", found=found, expected="False", remedy="make it an arm of another")
    _check_unchanged(run, cfg)
    return cfg


def start_split(run: Run, reduced: bool) -> str:
    """Return the split whose training slices the start of a run has seen."""
    return "0" if reduced else run.split


def _check_unchanged(run: Run, cfg: CfgNode) -> None:
    """Refuse to go on with, or to measure, what was begun with another config, split or start."""
    record = {} if run.arm.of else run.record  # what is of another is bound to the record of that
    for key, digest in run.made_from:
        if (before := record.get(key, digest)) != digest:
            found, expected = f"a run with another {key}, {before}", f"{digest}, that of the plan and the data"
            raise ConfigError(run.folder, found=found, expected=expected, remedy="give another --output, or delete it")
    path = run.folder / _CONFIG
    if not path.is_file():
        return
    # The weights of another arm are those of its split and seed, wherever the folder of the ablation is.
    may_differ = (*_MAY_DIFFER, "MODEL.WEIGHTS") if run.arm.of else _MAY_DIFFER
    for key, _, _ in differences(load_config(path), cfg):
        if key not in may_differ:
            found = f"a run with another {key}"
            raise ConfigError(path, found=found, expected="that of the plan", remedy="give another --output")


def _check_test_alone(run: Run, trained: CfgNode, cfg: CfgNode) -> None:
    changed = [found for found in differences(trained, cfg) if found[0] != "OUTPUT_DIR"]
    if not changed:
        found = f"no key that differs from {run.arm.of}"
        raise ConfigError(f"arm {run.name}", found=found, expected="a key of the test", remedy="correct its parts")
    for key, before, now in changed:
        if not _TEST_ALONE.fullmatch(key):
            found = f"{key} {now}, which {run.arm.of} was trained with {before}"
            raise ConfigError(f"arm {run.name}", found=found, expected="keys of the test alone", remedy="use over")


def carry_out(run: Run, cfg: CfgNode, *, threads: int) -> None:
    """Train and evaluate one run in this process, or take it up where it was stopped; an arm of another is evaluated.

    Args:
        run: The run.
        cfg: Its config.
        threads: Of torch.

    Raises:
        LungD2Error: It cannot be trained or evaluated.
    """
    from detectron2.engine import default_setup

    import lung_d2.modeling  # noqa: F401  a process of its own has read no config, which would register our heads
    from lung_d2.data import register_lung_datasets

    torch.set_num_threads(threads)
    if not run.arm.of and not (run.folder / _CONFIG).is_file():
        write_json(dict(run.made_from), run.folder / _BEGUN)
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
    register_lung_datasets()
    end = _evaluate(run, cfg) if run.arm.of else _train(run, cfg)
    write_json(end, run.folder / _ENDED)


def _train(run: Run, cfg: CfgNode) -> dict[str, Any]:
    trainer = _trainer_of(run)(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    begun = _read_record(run.folder, _BEGUN)
    return begun | {"iterations": trainer.iter, "ended": datetime.now(UTC).isoformat()}


def _evaluate(run: Run, cfg: CfgNode) -> dict[str, Any]:
    from lung_d2.engine import LungCheckpointer
    from lung_d2.engine.weights.settings import bound_settings

    trainer = _trainer_of(run)
    model = trainer.build_model(cfg)
    LungCheckpointer(model, settings=bound_settings(cfg)).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    if cfg.TEST.AUG.ENABLED:
        trainer.test_with_tta(cfg, model, _RESULTS_FOLDER)
    else:
        trainer.test(cfg, model)
    return {"of": _read_record(run.weights_folder, _ENDED)}


def _trainer_of(run: Run) -> type[LungTrainer]:
    from lung_d2.engine import LungTrainer
    from lung_d2.engine.plain import PlainTrainer

    return PlainTrainer if run.arm.plain else LungTrainer
