"""The lungs and lobes of a volume: found in it, or read from what another tool made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.ct.headers import VOLUME_SUFFIXES, show_uid
from lung_d2.ct.volume import CTVolume
from lung_d2.data.importers.volume_cases import read_labels_on
from lung_d2.errors import InputError
from lung_d2.lesions.lobes import LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES, LobeField, build_lobe_field
from lung_d2.lungs.field import LungField, find_lungs
from lung_d2.recognition.settings import LabelFiles

logger = logging.getLogger(__name__)

FOUND, GIVEN, OF_LOBES = "found in the CT", "a label volume that was given", "the lobes that were given"
_HIGHEST_LUNG = 2


@dataclass(frozen=True, eq=False)
class Fields:
    """Lungs and lobes on the grid of a volume.

    Attributes:
        lungs: Empty where none were found.
        lobes: None where none are given.
        lungs_from: Where the lungs are from, in a few words.
        lobes_from: The same of the lobes; empty without them.
    """

    lungs: LungField
    lobes: LobeField | None
    lungs_from: str
    lobes_from: str


def find_fields(volume: CTVolume, files: LabelFiles | None = None) -> Fields:
    """Find or read lungs and lobes.

    Args:
        volume: The CT.
        files: Label volumes that replace what is found.

    Raises:
        InputError: A label volume cannot be read, lies on another grid, or has other values.
    """
    files = files or LabelFiles()
    lobes = None
    if files.lobes is not None:
        path = choose_label_file(files.lobes, volume)
        lobes = _read_lobes(path, volume, files.lobe_values)
    if files.lungs is not None:
        lungs, source = _read_lungs(choose_label_file(files.lungs, volume), volume), GIVEN
    elif lobes is not None:
        lungs, source = LungField(lobes.lung_labels(), volume.spacing_mm), OF_LOBES
    else:
        lungs, source = find_lungs(volume), FOUND
    if not lungs.labels.any():
        logger.warning("no lungs found: all slices are run whole")
    return Fields(lungs, lobes, source, GIVEN if lobes else "")


def choose_label_file(path: Path, volume: CTVolume) -> Path:
    """Return the label volume of a series: the file itself, or that of a folder which its UID or hash names.

    Raises:
        InputError: The folder has none, or several.
    """
    if not path.is_dir():
        return path
    uid = volume.series_instance_uid
    names = [volume.series_hash, *([uid] if uid and show_uid(uid) == uid else [])]
    found = [path / f"{name}{suffix}" for name in names for suffix in VOLUME_SUFFIXES]
    found = [file for file in found if file.is_file()]
    if len(found) != 1:
        raise InputError(
            path,
            found=f"{len(found)} label volumes of series {' or '.join(names)}",
            expected="one, named by that",
            remedy=f"add it, as {names[-1]}.nii.gz" if not found else "remove all but one",
        )
    return found[0]


def _read_lungs(path: Path, volume: CTVolume) -> LungField:
    labels = read_labels_on(path, volume)
    highest = int(labels.max())
    if highest > _HIGHEST_LUNG:
        raise InputError(
            path,
            found=f"labels up to {highest}",
            expected="1 right lung, 2 left lung",
            remedy="give those, or the lobes as lobes",
        )
    return LungField(labels.astype(np.uint8), volume.spacing_mm)


def _read_lobes(path: Path, volume: CTVolume, values: str) -> LobeField:
    labels = read_labels_on(path, volume)
    table = {"lungmask": LUNGMASK_LOBES, "totalsegmentator": TOTALSEGMENTATOR_LOBES}.get(values) or _guess(path, labels)
    try:
        return build_lobe_field(labels, table)
    except InputError as error:
        raise error.at(path) from error


def _guess(path: Path, labels: npt.NDArray[np.unsignedinteger[Any]]) -> Mapping[int, str]:
    """Tell by the values whose they are: lungmask has no others, TotalSegmentator those of other organs too."""
    present = {value for plane in labels for value in np.flatnonzero(np.bincount(plane.ravel())).tolist()} - {0}
    if present <= LUNGMASK_LOBES.keys():
        return LUNGMASK_LOBES
    if present & TOTALSEGMENTATOR_LOBES.keys():
        return TOTALSEGMENTATOR_LOBES
    raise InputError(
        path,
        found="labels of neither lungmask's nor TotalSegmentator's lobes",
        expected="1 to 5, or 10 to 14",
        remedy="give the lobes in one of these forms",
    )
