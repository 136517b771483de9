"""DICOM series with mask volumes in NIfTI, a folder for each case; or one such folder.

::

    ROOT/CASE/.../*.dcm                            one CT series (any file names, any depth)
    ROOT/CASE/.../ground_glass_opacity.nii.gz      a mask named by its category, or
    ROOT/CASE/.../anything.nii.gz                  a label map, with a table of its labels

A case holds one CT series. One without a mask is an error, or on request a case without lesions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES, Category, category_by_name
from lung_d2.ct import CTSeries, find_series, load_series
from lung_d2.ct.headers import is_dicom, nifti_suffix
from lung_d2.ct.identity import hash_identity
from lung_d2.ct.labels import labels_on_grid, read_label_volume
from lung_d2.ct.volume import CTVolume
from lung_d2.data.annotations import connected_components, split_by_value
from lung_d2.data.dataset import AnnotatedSlice, Case, fingerprint_files
from lung_d2.errors import DatasetError, GeometryError, SeriesChoiceError

INSTANCE_KINDS = {"components": connected_components, "values": split_by_value}


PATIENT_SOURCES = ("id", "folder")
_DICOMDIR = "DICOMDIR"  # the index of a medium (PS3.10), which holds no image


def find_dicom_mask_cases(
    root: Path,
    labels: Mapping[int, Category | None],
    instances: str = "components",
    *,
    patients_from: str = "id",
    allow_unannotated: bool = False,
) -> list[Case]:
    """Find the cases under ``root``.

    Args:
        root: Folder of case folders, or one case folder.
        labels: Category of each label of a label map, None to leave it out; masks named by a category do not use it.
        instances: ``"components"``: connected parts of a slice are lesions; ``"values"``: each value of a mask named
            by its category is one lesion, even where lesions touch.
        patients_from: ``"id"``: the patient is that of the DICOM header; ``"folder"``: each case folder is a patient,
            for series whose ids are all the same.
        allow_unannotated: Take a series without a mask as a case without lesions.

    Returns:
        The cases, sorted by folder name.

    Raises:
        DatasetError: The folder is missing, or a case has no mask and may not be without.
        InputError: A case has no CT series, or a broken one.
        SeriesChoiceError: A case has several.
    """
    if not root.is_dir():
        raise DatasetError(root, found="no such folder", expected="a folder of cases", remedy="correct the path")
    cases = []
    for folder in _case_folders(root):
        series, masks = _find_series(folder), _mask_files(folder)
        if not masks and not allow_unannotated:
            raise DatasetError(
                folder,
                found="no mask (.nii or .nii.gz)",
                expected="one or more",
                remedy="add the masks, or give --allow-unannotated to take it as a case without lesions",
            )
        name = folder.resolve().name
        cases.append(
            Case(
                name=name,
                patient=series.patient_hash if patients_from == "id" else hash_identity("patient", name),
                series=series.series_hash,
                load=partial(_load_case, folder, masks, dict(labels), instances),
                contiguous=True,
                fingerprint=fingerprint_files([*(header.path for header in series.headers), *masks]),
            )
        )
    return cases


def _case_folders(root: Path) -> list[Path]:
    """Return the folders in ``root`` that hold DICOM or masks; or ``root`` where it is itself a case.

    It is where such files lie in it directly, or where its folders hold either DICOM or masks, but none holds both.
    """
    entries = sorted(root.iterdir())
    folders = [path for path in entries if path.is_dir()]
    dicom = {path for path in folders if any(map(_is_image, path.rglob("*")))}
    masks = {path for path in folders if _mask_files(path)}
    lie_here = any(_is_image(path) or _is_mask(path) for path in entries)
    if lie_here or not dicom or (masks and not dicom & masks):
        return [root]
    return sorted(dicom | masks)


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.upper() != _DICOMDIR and is_dicom(path)


def _is_mask(path: Path) -> bool:
    return bool(nifti_suffix(path)) and path.is_file()


def _mask_files(folder: Path) -> list[Path]:
    return sorted(filter(_is_mask, folder.rglob("*")))


def _find_series(folder: Path) -> CTSeries:
    series = find_series(folder)
    if len(series) != 1:
        raise SeriesChoiceError(
            folder, found=f"{len(series)} CT series", expected="one in each case", remedy="one folder for each series"
        )
    return series[0]


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
        raise error.at(path) from error
    stem = path.name[: -len(nifti_suffix(path))]
    if stem in {category.name for category in CATEGORIES}:
        return [(category_by_name(stem), values)]
    present = [int(value) for value in np.unique(values) if value != 0]
    unknown = [value for value in present if value not in labels]
    if unknown:
        raise DatasetError(
            path,
            found=f"label(s) {unknown} without a category",
            expected="a file named by its category, or a table of labels",
            remedy=f"give --label {unknown[0]}=CATEGORY, or --label {unknown[0]}=background",
        )
    return [
        (category, (values == value).astype(np.uint8))
        for value, category in labels.items()
        if category and value in present
    ]
