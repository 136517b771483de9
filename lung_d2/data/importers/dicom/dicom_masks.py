"""DICOM series with mask volumes, a folder for each case; or one such folder.

::

    ROOT/CASE/.../*.dcm                            one CT series (any file names, any depth)
    ROOT/CASE/.../ground_glass_opacity.nii.gz      a mask named by its category, or
    ROOT/CASE/.../anything.nii.gz                  a label map, with a table of its labels; or .nrrd, .mha, ...

A case holds one CT series. A case without masks is an error, or on request a case without lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lung_d2.ct import load_series
from lung_d2.ct.headers import VOLUME_SUFFIXES, volume_suffix
from lung_d2.ct.labels import read_labels_on
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import Case
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.importers.volume_cases import (
    build_volume_case,
    find_case_series,
    join_regions,
    may_be_image,
    meanings_of_values,
    regions_of_instances,
    regions_of_labels,
)
from lung_d2.data.instances import Region
from lung_d2.data.labels import LabelTable
from lung_d2.errors import DatasetError


def find_cases(request: Request) -> list[Case]:
    """Find the cases under the source.

    Returns:
        The cases, sorted by folder name.

    Raises:
        DatasetError: The folder is missing, or a case lacks its mask.
        InputError: A case has no CT series, or a broken one.
        SeriesChoiceError: A case has several.
    """
    check_folder(request.source, "cases")
    return [_build_case(folder, request) for folder in _case_folders(request.source)]


IMPORTER = Importer("dicom", "case folders with a DICOM series and mask volumes", find_cases)


def _build_case(folder: Path, request: Request) -> Case:
    series, masks = find_case_series(folder), _mask_files(folder)
    if not masks and not request.allow_unannotated:
        raise DatasetError(
            folder,
            found="no mask in it",
            expected="one or more of " + ", ".join(VOLUME_SUFFIXES),
            remedy="add the masks, or give --allow-unannotated to take it as a case without lesions",
        )
    return build_volume_case(
        folder.resolve().name,
        patient=request.patients.patient_of(folder, request.source, series.patient_hash),
        series=series.series_hash,
        read_ct=partial(load_series, series),
        read_regions=partial(_read_masks, masks, request.labels),
        request=request,
        files=[*series.files, *masks],
    )


def _case_folders(root: Path) -> list[Path]:
    """Return the folders in ``root`` that hold DICOM or masks; or ``root`` itself if it is a case.

    It is a case if such files lie directly in it, or if its folders hold either DICOM or masks, but no folder both.
    """
    entries = sorted(root.iterdir())
    folders = [path for path in entries if path.is_dir()]
    dicom = {path for path in folders if any(map(may_be_image, path.rglob("*")))}
    masks = {path for path in folders if _mask_files(path)}
    lie_here = any(may_be_image(path) or _is_mask(path) for path in entries)
    if lie_here or not dicom or (masks and not dicom & masks):
        return [root]
    return sorted(dicom | masks)


def _is_mask(path: Path) -> bool:
    return bool(volume_suffix(path)) and path.is_file()


def _mask_files(folder: Path) -> list[Path]:
    return sorted(filter(_is_mask, folder.rglob("*")))


def _read_masks(masks: Sequence[Path], labels: LabelTable, volume: CTVolume) -> Callable[[int], Sequence[Region]]:
    return join_regions([_read_mask(path, labels, volume) for path in masks])


def _read_mask(path: Path, labels: LabelTable, volume: CTVolume) -> Callable[[int], Sequence[Region]]:
    values = read_labels_on(path, volume)
    stem = path.name[: -len(volume_suffix(path))]
    if stem in labels.categories.names:
        return regions_of_instances(values, labels.categories.by_name(stem))
    return regions_of_labels(values, meanings_of_values(values, labels, path))
