"""A prepared data set on disk: one PNG a slice and one COCO JSON a split, whole or not at all.

::

    ROOT/lung_ct/NAME/
        annotations/train.json  annotations/val.json
        images/SERIES/0000.png

An image record of the JSON holds, beside COCO's ``id``, ``file_name``, ``height`` and ``width``: ``hu`` (false where
the source had none), ``pixel_spacing_mm`` (row, column) and ``slice_position_mm`` or null, ``slice_index``,
``neighbours`` (file names of the slices before and after; the end slices repeat themselves), and the hashed
``patient`` and ``series``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lung_d2.categories import Category, coco_categories
from lung_d2.ct.identity import hash_identity
from lung_d2.data.annotations import build_annotation
from lung_d2.data.folders import create_folder, replace_folder, restore_folder
from lung_d2.data.planes import write_plane
from lung_d2.errors import DatasetError

logger = logging.getLogger(__name__)

DATASETS_FOLDER = "lung_ct"


def datasets_root(root: str | Path | None = None) -> Path:
    """Return the folder of data sets: ``root``, else ``DETECTRON2_DATASETS``, else ``datasets``; ``~`` is expanded."""
    return Path(root or os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


@dataclass(frozen=True)
class AnnotatedSlice:
    """One slice and its lesions, as every importer yields it.

    Attributes:
        plane: ``(H, W)``, int16 in HU, or uint8 grey where the source has no HU.
        instances: Category and bool ``(H, W)`` mask of each lesion.
        slice_index: 0-based, along the normal where the source has one.
        pixel_spacing_mm: Row and column spacing, or None where unknown.
        slice_position_mm: Position along the normal, or None where unknown.
    """

    plane: npt.NDArray[np.generic]
    instances: tuple[tuple[Category, npt.NDArray[np.bool_]], ...]
    slice_index: int
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_position_mm: float | None = None


@dataclass(frozen=True)
class Case:
    """One series or slice folder of one patient.

    Attributes:
        name: What error messages and the progress call it.
        patient: Hashed or anonymous id; the splits go by it.
        series: Hashed or anonymous id, fit for a folder name.
        load: Reads the slices, in order; picklable, so that worker processes can.
        contiguous: Whether neighbouring slices of the list are neighbours in the body.
        fingerprint: Of the files that it reads, see :func:`fingerprint_files`: a case whose files have changed is
            imported again.
    """

    name: str
    patient: str
    series: str
    load: Callable[[], Iterable[AnnotatedSlice]]
    contiguous: bool
    fingerprint: str = ""


def fingerprint_files(files: Iterable[Path]) -> str:
    """Hash path, size and time of change of files, without reading them.

    Raises:
        DatasetError: A file is not there.
    """
    lines = []
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise DatasetError(path, found="cannot be opened", remedy="check the path and its permissions") from error
        lines.append(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return hash_identity("files", "\n".join(lines))


def write_dataset(
    root: Path,
    name: str,
    cases: Sequence[Case],
    split_of: Mapping[str, str],
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write the cases as a data set that :func:`lung_d2.register_lung_datasets` finds.

    Finished cases are kept aside when this is interrupted, and not done again by the next call; the data set stands
    under its final name only when it is whole.

    Args:
        root: Folder of data sets (``DETECTRON2_DATASETS``).
        name: Name of the data set; its splits are registered as ``NAME_SPLIT``.
        cases: What an importer found.
        split_of: The split of each patient.
        workers: Processes that import cases.
        overwrite: Replace a data set of this name.

    Returns:
        The data set's folder.

    Raises:
        DatasetError: The name is taken or no name, a case is broken, or a patient has no split.
        OutputError: The folder cannot be created.
    """
    final = _dataset_folder(root, name)
    restore_folder(final)
    if final.exists() and not overwrite:
        raise DatasetError(final, found="a data set of this name", remedy="choose another --name, or give --overwrite")
    _check_cases(cases, split_of)
    staging = final.with_name(f".{name}.partial")
    create_folder(root)  # named in the message, where it cannot be
    create_folder(staging / "cases")
    _import_cases(cases, staging, workers)
    _remove_strangers(cases, staging)
    for split in sorted({split_of[case.patient] for case in cases}):
        members = [case for case in cases if split_of[case.patient] == split]
        _write_json(_build_coco(name, split, members, staging), staging / "annotations" / f"{split}.json")
    shutil.rmtree(staging / "cases")
    replace_folder(staging, final)
    return final


def _dataset_folder(root: Path, name: str) -> Path:
    if not name or not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise DatasetError(
            f"--name {name!r}", found="no file name", expected="letters, digits, _ - .", remedy="correct it"
        )
    return root / DATASETS_FOLDER / name


def _check_cases(cases: Sequence[Case], split_of: Mapping[str, str]) -> None:
    if not cases:
        raise DatasetError("source", found="no annotated series or slices", remedy="check the folder and its layout")
    seen: dict[str, str] = {}
    for case in cases:
        if case.series in seen:
            raise DatasetError(
                case.name, found=f"the same series as {seen[case.series]}", expected="each once", remedy="remove one"
            )
        seen[case.series] = case.name
        if case.patient not in split_of:
            raise DatasetError(case.name, found="no split for its patient", remedy="add the patient to the split file")


def _import_cases(cases: Sequence[Case], staging: Path, workers: int) -> None:
    waiting = [case for case in cases if not _case_file(staging, case).is_file()]
    if len(waiting) < len(cases):
        logger.info("%d of %d cases were done before", len(cases) - len(waiting), len(cases))
    with tqdm(total=len(cases), initial=len(cases) - len(waiting), desc="import", unit="case") as bar:
        if workers <= 1 or len(waiting) <= 1:
            for case in waiting:
                _import_case(case, staging)
                bar.update()
            return
        with ProcessPoolExecutor(workers) as pool:
            for done in as_completed([pool.submit(_import_case, case, staging) for case in waiting]):
                done.result()
                bar.update()


def _case_file(staging: Path, case: Case) -> Path:
    return staging / "cases" / f"{case.series}-{_options_hash(case)}.json"


def _options_hash(case: Case) -> str:
    """Hash what an importer was asked for and of which files: a case of other options or files is done again."""
    load = case.load
    options = repr((load.args, load.keywords)) if isinstance(load, partial) else getattr(load, "__qualname__", "")
    return hash_identity("options", f"{options}\0{case.fingerprint}")


def _remove_strangers(cases: Sequence[Case], staging: Path) -> None:
    """Remove what interrupted calls with other cases or splits have left."""
    shutil.rmtree(staging / "annotations", ignore_errors=True)
    series = {case.series for case in cases}
    for folder in (staging / "images").iterdir():
        if folder.name not in series:
            shutil.rmtree(folder)


def _import_case(case: Case, staging: Path) -> None:
    folder = staging / "images" / case.series
    for stale in (staging / "cases").glob(f"{case.series}-*.json"):  # of other options: its images go now
        stale.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # what an import that was killed left
    folder.mkdir(parents=True)
    records: list[dict[str, Any]] = []
    for item in case.load():
        write_plane(item.plane, folder / f"{item.slice_index:04d}.png")
        records.append(
            {
                "file_name": f"{case.series}/{item.slice_index:04d}.png",
                "height": int(item.plane.shape[0]),
                "width": int(item.plane.shape[1]),
                "hu": bool(item.plane.dtype == np.int16),
                "pixel_spacing_mm": item.pixel_spacing_mm,
                "slice_position_mm": item.slice_position_mm,
                "slice_index": item.slice_index,
                "patient": case.patient,
                "series": case.series,
                "annotations": [build_annotation(mask, category) for category, mask in item.instances if mask.any()],
            }
        )
    if not records:
        raise DatasetError(case.name, found="no slice", remedy="remove the case, or check its files")
    if case.contiguous and len(records) > 1:
        _add_neighbours(records)
    _write_json(records, _case_file(staging, case))


def _add_neighbours(records: list[dict[str, Any]]) -> None:
    names = [record["file_name"] for record in records]
    for index, record in enumerate(records):
        record["neighbours"] = [names[max(index - 1, 0)], names[min(index + 1, len(names) - 1)]]


def _build_coco(name: str, split: str, cases: Sequence[Case], staging: Path) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for case in cases:
        for record in json.loads(_case_file(staging, case).read_text()):
            image_id = len(images) + 1
            for annotation in record.pop("annotations"):
                annotations.append(annotation | {"id": len(annotations) + 1, "image_id": image_id})
            images.append({"id": image_id} | record)
    return {
        "info": {"description": f"{name}, {split} split, prepared by lung_d2"},
        "licenses": [],
        "categories": coco_categories(),
        "images": images,
        "annotations": annotations,
    }


def _write_json(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)
