"""Import cases in worker processes; what is done stays done when this is interrupted.

::

    STAGING/images/SERIES/0000.png         the slices
    STAGING/cases/SERIES-OPTIONS.json      the records of a case, written last
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from tqdm import tqdm

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.planes import write_plane
from lung_d2.data.quality.facts import measure_slice
from lung_d2.errors import DatasetError
from lung_d2.files import hash_content, write_json
from lung_d2.masks import build_annotation
from lung_d2.processes import open_pool

logger = logging.getLogger(__name__)

RECORD_VERSION = 2
"""Of what a record holds: one of another version is imported again."""

Record = dict[str, Any]
"""An image record of COCO with our keys; its ``annotations`` without ids, its ``facts`` and its ``source``."""


def import_cases(cases: Sequence[Case], staging: Path, workers: int) -> None:
    """Import the cases that are not done yet.

    Args:
        cases: What an importer found.
        staging: Where the data set is made.
        workers: Processes.

    Raises:
        DatasetError: A case is broken, or a worker was ended; what is done before stays.
    """
    waiting = [case for case in cases if not _case_file(staging, case).is_file()]
    if len(waiting) < len(cases):
        logger.info("%d of %d cases were done before", len(cases) - len(waiting), len(cases))
    with tqdm(total=len(cases), initial=len(cases) - len(waiting), desc="import", unit="case") as bar:
        if workers <= 1 or len(waiting) <= 1:
            for case in waiting:
                _import_case(case, staging)
                bar.update()
            return
        with open_pool(workers) as pool:
            try:
                for job in as_completed([pool.submit(_import_case, case, staging) for case in waiting]):
                    job.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise DatasetError(
                    "import",
                    found="a worker process was ended, perhaps because memory ran out",
                    remedy="start again with fewer --workers: finished cases are kept",
                ) from error


def read_records(case: Case, staging: Path, *, with_masks: bool = True) -> list[Record]:
    """Read the records of an imported case, in slice order, under the patient that it has by now.

    Args:
        case: Imported before.
        staging: Where the data set is made.
        with_masks: Keep the masks of the annotations, which are most of what a record needs in memory.
    """
    records: list[Record] = json.loads(_case_file(staging, case).read_text())
    for record in records:
        record["patient"] = case.patient
        for annotation in record["annotations"] if not with_masks else ():
            del annotation["segmentation"]
    return records


def remove_stale_cases(cases: Sequence[Case], staging: Path) -> None:
    """Remove what interrupted calls with other cases or splits have left."""
    shutil.rmtree(staging / "annotations", ignore_errors=True)
    series = {case.series for case in cases}
    for folder in (staging / "images").iterdir():
        if folder.name not in series:
            shutil.rmtree(folder)


def _case_file(staging: Path, case: Case) -> Path:
    return staging / "cases" / f"{case.series}-{_options_hash(case)}.json"


def _options_hash(case: Case) -> str:
    """Hash what an importer was asked for and of which files: a case of other options or files is done again."""
    return hash_content(f"{RECORD_VERSION}\0{_describe(case.load)}\0{case.fingerprint}")


def _describe(value: Any) -> str:
    """Say what a callable does with what, alike in every run."""
    if isinstance(value, partial):
        named = [f"{name}={_describe(one)}" for name, one in sorted(value.keywords.items())]
        return f"{_describe(value.func)}({', '.join([*map(_describe, value.args), *named])})"
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, FunctionType) else repr(value)


def _import_case(case: Case, staging: Path) -> None:
    folder = staging / "images" / case.series
    for stale in (staging / "cases").glob(f"{case.series}-*.json"):  # of other options: its images go now
        stale.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # what an import that was killed left
    folder.mkdir(parents=True)
    records = []
    for item in case.load():
        write_plane(item.plane, folder / f"{item.slice_index:04d}.png")
        records.append(_build_record(case, item))
    if not records:
        raise DatasetError(case.name, found="no slice", remedy="remove the case, or check its files")
    if case.contiguous and len(records) > 1:
        _add_neighbours(records)
    write_json(records, _case_file(staging, case))


def _build_record(case: Case, item: AnnotatedSlice) -> Record:
    annotations = [build_annotation(mask, category) for category, mask in item.instances if mask.any()]
    if item.undecided is not None and item.undecided.any():
        # Of each category: COCO evaluates category by category.
        annotations += [build_annotation(item.undecided, category, is_crowd=True) for category in case.categories]
    return {
        "file_name": f"{case.series}/{item.slice_index:04d}.png",
        "height": int(item.plane.shape[0]),
        "width": int(item.plane.shape[1]),
        "hu": bool(item.plane.dtype == np.int16),
        "pixel_spacing_mm": item.pixel_spacing_mm,
        "slice_position_mm": item.slice_position_mm,
        "slice_index": item.slice_index,
        "series": case.series,
        "annotations": annotations,
        "facts": measure_slice(item),
        "source": item.name or f"{case.name} slice {item.slice_index}",
    }


def _add_neighbours(records: list[Record]) -> None:
    names = [record["file_name"] for record in records]
    for index, record in enumerate(records):
        record["neighbours"] = [names[max(index - 1, 0)], names[min(index + 1, len(names) - 1)]]
