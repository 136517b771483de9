"""The errors of lung_d2: each one line that names the place, the finding, the expectation and the remedy.

::

    LungD2Error
    ├── InputError           a CT file, series or volume that cannot be read rightly
    │   ├── GeometryError    positions, spacing or orientation that make no volume
    │   └── SeriesChoiceError  several series where one was asked for
    ├── OutputError          a folder or file that cannot be written
    ├── DatasetError         annotations, masks, splits or records of a data set
    ├── ConfigError          a config file or key
    ├── CheckpointError      weights that cannot be found, fetched or trusted
    ├── TrainingError        a run that cannot go on
    └── DependencyError      a package that is missing

No message may hold a patient's name, id or birth date: name files and UIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Warning:
    """Something that a reader should know before trusting a data set, an evaluation or a finding.

    Attributes:
        kind: A fixed word for programs, as ``thick_slices``.
        text: A sentence for people, without names, ids and paths of patients.
    """

    kind: str
    text: str


class LungD2Error(Exception):
    """Say in one line where something is wrong, what was found, what was expected and what to do.

    Args:
        where: The file, folder, UID, key or record that is at fault.
        found: What is there.
        expected: What should be there; may be empty where ``found`` says it all.
        remedy: What the user can do about it.
    """

    def __init__(self, where: str | Path, *, found: str, expected: str = "", remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = str(where), found, expected, remedy
        parts = [f"{where}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        parts.append(remedy)
        super().__init__(" ".join("; ".join(parts).split()))

    def at(self, where: str | Path) -> Self:
        """Return the same error at another place, for callers that know the location."""
        return type(self)(where, found=self.found, expected=self.expected, remedy=self.remedy)

    def __reduce__(self) -> tuple[Callable[..., LungD2Error], tuple[Any, ...]]:
        """Pickle by the four parts, so that an error survives the way out of a worker process."""
        return _rebuild, (type(self), self.where, self.found, self.expected, self.remedy)


def _rebuild(kind: type[LungD2Error], where: str, found: str, expected: str, remedy: str) -> LungD2Error:
    return kind(where, found=found, expected=expected, remedy=remedy)


class InputError(LungD2Error):
    """A CT file, series or volume that cannot be read rightly."""


class GeometryError(InputError):
    """Positions, spacing or orientation that make no volume."""


class SeriesChoiceError(InputError):
    """Several series where one was asked for."""


class OutputError(LungD2Error):
    """A folder or file that cannot be written."""


class DatasetError(LungD2Error):
    """Annotations, masks, splits or records of a data set that do not fit together."""


class ConfigError(LungD2Error):
    """A config file or key that cannot be used."""


class CheckpointError(LungD2Error):
    """Weights that cannot be found, fetched or trusted."""


class TrainingError(LungD2Error):
    """A training run that cannot go on."""


class DependencyError(LungD2Error, ImportError):
    """A package that is missing."""


def detectron2_missing() -> DependencyError:
    """Return the error that says how Detectron2 is installed."""
    return DependencyError(
        "detectron2",
        found="not installed",
        expected="a version of 2024 or later",
        remedy="run 'bash tools/setup.sh', or see https://detectron2.readthedocs.io/en/latest/tutorials/install.html",
    )
