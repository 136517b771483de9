"""Write a whole cohort of phantoms; may be stopped at any moment and started again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from lung_d2.ct.volume import CTVolume, read_volume
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity
from lung_d2.phantom.dicom import RECORD_NAME, SeriesHeader, write_case, write_patient
from lung_d2.phantom.insertion import INSERTED, InsertedCopy, insert_lesions
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.real_lung import RealLung, prepare_lung
from lung_d2.phantom.spec import PhantomSpec, derived_uid, preset_by_name, spec_hash
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
        """See :func:`lung_d2.phantom.spec.spec_hash`."""
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


# Raise it with every change of the insertion that changes a picture.
INSERTION_VERSION = 1


def insertion_hash(spec: PhantomSpec, volume: CTVolume) -> str:
    """Return 64 hexadecimal digits for the CT, the insertion and what it takes of a spec."""
    asked = (spec.ground_glass_opacity, spec.bronchiectasis, spec.overlap_share, spec.distractors, spec.seed)
    digest = hashlib.sha256(f"{INSERTION_VERSION} {asked!r} {volume.series_hash} {volume.affine_lps.tolist()}".encode())
    digest.update(volume.hu.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class InsertionRecipe:
    """Copies of a CT.

    Attributes:
        source: The CT, as :func:`lung_d2.ct.read_volume` takes it.
        series_uid: Which series of it; None where it holds one.
        spec: Number, size and evidence of the lesions, and the seed.
        spec_hash: See :func:`insertion_hash`.
    """

    source: str
    series_uid: str | None
    spec: PhantomSpec
    spec_hash: str

    def write(self, number: int, folder: Path) -> None:
        """Make and write one copy."""
        lung = _load(self.source, self.series_uid)
        copy = insert_lesions(lung, number, self.spec)
        record = {
            "spec_hash": self.spec_hash,
            "number": number,
            "source_series": lung.volume.series_hash,
            "lesions": [asdict(lesion) for lesion in copy.lesions],
        }
        volume = self._volume(lung.volume, copy)
        write_case(volume, self._header(lung.volume, number), copy.instances, record, folder)

    def _uid(self, number: int, purpose: str) -> str:
        return derived_uid(f"{self.spec_hash} {number} {purpose}")

    def _volume(self, source: CTVolume, copy: InsertedCopy) -> CTVolume:
        series = self._uid(copy.number, "series")
        return replace(
            source,
            hu=copy.hu,
            series_instance_uid=series,
            study_instance_uid=self._uid(copy.number, "study"),
            sop_instance_uids=tuple(self._uid(copy.number, f"slice {index}") for index in range(len(copy.hu))),
            frame_numbers=(None,) * len(copy.hu),
            patient_hash=hash_identity("patient", patient_id(source)),
            series_hash=hash_identity("series", series),
            source_files=(),
            dicom=None,
        )

    def _header(self, source: CTVolume, number: int) -> SeriesHeader:
        return SeriesHeader(
            patient_name="PHANTOM^INSERTED",
            patient_id=patient_id(source),
            study_id=str(number),
            study_description="Chest CT with synthetic lesions",
            series_description="Phantom lesions in a real CT",
            frame_of_reference_uid=self._uid(number, "frame of reference"),
            image_type=("DERIVED", "PRIMARY", "AXIAL"),
            derivation="Synthetic lesions inserted; no finding of a patient",
        )


def patient_id(source: CTVolume) -> str:
    """Return the PatientID of all copies of all series of the source's patient; it tells nothing about him."""
    return f"PHANTOM-{hash_identity('phantom source', source.patient_hash)[:8].upper()}"


@lru_cache(maxsize=1)
def _load(source: str, series_uid: str | None) -> RealLung:
    """Read and prepare the CT, once in each process."""
    return prepare_lung(read_volume(source, series_uid))


def write_inserted_cohort(
    source: str | Path,
    out_dir: str | Path,
    spec: PhantomSpec = INSERTED,
    workers: int = 1,
    progress: Progress | None = None,
    series_uid: str | None = None,
) -> list[Path]:
    """Write ``spec.patients`` copies of a CT with phantom lesions, each to ``out_dir/copy_NNN``.

    It may be stopped and started again, see :func:`lung_d2.phantom.cohort.write_cohort`.

    Args:
        source: A chest CT of healthy lungs without contrast medium, as :func:`lung_d2.ct.read_volume` takes it.
        out_dir: Folder of the cohort.
        spec: Number, size and evidence of the lesions, distractors, number of copies and seed.
        workers: Processes; each holds the CT.
        progress: Called with the copies done and all of them.
        series_uid: Which series of the source, where it holds several.

    Returns:
        The folders, by number of the copy.

    Raises:
        InputError: The CT cannot be used, see :func:`lung_d2.phantom.real_lung.prepare_lung`.
        DatasetError: The folder holds another cohort, or cannot be written.
    """
    lung = _load(str(source), series_uid)
    recipe = InsertionRecipe(str(source), series_uid, spec, insertion_hash(spec, lung.volume))
    folders = [Path(out_dir) / f"copy_{number:03d}" for number in range(spec.patients)]
    return write_folders(recipe, Path(out_dir), folders, workers, progress)
