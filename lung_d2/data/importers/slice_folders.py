"""Folders of slices and of masks: pictures of one name in each.

::

    ROOT/IMAGES/0001.png      8-bit grey levels (no HU)
    ROOT/MASKS/0001.png       0 outside; 255, 1 or any label inside a lesion of the folder's category; of JPEG, which
                              blurs, above 127
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.ct.identity import hash_identity
from lung_d2.data.annotations import connected_components
from lung_d2.data.dataset import AnnotatedSlice, Case, fingerprint_files
from lung_d2.data.planes import PICTURES, is_jpeg, list_pictures, read_picture
from lung_d2.errors import DatasetError

_JPEG_INSIDE = 127


def find_slice_cases(images: Path, masks: Mapping[Path, Category], patient_of: Mapping[str, str]) -> list[Case]:
    """Find the slices and group them by patient.

    Args:
        images: Folder of pictures.
        masks: Category of each mask folder; a picture without a mask there has no lesion of it.
        patient_of: Patient of each picture's file name.

    Returns:
        One case for each patient; its slices are in file-name order and make no neighbours.

    Raises:
        DatasetError: A folder is missing or empty, a picture has no patient, or masks have no picture.
    """
    for folder in (images, *masks):
        if not folder.is_dir():
            raise DatasetError(
                folder, found="no such folder", expected="a folder of pictures", remedy="correct the path"
            )
    files = list_pictures(images)
    if not files:
        raise DatasetError(images, found="no picture", expected=", ".join(sorted(PICTURES)), remedy="correct the path")
    _check_masks(files, masks)
    masks_of = {folder: {path.stem: path for path in list_pictures(folder)} for folder in masks}
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.name not in patient_of:
            raise DatasetError(
                path, found="no patient", expected="one for each picture", remedy="add it to --split-file or --patients"
            )
        groups[patient_of[path.name]].append(path)
    return [
        Case(
            name=f"slices of {hash_identity('patient', patient)}",
            patient=patient,
            series=hash_identity("series", patient),
            load=partial(_load_slices, members, dict(masks)),
            contiguous=False,
            fingerprint=fingerprint_files([*members, *_masks_of(members, masks_of)]),
        )
        for patient, members in sorted(groups.items())
    ]


def patients_by_pattern(images: Path, pattern: str) -> dict[str, str]:
    """Take the patient of each picture from its file name: what the first group of a regular expression matches.

    Raises:
        DatasetError: The pattern is broken, or a name does not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"--patients {pattern!r}", found=str(error), remedy="correct the expression") from error
    result = {}
    for path in list_pictures(images) if images.is_dir() else []:
        match = compiled.search(path.name)
        if not match or not match.groups():
            raise DatasetError(path, found=f"no match of {pattern!r}", expected="a group", remedy="correct --patients")
        result[path.name] = match.group(1)
    return result


def _masks_of(files: list[Path], masks: Mapping[Path, Mapping[str, Path]]) -> list[Path]:
    return [by_stem[path.stem] for by_stem in masks.values() for path in files if path.stem in by_stem]


def _check_masks(files: list[Path], masks: Mapping[Path, Category]) -> None:
    stems = {path.stem for path in files}
    for folder in masks:
        found = list_pictures(folder)
        orphans = sorted(path.name for path in found if path.stem not in stems)
        if not found or orphans:
            finding = f"{len(orphans)} mask(s) without a picture, {orphans[0]} first" if orphans else "no mask"
            raise DatasetError(
                folder, found=finding, expected="masks named as the pictures", remedy="rename or remove them"
            )


def _load_slices(files: list[Path], masks: dict[Path, Category]) -> Iterator[AnnotatedSlice]:
    by_stem = {folder: {path.stem: path for path in list_pictures(folder)} for folder in masks}
    for index, path in enumerate(files):
        plane = read_picture(path)
        lesions = []
        for folder, category in masks.items():
            if path.stem in by_stem[folder]:
                mask = _read_mask(by_stem[folder][path.stem], plane.shape)
                lesions += [(category, part) for part in connected_components(mask)]
        yield AnnotatedSlice(plane=plane, instances=tuple(lesions), slice_index=index)


def _read_mask(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    values = read_picture(path, expected="an 8-bit mask in grey levels")
    if values.shape != shape:
        raise DatasetError(
            path, found=f"size {values.shape}", expected=f"{shape}, its slice's", remedy="resize the mask"
        )
    if not is_jpeg(path):
        return values != 0
    if 0 < values.max() <= _JPEG_INSIDE:
        raise DatasetError(
            path,
            found=f"a JPEG mask of levels up to {values.max()}",
            expected="0 and 255: JPEG blurs labels away",
            remedy="write it as PNG",
        )
    return values > _JPEG_INSIDE
