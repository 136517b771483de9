"""Folders of slices and of masks or label maps: pictures of one name in each.

::

    ROOT/IMAGES/0001.png        8-bit grey levels (no HU), or DICOM files of one slice
    ROOT/MASKS/0001.png         0 outside; 255, 1 or any label inside a lesion of the folder's category; of JPEG, which
                                blurs, above 127
    ROOT/LABEL_MAP/0001.png     a label in each pixel, with a meaning in the label table; 8 or 16 bits, or indexed

All may have folders, as one for each patient, but the same ones. The names of a folder of masks may have an affix that
the pictures' lack, as ``0001_mask.png``; see :mod:`lung_d2.data.importers.mask_names`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lung_d2.categories import CATEGORIES
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.label_pictures import read_labels, read_mask
from lung_d2.data.importers.mask_names import match_masks, names_below
from lung_d2.data.importers.options import add_spacing_argument, parse_spacing
from lung_d2.data.importers.picture_files import Spacing, list_pictures_below, list_slice_files, read_slice_file
from lung_d2.data.importers.pictures import Drawing, annotate_picture, build_picture_cases
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import InstanceRule, Region
from lung_d2.data.labels import LabelTable, meanings_of_names, parse_meaning
from lung_d2.data.planes import PICTURES
from lung_d2.errors import DatasetError

_LABELS, _LUNGS = "label map", "lungs"  # what a folder of masks is, beside the names of meanings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    names = ", ".join(category.name for category in CATEGORIES)
    parser.add_argument(
        "--images", default="images", metavar="FOLDER", help="folder of the pictures, in SOURCE (default images)"
    )
    parser.add_argument(
        "--masks",
        action="append",
        default=[],
        metavar="FOLDER=CATEGORY",
        help=f"in SOURCE; {names}, background or ignore",
    )
    parser.add_argument("--label-map", metavar="FOLDER", help="in SOURCE; what its values mean is said by --label")
    parser.add_argument("--lungs", metavar="FOLDER", help="masks of the lungs, in SOURCE")
    add_spacing_argument(parser)


def find_cases(
    request: Request,
    *,
    images: str = "images",
    masks: Sequence[str] = (),
    label_map: str | None = None,
    lungs: str | None = None,
    spacing_mm: str | None = None,
) -> list[Case]:
    """Find the slices and group them by patient.

    Args:
        request: Its ``patients`` name the patient of every picture; its labels give the values of a label map a
            meaning.
        images: Folder of the pictures, in the source.
        masks: ``FOLDER=CATEGORY``; a picture without a mask there has no lesion of it. Where ``request.rule`` goes by
            values, each value of a mask is a lesion.
        label_map: Folder of label maps, one for each picture.
        lungs: Folder of lung masks; a picture without one has an unknown lung field.
        spacing_mm: ``"ROW,COLUMN"`` or one number, for pictures that do not say.

    Returns:
        One case for each patient; its slices are in file-name order and make no neighbours.

    Raises:
        ConfigError: The spacing is none.
        DatasetError: No masks are asked for; a folder is missing or empty; a picture has no patient, or no label map
            and may not be without; masks have no picture.
    """
    spacing = parse_spacing(spacing_mm)
    source = request.source
    roles = [_parse_masks(entry, source) for entry in masks]
    roles += [(role, source / name) for role, name in ((_LABELS, label_map), (_LUNGS, lungs)) if name]
    if not masks and not label_map:
        raise DatasetError(
            source, found="neither --masks nor --label-map", expected="one of them", remedy="say where the masks are"
        )
    folder = source / images
    for one in (source, folder, *(place for _, place in roles)):
        check_folder(one, "pictures")
    if any(place.samefile(folder) for _, place in roles):
        raise DatasetError(folder, found="pictures and masks in one folder", remedy="put the masks into another")
    drawings = _match(folder, roles)
    if label_map and not request.allow_unannotated:
        _check_complete(drawings, source / label_map)
    return build_picture_cases(drawings, partial(_read_slice, request.labels, request.rule, spacing), request)


IMPORTER = Importer("slices", "folders of 8-bit slices and of masks or label maps", find_cases, add_arguments)


def _parse_masks(entry: str, source: Path) -> tuple[str, Path]:
    folder, _, name = entry.rpartition("=")
    if not folder:
        raise DatasetError(
            f"--masks {entry}", found="no folder or no category", expected="FOLDER=CATEGORY", remedy="correct it"
        )
    parse_meaning(name)
    return name, source / folder


def _match(folder: Path, roles: Sequence[tuple[str, Path]]) -> list[Drawing]:
    places = [place for _, place in roles]  # these may lie in the folder of the pictures
    files = [path for path in list_slice_files(folder) if not any(path.is_relative_to(place) for place in places)]
    if not files:
        raise DatasetError(folder, found="no picture", expected=", ".join(sorted(PICTURES)), remedy="correct the path")
    names = names_below(files, folder)
    matched = [
        (role, match_masks(names, names_below(list_pictures_below(place), place), place)) for role, place in roles
    ]
    return [
        Drawing(path, folder, tuple((role, mask_of[path]) for role, mask_of in matched if path in mask_of))
        for path in files
    ]


def _check_complete(drawings: Sequence[Drawing], folder: Path) -> None:
    lone = [one.picture for one in drawings if _LABELS not in dict(one.annotations)]
    if lone:
        raise DatasetError(
            folder,
            found=f"{len(lone)} picture(s) without a label map, {lone[0].name} first",
            expected="one for each picture",
            remedy="add them, or give --allow-unannotated to take these as slices without lesions",
        )


def _read_slice(
    labels: LabelTable, rule: InstanceRule, spacing: Spacing | None, drawing: Drawing, index: int
) -> AnnotatedSlice:
    plane, own_spacing = read_slice_file(drawing.picture)
    regions: list[Region] = []
    lungs = None
    for role, path in drawing.annotations:
        if role == _LUNGS:
            lungs = read_mask(path, plane.shape) != 0
        elif role == _LABELS:
            values = read_labels(path, plane.shape)
            meanings = meanings_of_names(
                {int(value): (int(value),) for value in np.unique(values) if value}, labels, path
            )
            regions += [Region(meaning, values == value) for value, meaning in meanings.items()]
        else:
            values = read_mask(path, plane.shape)
            meaning = parse_meaning(role)
            regions += [Region(meaning, values == value, f"{path} {value}") for value in np.unique(values) if value]
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing, lungs)
