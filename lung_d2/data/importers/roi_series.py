"""Which DICOM slices texts of regions are about: folders of both, and the numbers of the slices."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pydicom

from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.data.importers.roi_text import RoiText, read_roi_text
from lung_d2.data.importers.volumes import may_be_image
from lung_d2.errors import DatasetError

_NUMBERED = re.compile(r"-(\d{1,9})$")


def list_series(source: Path) -> tuple[dict[Path, list[Path]], dict[Path, list[RoiText]]]:
    """Find folders of slices, and the texts beside them.

    Returns:
        The slices of each folder, and its texts; both sorted.

    Raises:
        DatasetError: There is no slice, a text is damaged, or lies beside no slices.
    """
    series: dict[Path, list[Path]] = {}
    found: list[RoiText] = []
    for root, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        written = [path for path in paths if path.suffix.casefold() == ".txt"]
        slices = [path for path in paths if path not in written and may_be_image(path)]
        if slices:
            series[Path(root)] = slices
        found.extend(text for text in map(read_roi_text, written) if text is not None)
    texts: dict[Path, list[RoiText]] = defaultdict(list)
    for text in found:
        # Beside its slices, or beside their folder, which is named as the text.
        folder = next((place for place in (text.path.parent, text.path.with_suffix("")) if place in series), None)
        if folder:
            texts[folder].append(text)
        elif text.contours:
            raise DatasetError(
                text.path, found="no DICOM slices beside it", expected="those it was drawn on", remedy="add them"
            )
    if not series:
        raise DatasetError(source, found="no DICOM slices", expected="folders of them", remedy="correct the path")
    return dict(sorted(series.items())), texts


def number_slices(folder: Path, files: Sequence[Path]) -> dict[int, Path]:
    """Number the slices as ``slice_number`` does.

    That is the number at the end of ``CT-1186-0004.dcm``, by which the readers published with the database open the
    file; InstanceNumber where the names have none, or begin with 0, which no ``slice_number`` does.

    Raises:
        DatasetError: Some have no number, or two the same.
    """
    found = [_NUMBERED.search(path.stem) for path in files]
    numbers = [int(match[1]) if match else None for match in found]
    if None in numbers or 0 in numbers:
        numbers = [_instance_number(path) for path in files]
    numbered = {number: path for number, path in zip(numbers, files, strict=True) if number is not None}
    if len(numbered) < len(files):
        raise DatasetError(
            folder,
            found="slices without a number, or two of one number",
            expected="names as CT-1186-0004.dcm, or an InstanceNumber in each",
            remedy="name the files so, and keep one series in a folder",
        )
    return numbered


def _instance_number(path: Path) -> int | None:
    try:
        with quiet_pydicom():
            value = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"]).InstanceNumber
            return None if value is None else int(value)
    except READ_ERRORS:
        return None
