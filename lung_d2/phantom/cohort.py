"""Write a cohort of phantoms; an interrupted one is completed later."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

from lung_d2.errors import DatasetError
from lung_d2.phantom.dicom import RECORD_NAME, write_patient
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.spec import PhantomSpec, preset_by_name, spec_hash
from lung_d2.processes import open_pool

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Write = Callable[[int, Path], None]


def write_cohort(
    preset: str | PhantomSpec, out_dir: str | Path, workers: int = 1, progress: Progress | None = None
) -> list[Path]:
    """Write the patients of a cohort, each to ``out_dir/patient_NNN``.

    A patient is written under a temporary name and renamed when complete: a second run writes only what is missing.

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
    _write_missing(partial(_write_phantom, spec), spec_hash(spec), folders, workers, progress)
    return folders


def _write_phantom(spec: PhantomSpec, number: int, folder: Path) -> None:
    write_patient(build_patient(spec, number), folder, spec)


def _write_missing(write: Write, digest: str, folders: list[Path], workers: int, progress: Progress | None) -> None:
    """Write the folders that are missing; those that are there must hold this digest."""
    out_dir = folders[0].parent
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        todo = [number for number, folder in enumerate(folders) if not _is_done(folder, digest)]
        if progress:
            progress(len(folders) - len(todo), len(folders))
        for count, _ in enumerate(_write_all(write, folders, todo, workers), start=len(folders) - len(todo) + 1):
            if progress:
                progress(count, len(folders))
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise DatasetError(out_dir, found=found, remedy="give a folder with free space") from error
    logger.info("%d phantom series in %s, %d of them new", len(folders), out_dir, len(todo))


def _is_done(folder: Path, wanted: str) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))["spec_hash"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = "none"
    if found != wanted:
        remedy = "remove it or give another folder"
        raise DatasetError(folder, found="files of another cohort", expected="an unused name", remedy=remedy)
    return True


def _write_all(write: Write, folders: list[Path], todo: list[int], workers: int) -> Iterator[int]:
    """Yield the number of each folder once it is written."""
    if workers <= 1 or len(todo) <= 1:
        for number in todo:
            yield _write_one(write, number, folders[number])
        return
    with open_pool(min(workers, len(todo))) as pool:
        for job in as_completed([pool.submit(_write_one, write, number, folders[number]) for number in todo]):
            yield job.result()


def _write_one(write: Write, number: int, folder: Path) -> int:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write(number, temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return number
