"""Which label file belongs to which image, by their names."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lung_d2.ct.headers import volume_suffix
from lung_d2.data.importers.registry import compile_pattern
from lung_d2.data.labels import LabelTable, Meaning
from lung_d2.errors import DatasetError

_CHANNEL = "0000"  # what nnU-Net puts behind the name of every image: its first, and for CT only, channel


@dataclass(frozen=True)
class LabelFile:
    """One label volume.

    Attributes:
        path: The file.
        meaning: What each of its values but 0 is; None: it is a label map, whose values have meanings of their own.
    """

    path: Path
    meaning: Meaning | None = None


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        image: The file.
        labels: Its labels; may be empty.
        patient: The patient that the source names; may be empty.
    """

    image: Path
    labels: tuple[LabelFile, ...] = ()
    patient: str = ""


def read_pairs(path: Path, labels: LabelTable) -> list[Pair]:
    """Read pairs from a CSV file.

    Args:
        path: A CSV file with the columns ``image`` and ``label``, paths relative to it, and where wanted ``patient``
            and ``category`` (of a label file of one category). An image with several labels has several rows; one
            without has an empty ``label``.
        labels: The categories in play.

    Raises:
        DatasetError: It is not such a file, a path is missing or leaves its folder, or rows contradict each other.
    """
    label_files: dict[Path, list[LabelFile]] = defaultdict(list)
    patients: dict[Path, str] = {}
    for number, row in enumerate(_rows(path), 2):
        where = f"{path} row {number}"
        image = _listed_file(row["image"], path, where)
        patient = row.get("patient", "")
        if patients.setdefault(image, patient) != patient:
            raise DatasetError(where, found="another patient than above", expected="one an image", remedy="correct it")
        if row["label"]:
            meaning = labels.parse(row["category"]) if row.get("category") else None
            label_files[image].append(LabelFile(_listed_file(row["label"], path, where), meaning))
    for image, files in label_files.items():
        if len({file.path for file in files}) < len(files):
            raise DatasetError(path, found=f"a label of {image.name} twice", remedy="remove one of the rows")
    return [Pair(image, tuple(label_files[image]), patient) for image, patient in patients.items()]


def _listed_file(text: str, listing: Path, where: str) -> Path:
    path = listing.parent / inner_path(text, where)
    try:
        there = path.is_file()
    except OSError:  # as a name that is too long
        there = False
    if not there:
        raise DatasetError(where, found=f"no file {text!a}", expected="paths relative to the CSV", remedy="correct it")
    if not volume_suffix(path):
        raise DatasetError(where, found=f"no volume, {text!a}", expected="e.g. .nii.gz or .nrrd", remedy="convert it")
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [
                {str(name).strip(): (value or "").strip() for name, value in row.items() if name is not None}
                for row in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            path, found="not a readable CSV file", expected="text in UTF-8", remedy="correct --pairs"
        ) from error
    columns = sorted(rows[0]) if rows else []
    if not {"image", "label"}.issubset(columns):
        raise DatasetError(
            path, found=f"columns {columns}", expected="image, label and rows of them", remedy="name them in row 1"
        )
    return rows


def list_volumes(source: Path, pattern: str) -> list[Path]:
    """List the volume files of a folder, with those below it, or those that a pattern matches.

    Args:
        source: What the user gave.
        pattern: A folder in it, or a pattern of files or folders, as ``ct/*.nii.gz``. Hidden files are left out.

    Returns:
        At least one file, sorted.

    Raises:
        DatasetError: There is no file, or the pattern leaves the source.
    """
    place = inner_path(pattern, source)
    here = source / place
    try:
        found = [here] if here.exists() else source.glob(place)
        files = {path for match in found for path in _volumes_in(match)}
    except (OSError, ValueError, NotImplementedError) as error:
        raise DatasetError(here, found="no folder or pattern", remedy="correct it") from error
    # Without hidden files, such as the ._name that macOS leaves beside a file.
    parts = {path: path.relative_to(source).parts for path in files}
    shown = sorted(path for path in files if not any(part.startswith(".") for part in parts[path]))
    if not shown:
        raise DatasetError(
            here, found="no volume", expected=".nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd files", remedy="correct it"
        )
    return shown


def home_of(source: Path, pattern: str) -> Path:
    """Return the folder in which :func:`list_volumes` looks: that which is named, or that before the first wildcard."""
    place = source
    for part in Path(inner_path(pattern, source)).parts:
        if not (place / part).is_dir():
            break
        place = place / part
    return place


def stem_of(path: Path) -> str:
    """Return the name of a volume file without its suffix."""
    return path.name[: len(path.name) - len(volume_suffix(path))]


def keys_by_name(files: Sequence[Path]) -> dict[Path, str]:
    """Return a key for each file: its name, without the words with which all names begin or end.

    For ``study_0255_mask`` and ``study_0256_mask`` the keys are ``0255`` and ``0256``. A word with a digit is kept even
    if all share it, since it may be the number of the only file; nnU-Net's ``_0000`` is not. Where names repeat, as in
    ``CASE/ct.nii.gz``, the folders are part of the key.
    """
    names = {path: stem_of(path) for path in files}
    if len(set(names.values())) < len(names):
        base = os.path.commonpath([path.parent for path in files])
        names = {path: f"{path.parent.relative_to(base).as_posix()}/{stem_of(path)}" for path in files}
    words = {path: [word for word in re.split(r"[\W_]+", name.casefold()) if word] for path, name in names.items()}
    first = _shared([list(each) for each in words.values()])
    last = _shared([each[first:][::-1] for each in words.values()], _CHANNEL)
    return {path: "_".join(each[first : len(each) - last]) for path, each in words.items()}


def keys_by_pattern(files: Sequence[Path], source: Path, pattern: str, option: str) -> dict[Path, str]:
    """Return what the first group of an expression matches in each path below the source, without its suffix.

    Raises:
        DatasetError: The expression is malformed, has no group, or does not match a file.
    """
    expression = compile_pattern(pattern, option)
    keys = {}
    for path in files:
        inner = path.relative_to(source).with_name(stem_of(path)).as_posix()
        match = expression.search(inner)
        if not match or not match.groups() or match.group(1) is None:
            raise DatasetError(path, found=f"no match of {pattern!r}", expected="a group", remedy=f"correct {option}")
        keys[path] = match.group(1)
    return keys


def pair_by_keys(images: Mapping[Path, str], labels: Mapping[Path, str], remedy: str) -> dict[Path, list[Path]]:
    """Pair images and labels of one key.

    Args:
        images: Key of each image.
        labels: Key of each label file.
        remedy: What the user can do where this fails.

    Returns:
        The labels of each image, sorted; there may be none or several.

    Raises:
        DatasetError: Two images have one key, or a label has no image.
    """
    image_of: dict[str, Path] = {}
    for path, key in images.items():
        other = image_of.setdefault(key, path)
        if other != path:
            raise DatasetError(path, found=f"paired as {key!r}, as {other} is", remedy=remedy)
    found: dict[Path, list[Path]] = {path: [] for path in images}
    for path, key in labels.items():
        if key not in image_of:
            raise DatasetError(path, found="a label without an image", expected=f"one of {key!r}", remedy=remedy)
        found[image_of[key]].append(path)
    return {path: sorted(each) for path, each in found.items()}


def inner_path(text: str, where: Path | str) -> str:
    """Return a path with the separators of this system.

    Raises:
        DatasetError: It is empty, or leaves its folder.
    """
    place = PureWindowsPath(text)  # it understands the separators of every system
    if place.drive or place.root or ".." in place.parts or not place.parts or "\0" in text:
        raise DatasetError(
            where, found=f"the path {text!a}", expected="a relative one, without '..'", remedy="correct it"
        )
    return place.as_posix()


def _volumes_in(path: Path) -> list[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return [each for each in files if volume_suffix(each) and each.is_file()]


def _shared(words: Sequence[Sequence[str]], also: str = "") -> int:
    """Return with how many words all begin, up to the first word with a digit other than ``also``."""
    count = 0
    for each in zip(*words, strict=False):
        if len(set(each)) > 1 or (re.search(r"\d", each[0]) and each[0] != also):
            break
        count += 1
    return count
