"""DICOM series with mask volumes in NIfTI, a folder for each case.

::

    ROOT/CASE/.../*.dcm                            one CT series (any file names, any depth)
    ROOT/CASE/.../ground_glass_opacity.nii.gz      a mask named by its category, or
    ROOT/CASE/.../anything.nii.gz                  a label map, with a table of its labels

Several series in a case: each mask must then fit the one that is taken by its UID, so give the case one series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES, Category, category_by_name
from lung_d2.ct import find_series, load_series
from lung_d2.ct.nifti import labels_on_grid, read_label_volume
from lung_d2.ct.volume import CTVolume
from lung_d2.data.annotations import connected_components, split_by_value
from lung_d2.data.dataset import AnnotatedSlice, Case
from lung_d2.errors import DatasetError, GeometryError, SeriesChoiceError

_MASK_ENDINGS = (".nii", ".nii.gz")
INSTANCE_KINDS = {"components": connected_components, "values": split_by_value}


def find_dicom_mask_cases(
    root: Path, labels: Mapping[int, Category | None], instances: str = "components"
) -> list[Case]:
    """Find the cases under ``root``.

    Args:
        root: Folder of case folders, or one case folder.
        labels: Category of each label of a label map, None to leave it out; masks named by a category do not use it.
        instances: ``"components"``: connected parts of a slice are lesions; ``"values"``: each value of a mask named
            by its category is one lesion, even where lesions touch.

    Returns:
        The cases, sorted by folder name.

    Raises:
        DatasetError: The folder is missing, or a case has no mask.
        InputError: A case has no CT series, or a broken one.
        SeriesChoiceError: A case has several.
    """
    if not root.is_dir():
        raise DatasetError(root, found="no such folder", expected="a folder of cases", remedy="correct the path")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and _mask_files(path))
    if not folders:
        folders = [root]
    return [_find_case(folder, dict(labels), instances) for folder in folders]


def _mask_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name.endswith(_MASK_ENDINGS) and path.is_file())


def _find_case(folder: Path, labels: dict[int, Category | None], instances: str) -> Case:
    masks = _mask_files(folder)
    if not masks:
        raise DatasetError(folder, found="no mask (.nii or .nii.gz)", expected="one or more", remedy="add the masks")
    series = find_series(folder)
    if len(series) != 1:
        raise SeriesChoiceError(
            folder, found=f"{len(series)} CT series", expected="one in each case", remedy="one folder for each series"
        )
    return Case(
        name=folder.name,
        patient=series[0].patient_hash,
        series=series[0].series_hash,
        load=partial(_load_case, folder, masks, labels, instances),
        contiguous=True,
    )


def _load_case(
    folder: Path, masks: list[Path], labels: dict[int, Category | None], instances: str
) -> Iterator[AnnotatedSlice]:
    volume = load_series(find_series(folder)[0])
    maps = [entry for path in masks for entry in _read_maps(path, volume, labels)]
    for index, plane in enumerate(volume.hu):
        lesions = [(category, part) for category, values in maps for part in INSTANCE_KINDS[instances](values[index])]
        yield AnnotatedSlice(
            plane=plane,
            instances=tuple(lesions),
            slice_index=index,
            pixel_spacing_mm=(volume.spacing_mm[1], volume.spacing_mm[2]),
            slice_position_mm=float(volume.slice_positions_mm[index]),
        )


def _read_maps(
    path: Path, volume: CTVolume, labels: dict[int, Category | None]
) -> list[tuple[Category, npt.NDArray[np.integer]]]:
    labels_read = read_label_volume(path)
    try:
        values = labels_on_grid(labels_read, volume)
    except GeometryError as error:
        raise GeometryError(path, found=error.found, expected=error.expected, remedy=error.remedy) from error
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    if stem in {category.name for category in CATEGORIES}:
        return [(category_by_name(stem), values)]
    present = [int(value) for value in np.unique(values) if value != 0]
    unknown = [value for value in present if value not in labels]
    if unknown:
        raise DatasetError(
            path,
            found=f"label(s) {unknown} without a category",
            expected="a file named by its category, or a table of labels",
            remedy=f"give --label {unknown[0]}=CATEGORY, or --label {unknown[0]}=ignore",
        )
    return [
        (category, (values == value).astype(np.uint8))
        for value, category in labels.items()
        if category and value in present
    ]
