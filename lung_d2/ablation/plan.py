"""What an ablation trains and tests: the arms, the folds and the seeds, as a YAML file says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lung_d2.errors import ConfigError

_PLACEHOLDERS = ("split", "train", "data", "datasets")
"""What braces in a command of the plan can hold beside what it needs."""

# OmegaConf checks names and types against these classes while it merges a file into them, so that they are not frozen.


@dataclass
class Made:
    """A file that runs need, and the tools that make it.

    ``{split}`` stands for the number of the fold, or ``final``, ``{train}`` for the training slices of that split,
    ``{data}`` for the folder of the data, ``{datasets}`` for that of prepared data sets, and the name of one that it
    needs for that one's file.

    Attributes:
        path: The file, beside which ``.made`` says what it is made from; that of a start takes ``{split}`` alone.
        make: Scripts in ``tools/`` with their arguments, in order.
        needs: Data sets and starts that these scripts take, named above it; a data set can need no start.
    """

    path: str
    make: list[list[str]] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)


@dataclass
class Arm:
    """One way to train, or to test what another has trained.

    Attributes:
        about: What it changes, for the table.
        parts: Config files whose own keys, without their ``_BASE_``, are laid over the base, in this order.
        start: Name of a checkpoint in the plan's ``starts``; empty: that of ``over`` or ``of``, or random weights.
        datasets: Names in the plan's ``datasets``, to train on beside those of the split.
        against: The arm that it is compared with; empty: ``over`` or ``of``, or none.
        final: Carried out once more with the whole training split and measured on val, for every seed.
        plain: Detectron2's own mapper instead of ours.
        over: An arm above it, whose parts, start and data sets this one takes on; empty: none.
        of: The same, but the weights are that arm's too, measured once more with other keys of the test; empty: it
            trains its own.
    """

    about: str
    parts: list[str] = field(default_factory=list)
    start: str = ""
    datasets: list[str] = field(default_factory=list)
    against: str = ""
    final: bool = False
    plain: bool = False
    over: str = ""
    of: str = ""

    @property
    def needs(self) -> list[str]:
        """Names of the data sets and the start that it is trained with."""
        return [*self.datasets, *([self.start] if self.start else [])]


@dataclass
class Plan:
    """A whole ablation.

    Attributes:
        configs: Folder of the config files, relative to the plan's file.
        base: Config file that all arms share.
        dataset: Prefix of the data sets; ``DATASET_foldN_train`` and ``_val`` are a fold, ``DATASET_train`` and
            ``_val`` the split that is reported once.
        prepare: Importer and options with which ``tools/prepare_dataset.py`` makes a data set of the source.
        folds: Patients held out, a list for each fold.
        arms: By name, in the order in which they are trained; those of another are measured after these.
        same: Patients of the source that are one: the name that stands for it, by the other.
        seeds: Of the final arms; folds use the first.
        settings: Keys over the base, for all arms: iterations, pixels, rates.
        reduced: More such keys, for a run without a GPU; it takes the first fold alone.
        reduced_final: Keys over ``reduced`` for the final arms on val: they are few, and can be trained longer.
        datasets: Further training data sets by the name in ``DATASETS.TRAIN``.
        starts: Checkpoints by name. In a reduced run the first fold's serve val too: they saw less, and nothing of val.
    """

    configs: str
    base: str
    dataset: str
    prepare: list[str]
    folds: list[list[str]]
    arms: dict[str, Arm]
    same: dict[str, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [1])
    settings: dict[str, Any] = field(default_factory=dict)
    reduced: dict[str, Any] = field(default_factory=dict)
    reduced_final: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, Made] = field(default_factory=dict)
    starts: dict[str, Made] = field(default_factory=dict)


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Returns:
        The plan; its folder of configs is absolute.

    Raises:
        ConfigError: The file is missing or broken, names a key, a file, an arm, a start or a data set that is not
            there, or has an arm of another that cannot be.
    """
    try:
        schema = OmegaConf.structured(Plan)
        plan = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(path)))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, TypeError) as error:
        key = getattr(error, "full_key", None)
        reason = (f"{key}: " if key else "") + next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(path, found=reason, expected="a plan", remedy="see tools/ablation.yaml") from error
    assert isinstance(plan, Plan)
    plan.configs = str((path.parent / plan.configs).resolve())
    _check_made(plan, path)
    _check_names(plan, path)
    for name, arm in plan.arms.items():
        if lower := arm.over or arm.of:
            plan.arms[name] = _lay_over(plan.arms[lower], arm)
    return plan


def _lay_over(lower: Arm, arm: Arm) -> Arm:
    return replace(
        arm,
        parts=[*lower.parts, *arm.parts],
        start=arm.start or lower.start,
        datasets=[*lower.datasets, *arm.datasets],
        against=arm.against or arm.over or arm.of,
        plain=arm.plain or lower.plain,
    )


def _check_made(plan: Plan, path: Path) -> None:
    """Refuse a data set or a start that needs what is not above it, or whose braces stand for nothing."""
    known: list[str] = []
    for name, made in [*plan.datasets.items(), *plan.starts.items()]:
        if name in known or name in _PLACEHOLDERS:
            found = f"{name} as a start and as a data set" if name in known else f"{name} as a name"
            raise ConfigError(
                path, found=found, expected=f"none of {', '.join([*_PLACEHOLDERS, *known])}", remedy="rename it"
            )
        for one in made.needs:
            if one not in known:
                found, expected = f"needs of {name}: {one}, which is not above it", ", ".join(known) or "none"
                raise ConfigError(path, found=found, expected=expected, remedy="move it up, or correct its name")
        in_path = ("split",) if name in plan.starts else _PLACEHOLDERS
        _check_braces([made.path], in_path, f"path of {name}", path)
        _check_braces([part for command in made.make for part in command], (*_PLACEHOLDERS, *made.needs), name, path)
        known.append(name)


def _check_braces(texts: Sequence[str], known: Sequence[str], where: str, path: Path) -> None:
    for text in texts:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
        except ValueError as error:
            raise ConfigError(path, found=f"{text} in {where}", expected="pairs of braces", remedy="mend it") from error
        if wrong := [field for field in fields if field not in known]:
            found, expected = f"{{{wrong[0]}}} in {where}", ", ".join(known)
            raise ConfigError(path, found=found, expected=expected, remedy="add it to needs, or correct it")


def _check_names(plan: Plan, path: Path) -> None:
    above: list[str] = []
    for name, arm in plan.arms.items():
        for part in [plan.base, *arm.parts]:
            if not Path(plan.configs, part).is_file():
                found = f"part {part} in arm {name}"
                raise ConfigError(path, found=found, expected=f"a file in {plan.configs}", remedy="correct its name")
        named: list[tuple[str, Sequence[str], Collection[str]]] = [
            ("over", [arm.over], above),
            ("of", [arm.of], above),
            ("against", [arm.against], plan.arms),
            ("start", [arm.start], plan.starts),
            ("data set", arm.datasets, plan.datasets),
        ]
        for key, wanted, known in named:
            if missing := [one for one in wanted if one and one not in known]:
                found = f"{key} {missing[0]} in arm {name}"
                where = "an arm above it: " if known is above else ""
                expected = f"{where}{', '.join(known) or 'none'}"
                raise ConfigError(path, found=found, expected=expected, remedy="correct its name")
        if arm.of:
            _check_measured(name, arm, plan.arms[arm.of], path)
        above.append(name)
    if len(set(plan.seeds)) < len(plan.seeds) or not plan.seeds:
        raise ConfigError(path, found=f"seeds {plan.seeds}", expected="one or more, each once", remedy="correct them")


def _check_measured(name: str, arm: Arm, trained: Arm, path: Path) -> None:
    """Refuse an arm of another that says how to train, or of whose weights there are none."""
    cases = [
        (arm.over, f"over {arm.over}", "one of both", "take one out"),
        (arm.start, f"start {arm.start}", f"none, since its weights are {arm.of}'s", "take it out"),
        (arm.plain, "plain", f"no mapper of its own, since its weights are {arm.of}'s", "take it out"),
        (trained.of, f"{arm.of} itself of {trained.of}", "an arm that is trained", f"name {trained.of}"),
        (arm.final and not trained.final, "final", f"{arm.of} final too", f"make {arm.of} final"),
    ]
    for is_so, found, expected, remedy in cases:
        if is_so:
            raise ConfigError(path, found=f"arm {name} of {arm.of}, {found}", expected=expected, remedy=remedy)
