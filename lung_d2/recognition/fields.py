"""The lungs and lobes of a volume: found in it, or read from what another tool made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.ct.labels import find_label_file, read_labels_on
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError
from lung_d2.lesions.lobes import LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES, LobeField, build_lobe_field
from lung_d2.lungs.field import BUILTIN, LungField, choose_finder
from lung_d2.recognition.settings import LabelFiles

logger = logging.getLogger(__name__)

FOUND, GIVEN, OF_LOBES = "found in the CT", "a label volume that was given", "the lobes that were given"


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
        files: Who finds the lungs, or label volumes that replace what is found.

    Raises:
        InputError: A label volume cannot be read, lies on another grid, or has other values.
    """
    files = files or LabelFiles()
    lobes = None
    if files.lobes is not None:
        lobes = _read_lobes(find_label_file(files.lobes, volume), volume, files.lobe_values)
    if files.lungs is None and lobes is not None:
        lungs, source = LungField(lobes.lung_labels(), volume.spacing_mm), OF_LOBES
    else:
        lungs, source = choose_finder(files.lungs or BUILTIN)(volume), _describe(files.lungs)
    if not lungs.labels.any():
        logger.warning("no lungs found: all slices are run whole")
    return Fields(lungs, lobes, source, GIVEN if lobes else "")


def _describe(choice: str | Path | None) -> str:
    if isinstance(choice, Path):
        return GIVEN
    return FOUND if choice in (None, BUILTIN) else f"found by {choice}"


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
