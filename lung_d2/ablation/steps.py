"""What an ablation makes before it trains, and the marks that say what each was made from."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from lung_d2.ablation.folds import dataset_of, split_rows
from lung_d2.ablation.plan import Made, Plan
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.errors import ConfigError, DatasetError, LungD2Error
from lung_d2.files import hash_identity, write_text

Command = tuple[str, ...]


@dataclass(frozen=True)
class Step(ABC):
    """Something to make.

    Attributes:
        commands: Scripts in ``tools/`` with their arguments, in order.
        result: The file that is there once they have ended.
        mark: What it is made from.
    """

    commands: tuple[Command, ...]
    result: Path
    mark: str

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """Whether it is still to be made."""

    def carry_out(self, tools: Path) -> None:
        """Make it, with the scripts in a folder.

        Raises:
            LungD2Error: A script failed.
        """
        for script, *arguments in self.commands:
            status = subprocess.run([sys.executable, str(tools / script), *arguments], check=False).returncode
            if status:
                raise LungD2Error(f"tools/{script}", found=f"exit status {status}", remedy="see its message above")


@dataclass(frozen=True)
class Preparation(Step):
    """A data set of a split, made again where it was made from something else; its result is the file of its mark."""

    @property
    def is_due(self) -> bool:
        """Whether the mark is not there, or says something else."""
        return not self.result.is_file() or self.result.read_text(encoding="utf-8") != self.mark

    def carry_out(self, tools: Path) -> None:
        """Make it, then write its mark."""
        super().carry_out(tools)
        write_text(self.mark, self.result)


@dataclass(frozen=True)
class Making(Step):
    """A data set or a start of the plan, whose commands may take up what they find in their folders.

    So its mark is written, beside it, before they begin, and what was made or begun from something else is refused.
    What is there without a mark is taken as it is: a user may put a start there, and nothing tells it from one that an
    earlier version made.

    Attributes:
        together: All that the plan makes by the same commands, itself too.
    """

    together: tuple[Path, ...] = ()

    @property
    def mark_file(self) -> Path:
        """The file of its mark."""
        return _mark_file(self.result)

    @property
    def is_unmarked(self) -> bool:
        """Whether it is there, and nothing says what made it."""
        return bool(self.commands) and self.result.is_file() and not self.mark_file.is_file()

    @property
    def is_due(self) -> bool:
        """Whether it is not there.

        Raises:
            DatasetError: The plan does not say how to make it.
            ConfigError: It was made or begun from something else, or was begun and has no mark.
        """
        there = self.result.is_file()
        if not there and not self.commands:
            expected = "a file that the plan says how to make"
            raise DatasetError(self.result, found="not there", expected=expected, remedy="make it")
        if self.commands and self.mark_file.is_file():
            self._check_mark(_read_mark(self.result))
        elif not there:
            self._check_not_begun()
        return not there

    def _check_mark(self, found: str) -> None:
        if found != self.mark:
            before, now = _first_difference(found.split(), self.mark.split())
            remedy = f"delete it, {self.mark_file.name} and all that its commands wrote, to make it again"
            raise ConfigError(self.result, found=f"made from {before}", expected=now, remedy=remedy)

    def _check_not_begun(self) -> None:
        begun = self.result.with_name("last_checkpoint")  # Detectron2's name, of what a training would take up
        others = [path for path in self.together if path.is_file() and _read_mark(path) != self.mark]
        for left in [*others, *([begun] if begun.is_file() else [])]:
            found = f"not there, but {left.name} is, and nothing says what made that"
            remedy = "delete all that its commands wrote, to make it again"
            raise ConfigError(self.result, found=found, expected=self.mark_file.name, remedy=remedy)

    def carry_out(self, tools: Path) -> None:
        """Write its mark, then make it."""
        for path in self.together:
            write_text(self.mark, _mark_file(path))
        super().carry_out(tools)


def _mark_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.made")


def _read_mark(path: Path) -> str:
    """Return what something was made from; empty: nothing says so."""
    mark_file = _mark_file(path)
    return mark_file.read_text(encoding="utf-8") if mark_file.is_file() else ""


def _first_difference(before: list[str], now: list[str]) -> tuple[str, str]:
    """Return the first words that differ, each after the one before it, which names a key."""
    pairs = zip_longest(before, now)
    first = next((number for number, (one, other) in enumerate(pairs) if one != other), 0)
    words = slice(max(first - 1, 0), first + 1)
    return " ".join(before[words]), " ".join(now[words])


@dataclass(frozen=True)
class Workshop:
    """Where data sets and starts are made for the runs of a split.

    Attributes:
        plan: The plan.
        split: The split whose training slices they may have seen.
        source: Folder of the data, with ``split.csv``.
    """

    plan: Plan
    split: str
    source: Path

    def step(self, name: str) -> Making:
        """Return the step that makes a data set or a start of the plan."""
        made = self._known[name]
        commands = self._commands(made)
        together = tuple(self._path(one) for one in self._known.values() if self._commands(one) == commands)
        return Making(commands, self._path(made), self._mark(name), together)

    def needs(self, name: str) -> list[str]:
        """Return what the commands of a data set or a start take."""
        return self._known[name].needs

    @property
    def _known(self) -> dict[str, Made]:
        return self.plan.datasets | self.plan.starts

    @property
    def _names(self) -> Mapping[str, str]:
        return {
            "split": self.split,
            "train": f"{dataset_of(self.plan.dataset, self.split)}_train",
            "data": str(self.source),
            "datasets": str(datasets_root() / DATASETS_FOLDER),
        }

    def _path(self, made: Made) -> Path:
        return Path(made.path.format(**self._names))

    def _commands(self, made: Made, **places: str) -> tuple[Command, ...]:
        names = {**self._names, **places}
        names |= {need: self._known[need].path.format(**names) for need in made.needs}
        return tuple(tuple(part.format(**names) for part in command) for command in made.make)

    def _mark(self, name: str) -> str:
        """Say what it is made from: its commands, the split where they take it, and all that it needs."""
        made = self._known[name]
        places = {"data": "{data}", "datasets": "{datasets}"}  # both may move
        lines = [" ".join(command) for command in self._commands(made, **places)]
        if any(field in part for command in made.make for part in command for field in ("{split}", "{train}")):
            lines.append(f"split {hash_identity('split', split_rows(self.plan, self.split, self.source))}")
        return "\n".join([*lines, *(f"{need}: {self._mark(need)}" for need in made.needs)])
