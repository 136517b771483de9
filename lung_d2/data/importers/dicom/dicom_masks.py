"""DICOM series with mask volumes, a folder for each case; or one such folder.

::

    ROOT/CASE/.../*.dcm                            one CT series (any file names, any depth)
    ROOT/CASE/.../ground_glass_opacity.nii.gz      a mask named by its category, or
    ROOT/CASE/.../anything.nii.gz                  a label map, with a table of its labels; or .nrrd, .mha, ...

A case holds one CT series. A case without masks is an error, or on request a case without lesions.
"""

from __future__ import annotations

from pathlib import Path

from lung_d2.ct.headers import VOLUME_SUFFIXES, volume_suffix
from lung_d2.ct.labels import read_labels_on
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import Case
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.importers.volume_cases import (
    RegionsOf,
    build_series_case,
    case_folders,
    check_annotated,
    find_case_series,
    may_be_image,
    meanings_of_values,
    regions_of_instances,
    regions_of_labels,
)
from lung_d2.data.labels import LabelTable


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
    return [_build_case(folder, request) for folder in case_folders(request.source, may_be_image, _is_mask)]


IMPORTER = Importer("dicom", "case folders with a DICOM series and mask volumes", find_cases)


def _build_case(folder: Path, request: Request) -> Case:
    series, masks = find_case_series(folder), sorted(filter(_is_mask, folder.rglob("*")))
    check_annotated(folder, masks, "mask (" + ", ".join(VOLUME_SUFFIXES) + ")", request)
    return build_series_case(series, masks, _read_mask, request, folder=folder)


def _is_mask(path: Path) -> bool:
    return bool(volume_suffix(path)) and path.is_file()


def _read_mask(path: Path, labels: LabelTable, volume: CTVolume) -> RegionsOf:
    values = read_labels_on(path, volume)
    stem = path.name[: -len(volume_suffix(path))]
    if stem in labels.categories.names:
        return regions_of_instances(values, labels.categories.by_name(stem))
    return regions_of_labels(values, meanings_of_values(values, labels, path))
