"""What an ablation trains: the arms, the folds and the seeds, as a YAML file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lung_d2.errors import ConfigError


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: Short, for folders and the table.
        about: What it changes, for the table.
        parts: Config files whose own keys, without their ``_BASE_``, are laid over the base, in this order.
        start: Name of a checkpoint in the plan's ``starts``; empty: random weights.
        datasets: Further data sets to train on, beside those of the fold.
        against: The arm that it is compared with; empty: none.
        final: Trained once more on the whole training split and measured on val, for every seed.
        plain: Detectron2's own mapper instead of ours.
    """

    name: str
    about: str
    parts: tuple[Path, ...] = ()
    start: str = ""
    datasets: tuple[str, ...] = ()
    against: str = ""
    final: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole ablation.

    Attributes:
        configs: Folder that the config files of the plan are named from.
        base: Config file that all arms share.
        settings: ``KEY VALUE`` pairs over it, for all arms: iterations, pixels, rates.
        reduced: More such pairs, for a run without a GPU; it takes the first fold alone.
        dataset: Prefix of the data sets; ``DATASET_foldN_train`` and ``_val`` are a fold, ``DATASET_train`` and
            ``_val`` the split that is reported once.
        prepare: Importer and options with which ``tools/prepare_dataset.py`` makes a data set of the source.
        folds: Patients held out, a list for each fold.
        starts: Checkpoints by name; ``{split}`` in one stands for the fold's number, or ``final``. In a reduced run
            the first fold's serve val too: they saw less, and nothing of val.
        backbone: ``KEY VALUE`` pairs for ``tools/make_ct_backbone.py``, which makes the starts.
        seeds: Of the final arms; folds use the first.
        arms: In the order in which they are trained.
    """

    configs: Path
    base: Path
    dataset: str
    prepare: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (1,)
    settings: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()
    backbone: tuple[str, ...] = ()
    starts: Mapping[str, str] | None = None

    def arm(self, name: str) -> Arm:
        """Return an arm by its name.

        Raises:
            ConfigError: There is none.
        """
        found = next((arm for arm in self.arms if arm.name == name), None)
        if found is None:
            names = ", ".join(arm.name for arm in self.arms)
            raise ConfigError(f"arm {name}", found="not in the plan", expected=names, remedy="take one of these")
        return found


def read_plan(path: Path) -> Plan:
    """Read a plan; its folder of configs is relative to its file.

    Raises:
        ConfigError: The file is missing or broken, or names a key, an arm or a start that is not there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(path, found=reason, expected="a plan in YAML", remedy="see tools/ablation.yaml") from error
    content = dict(_checked(path, "plan", content, Plan, {"configs", "base", "dataset", "prepare", "folds", "arms"}))
    arms = _checked(path, "arms", content["arms"], None, set())
    content["configs"] = configs = path.parent / str(content["configs"])
    content["arms"] = tuple(_read_arm(path, configs, str(name), entry) for name, entry in arms.items())
    content["base"] = configs / str(content["base"])
    content["prepare"] = tuple(map(str, content["prepare"]))
    content["folds"] = tuple(tuple(map(str, fold)) for fold in content["folds"])
    content["seeds"] = tuple(content.get("seeds", (1,)))
    for key in ("settings", "reduced", "backbone"):
        content[key] = tuple(_as_pairs(content.get(key) or {}))
    plan = Plan(**content)
    for arm in plan.arms:
        if arm.against:
            plan.arm(arm.against)
        if arm.start and arm.start not in (plan.starts or {}):
            raise ConfigError(path, found=f"start {arm.start} of arm {arm.name}", remedy="name it under starts")
    return plan


def _read_arm(path: Path, configs: Path, name: str, entry: Any) -> Arm:
    entry = dict(_checked(path, f"arm {name}", entry, Arm, {"about"}))
    entry["parts"] = tuple(configs / str(part) for part in entry.get("parts", ()))
    entry["datasets"] = tuple(map(str, entry.get("datasets", ())))
    return Arm(name=name, **entry)


def _checked(path: Path, where: str, content: Any, kind: type | None, needed: set[str]) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(path, found=f"{where}: {type(content).__name__}", expected="a mapping", remedy="correct it")
    known = {field.name for field in fields(kind)} - {"name"} if kind else set(content)
    wrong = sorted(set(map(str, content)) - known) or sorted(needed - set(content))
    if wrong:
        expected = ", ".join(sorted(known))
        raise ConfigError(path, found=f"{where}: {wrong[0]} unknown or missing", expected=expected, remedy="correct it")
    return content


def _as_pairs(settings: Mapping[str, Any]) -> list[str]:
    return [str(part) for pair in settings.items() for part in pair]
