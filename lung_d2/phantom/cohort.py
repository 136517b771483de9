"""Write a cohort: phantoms, or copies of one real CT with phantom lesions; an interrupted one is completed later.

All copies of a CT have one PatientID, which follows from the source's patient, so that no split by patient separates
them. Nothing else is taken from the source's headers; its pixels are, so its terms of use hold for the copies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lung_d2.ct.volume import CTVolume, read_volume
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity
from lung_d2.phantom.dicom import RECORD_NAME, write_case, write_patient
from lung_d2.phantom.insertion import INSERTED, insert_lesions
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.real_lung import RealLung, prepare_lung
from lung_d2.phantom.spec import PhantomSpec, derived_uid, preset_by_name, spec_hash
from lung_d2.processes import open_pool

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Write = Callable[[int, Path], None]

# Raise it with every change of the insertion that changes a picture.
INSERTION_VERSION = 1


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


def write_inserted_cohort(
    source: str | Path,
    out_dir: str | Path,
    spec: PhantomSpec = INSERTED,
    workers: int = 1,
    progress: Progress | None = None,
    series_uid: str | None = None,
) -> list[Path]:
    """Write ``spec.patients`` copies of a CT with phantom lesions, each to ``out_dir/copy_NNN``.

    An interrupted run is completed as in :func:`write_cohort`.

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
    digest = insertion_hash(spec, _load(str(source), series_uid).volume)
    folders = [Path(out_dir) / f"copy_{number:03d}" for number in range(spec.patients)]
    write = partial(_write_copy, str(source), series_uid, spec, digest)
    _write_missing(write, digest, folders, workers, progress)
    return folders


def insertion_hash(spec: PhantomSpec, volume: CTVolume) -> str:
    """Return 64 hexadecimal digits for the CT, the insertion and the parts of a spec that it uses."""
    used = (spec.ground_glass_opacity, spec.bronchiectasis, spec.overlap_share, spec.distractors, spec.seed)
    digest = hashlib.sha256(f"{INSERTION_VERSION} {used!r} {volume.series_hash} {volume.affine_lps.tolist()}".encode())
    digest.update(volume.hu.tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _load(source: str, series_uid: str | None) -> RealLung:
    """Read and prepare the CT, once in each process."""
    return prepare_lung(read_volume(source, series_uid))


def _write_copy(source: str, series_uid: str | None, spec: PhantomSpec, digest: str, number: int, folder: Path) -> None:
    lung = _load(source, series_uid)
    copy = insert_lesions(lung, number, spec)

    def uid(purpose: str) -> str:
        return derived_uid(f"{digest} {number} {purpose}")

    header: dict[str, Any] = {
        "PatientName": "PHANTOM^INSERTED",
        "PatientID": patient_id(lung.volume),
        "StudyID": str(number),
        "StudyDescription": "Chest CT with synthetic lesions",
        "SeriesDescription": "Phantom lesions in a real CT",
        "FrameOfReferenceUID": uid("frame of reference"),
        "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
        "DerivationDescription": "Synthetic lesions inserted; no finding of a patient",
    }
    volume = replace(
        lung.volume,
        hu=copy.hu,
        series_instance_uid=uid("series"),
        study_instance_uid=uid("study"),
        sop_instance_uids=tuple(uid(f"slice {index}") for index in range(len(copy.hu))),
        frame_numbers=(None,) * len(copy.hu),
        patient_hash=hash_identity("patient", header["PatientID"]),
        series_hash=hash_identity("series", uid("series")),
        source_files=(),
        dicom=None,
    )
    record = {
        "spec_hash": digest,
        "number": number,
        "source_series": lung.volume.series_hash,
        "lesions": [asdict(lesion) for lesion in copy.lesions],
    }
    write_case(volume, header, copy.instances, record, folder)


def patient_id(source: CTVolume) -> str:
    """Return the PatientID of all copies of all series of the source's patient; it reveals nothing about them."""
    return f"PHANTOM-{hash_identity('phantom source', source.patient_hash)[:8].upper()}"


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
