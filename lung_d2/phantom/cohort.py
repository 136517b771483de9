"""Write a whole cohort of phantoms; may be stopped at any moment and started again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lung_d2.errors import DatasetError
from lung_d2.phantom.dicom import RECORD_NAME, write_patient
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.presets import preset_by_name
from lung_d2.phantom.spec import PhantomSpec
from lung_d2.phantom.uids import spec_hash
from lung_d2.processes import open_pool

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class Recipe(Protocol):
    """How the folders of a cohort are made; it is pickled for other processes."""

    @property
    def spec_hash(self) -> str:
        """What decides the pictures, as hexadecimal digits; ``phantom.json`` of each folder holds it."""

    def write(self, number: int, folder: Path) -> None:
        """Write one folder."""


@dataclass(frozen=True)
class PhantomRecipe:
    """A cohort of phantoms.

    Attributes:
        spec: What they are made of.
    """

    spec: PhantomSpec

    @property
    def spec_hash(self) -> str:
        """See :func:`lung_d2.phantom.uids.spec_hash`."""
        return spec_hash(self.spec)

    def write(self, number: int, folder: Path) -> None:
        """Build and write one patient."""
        write_patient(build_patient(self.spec, number), folder, self.spec)


def write_cohort(
    preset: str | PhantomSpec, out_dir: str | Path, workers: int = 1, progress: Progress | None = None
) -> list[Path]:
    """Write the patients of a cohort, each to ``out_dir/patient_NNN``.

    A patient is written under another name first and renamed when it is whole, so that what is there is whole: a
    second run writes only what is missing.

    Args:
        preset: Name of a preset, or a spec.
        out_dir: Folder of the cohort.
        workers: Processes.
        progress: Called with the patients done and the patients in all, at the start and after each.

    Returns:
        The folders, by number of the patient.

    Raises:
        DatasetError: The folder holds a cohort of another spec, or cannot be written.
        ConfigError: There is no such preset.
    """
    spec = preset_by_name(preset) if isinstance(preset, str) else preset
    folders = [Path(out_dir) / f"patient_{number:03d}" for number in range(spec.patients)]
    return write_folders(PhantomRecipe(spec), Path(out_dir), folders, workers, progress)


def write_folders(
    recipe: Recipe, out_dir: Path, folders: list[Path], workers: int = 1, progress: Progress | None = None
) -> list[Path]:
    """Write the folders of a cohort that are missing, as :func:`write_cohort` says.

    Args:
        recipe: How each is made.
        out_dir: Folder of the cohort.
        folders: Those that it should hold, by number.
        workers: Processes.
        progress: Called with the folders done and all of them.

    Returns:
        ``folders``.

    Raises:
        DatasetError: One of them is of another cohort, or cannot be written.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        todo = [number for number, folder in enumerate(folders) if not _is_done(folder, recipe.spec_hash)]
        if progress:
            progress(len(folders) - len(todo), len(folders))
        for count, _ in enumerate(_write_all(recipe, folders, todo, workers), start=len(folders) - len(todo) + 1):
            if progress:
                progress(count, len(folders))
    except OSError as error:
        raise DatasetError(
            out_dir, found=error.strerror or type(error).__name__, remedy="give a folder with free space"
        ) from error
    logger.info("%d phantom series in %s, %d of them new", len(folders), out_dir, len(todo))
    return folders


def _is_done(folder: Path, wanted: str) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))["spec_hash"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = "none"
    if found != wanted:
        raise DatasetError(
            folder, found="files of another cohort", expected="a free place", remedy="remove it or take another folder"
        )
    return True


def _write_all(recipe: Recipe, folders: list[Path], todo: list[int], workers: int) -> Iterator[int]:
    """Yield the number of each folder once it is written."""
    if workers <= 1 or len(todo) <= 1:
        for number in todo:
            yield _write_one(recipe, number, folders[number])
        return
    with open_pool(min(workers, len(todo))) as pool:
        for job in as_completed([pool.submit(_write_one, recipe, number, folders[number]) for number in todo]):
            yield job.result()


def _write_one(recipe: Recipe, number: int, folder: Path) -> int:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        recipe.write(number, temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return number
