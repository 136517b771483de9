"""The interface of all importers, and the list of them.

An importer is a module with an :class:`Importer` named ``IMPORTER``. To add one here, write its module and add one line
to ``_BUILT_IN``: its subcommand, options and help follow. A package of yours adds one by the entry point group
``lung_d2.data.importers``, without a change here::

    [project.entry-points."lung_d2.data.importers"]
    my-tool = "my_package.lung_d2_importer:IMPORTER"
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from lung_d2.data.cases import Case
from lung_d2.data.instances import COMPONENTS, InstanceRule
from lung_d2.data.labels import LabelTable
from lung_d2.errors import ConfigError, DatasetError
from lung_d2.files import hash_identity

ENTRY_POINTS = "lung_d2.data.importers"
_BUILT_IN = (
    "dicom.dicom_masks",
    "hug_ild",
    "volumes.label_volumes",
    "pictures.slices",
    "volumes.slicer",
    "dicom.dicom_seg",
    "dicom.rtstruct",
    "pictures.coco",
    "pictures.labelme",
    "pictures.cvat",
)


def compile_pattern(pattern: str, option: str) -> re.Pattern[str]:
    """Compile the expression of an option; raise :class:`DatasetError` if it is malformed."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"{option} {pattern!r}", found=str(error), remedy="correct the expression") from error


@dataclass(frozen=True)
class PatientRule:
    """How the user tells patients apart.

    Attributes:
        pattern: Regular expression whose first group, in a path below the source (with ``/``), is the patient. May be
            empty.
        listed: Patient by file name or by path below the source, as a split file says.
        by_folder: Each folder that lies directly in the source (in the folder of the images, where files are the
            cases) is a patient.
    """

    pattern: str = ""
    listed: Mapping[str, str] = field(default_factory=dict)
    by_folder: bool = False

    def __post_init__(self) -> None:
        """Refuse a malformed expression."""
        compile_pattern(self.pattern, "--patients")

    def check_in_folder(self, path: Path, folder: Path) -> None:
        """Raise :class:`DatasetError` if folders tell patients apart, and a file lies directly in ``folder``."""
        if self.by_folder and not self.pattern and path.parent == folder:
            raise DatasetError(
                path,
                found="a file outside the patients' folders",
                expected=f"each in a folder of {folder}",
                remedy="sort it in, or give --patients REGEX or --split-file instead of --patients-from folder",
            )

    def patient_of(self, path: Path, source: Path, own: str | None = None) -> str:
        """Return the hash of the patient that a file or folder belongs to.

        Args:
            path: The file or folder, below ``source``.
            source: What the user gave.
            own: Hash of the patient that the source itself names, which counts if the user says nothing; or None.

        Raises:
            DatasetError: The expression does not match, or the patient is unknown.
        """
        inner = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
        if self.pattern:
            match = re.search(self.pattern, inner.as_posix())
            if not match or not match.groups() or not match.group(1):
                raise DatasetError(
                    path,
                    found=f"no match of {self.pattern!r} in {inner.as_posix()!r}",
                    expected="a first group that holds the patient",
                    remedy="correct --patients",
                )
            return hash_identity("patient", match.group(1))
        if self.by_folder:
            return hash_identity("patient", inner.parts[0] if inner.parts else source.resolve().name)
        named = self.listed.get(inner.as_posix(), self.listed.get(path.name))
        if named is not None:
            return hash_identity("patient", named)
        if own is None:
            raise DatasetError(
                path,
                found="no patient",
                expected="one for each picture",
                remedy="add it to --split-file (columns file and patient), or give --patients REGEX",
            )
        return own


@dataclass(frozen=True)
class Request:
    """The options that all importers share.

    Attributes:
        source: Folder or file of the source.
        labels: Meaning of its labels.
        rule: What one instance is.
        patients: How the user tells patients apart.
        allow_unannotated: Take a series without annotations as one without lesions, instead of refusing it.
    """

    source: Path
    labels: LabelTable = field(default_factory=LabelTable)
    rule: InstanceRule = field(default_factory=InstanceRule)
    patients: PatientRule = field(default_factory=PatientRule)
    allow_unannotated: bool = False


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


@dataclass(frozen=True)
class Importer:
    """One kind of source.

    Attributes:
        name: The subcommand.
        summary: What the source is, in a few words.
        find_cases: ``find_cases(request, *, own options) -> list[Case]``, sorted; it raises our errors. Its
            keyword-only arguments are the importer's own options, by the names that ``add_arguments`` gives them.
        add_arguments: Adds the importer's own options to a parser.
        instances: What one instance is where the user does not say, see :class:`InstanceRule`.
    """

    name: str
    summary: str
    find_cases: Callable[..., list[Case]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    instances: str = COMPONENTS

    def own_options(self, arguments: argparse.Namespace) -> dict[str, object]:
        """Pick the importer's own options from parsed arguments."""
        parameters = inspect.signature(self.find_cases).parameters.values()
        return {item.name: getattr(arguments, item.name) for item in parameters if item.kind == item.KEYWORD_ONLY}


def list_importers() -> dict[str, Importer]:
    """Return every importer by its name: the built-in ones, then those of other packages.

    Raises:
        ConfigError: An entry point is not an importer, or its name is taken.
    """
    modules = (importlib.import_module(f"lung_d2.data.importers.{name}") for name in _BUILT_IN)
    found: dict[str, Importer] = {module.IMPORTER.name: module.IMPORTER for module in modules}
    for entry in entry_points(group=ENTRY_POINTS):
        importer = entry.load()
        if not isinstance(importer, Importer) or importer.name in found:
            raise ConfigError(
                f"entry point {entry.value}",
                found="not an importer" if not isinstance(importer, Importer) else f"a second importer {importer.name}",
                expected="a lung_d2.data.importers.registry.Importer with a name of its own",
                remedy="correct the package that declares it",
            )
        found[importer.name] = importer
    return found


def name_below(folder: Path, path: Path) -> str:
    """Return the name of a file in messages: its path below the folder, with ``/``, or else its path."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def check_folder(path: Path, what: str, *, or_file: bool = False) -> None:
    """Raise :class:`DatasetError` if a folder that the user names is missing, or cannot be opened.

    Args:
        path: The folder.
        what: What it should hold.
        or_file: Whether the source may also be a file, for the message.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "no such file or folder" if or_file else "no such folder"
        expected = f"{what}, or a folder of them" if or_file else f"a folder of {what}"
        raise DatasetError(path, found=found, expected=expected, remedy="correct the path")
    if not os.access(path, os.R_OK | os.X_OK):
        raise DatasetError(path, found="a folder that cannot be opened", remedy="check its permissions")
