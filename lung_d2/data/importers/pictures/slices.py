"""Folders of slices, and of masks or label maps named as the slices.

::

    ROOT/IMAGES/0001.png        8-bit grey levels (no HU), or DICOM files of one slice
    ROOT/MASKS/0001.png         0 outside; 255, 1 or any label inside a lesion of the folder's category; of JPEG, which
                                blurs, above 127
    ROOT/LABEL_MAP/0001.png     a label in each pixel, with a meaning in the label table; 8 or 16 bits, or indexed

All may have subfolders, such as one for each patient, but the same ones. The names of masks may have an affix that the
names of pictures lack, as in ``0001_mask.png``; see :func:`match_masks`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    Spacing,
    annotate_picture,
    build_picture_cases,
    list_pictures_below,
    list_slice_files,
    read_slice_file,
)
from lung_d2.data.importers.pictures.shapes import add_spacing_argument, parse_spacing
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.instances import InstanceRule, Region
from lung_d2.data.labels import MEANINGS_HELP, LabelTable, split_assignment
from lung_d2.data.planes import PICTURES, is_jpeg, read_picture
from lung_d2.errors import DatasetError, InputError

_LABELS, _LUNGS, _MASK = "label map", "lungs", "mask of "  # what a folder holds; _MASK goes before a category
JPEG_INSIDE = 127
"""JPEG blurs masks: what is above this is inside."""
_WHAT = "labels: an 8-bit, 16-bit or indexed picture"
_COLOURS = {"RGB", "RGBA", "LA"}
_GREYS = {"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_SUFFIXES = PICTURES | {".dcm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    parser.add_argument(
        "--images", default="images", metavar="FOLDER", help="folder of the pictures, in SOURCE (default images)"
    )
    parser.add_argument(
        "--masks",
        action="append",
        default=[],
        metavar="FOLDER=CATEGORY",
        help=f"folder of masks, in SOURCE, and what they mark: {MEANINGS_HELP}",
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
        One case for each patient; its slices are in file-name order and are not neighbours.

    Raises:
        ConfigError: The spacing is malformed.
        DatasetError: Neither masks nor label maps are given; a folder is missing or empty; a picture has no patient or
            lacks its label map; masks have no picture.
    """
    spacing = parse_spacing(spacing_mm)
    source = request.source
    entries = [_split_entry(entry) for entry in masks]
    request = replace(request, labels=request.labels.define(name for _, name in entries))
    roles = [(_MASK + name, source / place) for place, name in entries]
    for _, name in entries:
        request.labels.parse(name)
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


def _split_entry(entry: str) -> tuple[str, str]:
    folder, name = split_assignment(entry)
    if not folder:
        raise DatasetError(
            f"--masks {entry}", found="no folder or no category", expected="FOLDER=CATEGORY", remedy="correct it"
        )
    return folder, name


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
    missing = [one.picture for one in drawings if _LABELS not in dict(one.annotations)]
    if missing:
        raise DatasetError(
            folder,
            found=f"{len(missing)} picture(s) without a label map, {missing[0].name} first",
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
            meanings = labels.meanings({int(value): (int(value),) for value in np.unique(values) if value}, path)
            regions += [Region(meaning, values == value) for value, meaning in meanings.items()]
        else:
            values = read_mask(path, plane.shape)
            meaning = labels.parse(role.removeprefix(_MASK))
            regions += [Region(meaning, values == value, f"{path} {value}") for value in np.unique(values) if value]
    return annotate_picture(plane, regions, rule, index, own_spacing or spacing, lungs)


def read_labels(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    """Read a label picture.

    The labels of an indexed picture are the indices of its colours, unless all its colours are greys, as in files that
    a program has made smaller: then they are the greys.

    Args:
        path: PNG, BMP or TIFF of 8 or 16 bits, or indexed.
        shape: ``(H, W)`` of its picture.

    Returns:
        Labels ``(H, W)``.

    Raises:
        DatasetError: It is JPEG, which blurs labels, or of another size.
        InputError: It is missing, broken, or a colour picture without an index.
    """
    if is_jpeg(path):
        raise DatasetError(path, found="labels as JPEG, which blurs them", expected="PNG", remedy="write it as PNG")
    try:
        with Image.open(path) as picture:
            values = _values(picture, path)
    except FileNotFoundError as error:
        raise InputError(path, found="no such file", expected=_WHAT, remedy="check the path") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, on damaged bytes
        raise InputError(
            path, found="not a readable picture", expected=_WHAT, remedy="check its permissions, or write it again"
        ) from error
    _check_shape(path, values.shape, shape)
    return values


def read_mask(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    """Read the mask of a category: 0 outside, any other label inside; of JPEG, what is above 127.

    Returns:
        Labels ``(H, W)``.

    Raises:
        DatasetError: It is of another size, or JPEG of low levels.
        InputError: It is missing, broken, or a colour picture without an index.
    """
    if not is_jpeg(path):
        return read_labels(path, shape)
    values = read_picture(path, expected="an 8-bit mask in grey levels")
    _check_shape(path, values.shape, shape)
    if 0 < values.max() <= JPEG_INSIDE:
        raise DatasetError(
            path,
            found=f"a JPEG mask of levels up to {values.max()}",
            expected="0 and 255: JPEG blurs labels away",
            remedy="write it as PNG",
        )
    return (values > JPEG_INSIDE).astype(np.uint8)


def _values(picture: Image.Image, path: Path) -> npt.NDArray[np.integer[Any]]:
    if picture.mode == "P":
        colors = np.array(picture.getpalette("RGB")).reshape(-1, 3)
        return np.asarray(picture.convert("L") if (colors == colors[:, :1]).all() else picture)
    if picture.mode in _GREYS:
        return np.asarray(picture).astype(np.uint8 if picture.mode in ("1", "L") else np.int32)
    if picture.mode in _COLOURS:
        colors = np.asarray(picture)
        colors = colors[..., :1] if picture.mode == "LA" else colors[..., :3]
        if (colors == colors[..., :1]).all():
            return np.ascontiguousarray(colors[..., 0])
        raise InputError(path, found="a colour picture", expected=_WHAT, remedy="give the labels, or an indexed PNG")
    raise InputError(path, found=f"a picture of mode {picture.mode}", expected=_WHAT, remedy="convert it")


def _check_shape(path: Path, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != tuple(shape):
        raise DatasetError(
            path,
            found=f"size {found}",
            expected=f"{tuple(shape)} (rows, columns), its slice's",
            remedy="give the mask of this slice, in its size",
        )


@dataclass(frozen=True)
class _Affix:
    """The part of a mask's name that replaces another text, or nothing, in its picture's name."""

    picture: str
    mask: str
    at_end: bool

    def name_of_picture(self, mask: str) -> str | None:
        """Return the picture's name (a path without suffix) for a mask's; None if the mask lacks this affix."""
        folder, slash, stem = mask.rpartition("/")
        if self.at_end:
            return f"{folder}{slash}{stem.removesuffix(self.mask)}{self.picture}" if stem.endswith(self.mask) else None
        return f"{folder}{slash}{self.picture}{stem.removeprefix(self.mask)}" if stem.startswith(self.mask) else None


def names_below(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return files by their path below a folder, without suffix and with ``/``.

    Raises:
        DatasetError: Two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in files:
        has_suffix = path.suffix.lower() in _SUFFIXES  # a DICOM file may be named by a UID, whose dots mean nothing
        name = (path.relative_to(folder).with_suffix("") if has_suffix else path.relative_to(folder)).as_posix()
        if name in found:
            raise DatasetError(
                path, found=f"named as {found[name].name}", expected="one of a name", remedy="remove one"
            )
        found[name] = path
    return found


def match_masks(pictures: Mapping[str, Path], masks: Mapping[str, Path], folder: Path) -> dict[Path, Path]:
    """Find the picture of each mask of a folder.

    Names are equal, or all masks have the same affix: ``0001_mask`` or ``mask_0001`` for ``0001``, ``seg_0001`` for
    ``img_0001``. An affix holds no digit; if the pictures have one, too, it is the same in all of them.

    Args:
        pictures: By name, see :func:`names_below`.
        masks: The same.
        folder: Of the masks, for messages.

    Returns:
        The mask of each picture that has one.

    Raises:
        DatasetError: There is no mask, a mask has no picture, or affixes give different matches.
    """
    if not masks:
        raise DatasetError(folder, found="no mask", expected="masks named as the pictures", remedy="correct the path")
    if any(name in pictures for name in masks):
        orphans = [path for name, path in sorted(masks.items()) if name not in pictures]
        if orphans:
            raise _orphans(orphans, folder)
        return {pictures[name]: path for name, path in masks.items()}
    matches = []
    for affix in set(_affixes(pictures, min(masks))):
        match = _apply(affix, pictures, masks)
        if match and match not in matches:
            matches.append(match)
    if len(matches) > 1:
        raise DatasetError(
            folder, found="names that fit the pictures in several ways", remedy="name the masks as the pictures"
        )
    if not matches:
        raise _orphans(sorted(masks.values()), folder)
    return matches[0]


def _orphans(orphans: Sequence[Path], folder: Path) -> DatasetError:
    return DatasetError(
        folder,
        found=f"{len(orphans)} mask(s) without a picture, {orphans[0].name} first",
        expected="masks named as the pictures",
        remedy="rename or remove them",
    )


def _apply(affix: _Affix, pictures: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[Path, Path]:
    """Return the mask of each picture; empty if a mask has no picture."""
    match = {}
    for name, path in masks.items():
        picture = affix.name_of_picture(name)
        if picture is None or picture not in pictures:
            return {}
        match[pictures[picture]] = path
    return match


def _affixes(pictures: Mapping[str, Path], mask: str) -> Iterator[_Affix]:
    """Yield the affixes by which a mask could belong to a picture in the folder of the same name."""
    folder, _, stem = mask.rpartition("/")
    stems = [name.rpartition("/")[2] for name in pictures]
    for name in pictures:
        inner, _, own = name.rpartition("/")
        if inner != folder:
            continue
        for at_end in (False, True):
            ends = (own, stem) if at_end else (own[::-1], stem[::-1])
            differing = (place for place, (one, other) in enumerate(zip(*ends, strict=False)) if one != other)
            shared = next(differing, min(len(own), len(stem)))
            if not shared:
                continue
            affix = (
                _Affix(own[shared:], stem[shared:], True) if at_end else _Affix(own[:-shared], stem[:-shared], False)
            )
            common = all(one.endswith(affix.picture) if at_end else one.startswith(affix.picture) for one in stems)
            if common and not re.search(r"\d", affix.picture + affix.mask):
                yield affix
