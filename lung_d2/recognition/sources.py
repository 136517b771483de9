"""What an input holds: one series, a tree of any number of them, volume files, or pictures."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from lung_d2.ct import find_series
from lung_d2.ct.headers import Header, is_dicom, list_files, quiet_pydicom, read_header, show_uid, volume_suffix
from lung_d2.ct.series import build_series, foreign_kind, is_side_image
from lung_d2.data.planes import PICTURES, list_pictures
from lung_d2.errors import InputError, SeriesChoiceError
from lung_d2.files import hash_identity
from lung_d2.findings.manifest import MANIFEST_NAME

logger = logging.getLogger(__name__)

_LISTED = 8
_OF_MANIFESTS = {"series_hash", "weights_sha256", "seconds"}


@dataclass(frozen=True)
class SeriesSource:
    """One series of an input, by its files: of their headers nothing is kept.

    Attributes:
        paths: DICOM files, one volume file, or pictures.
        series_instance_uid: Of DICOM; may be empty.
        name: Name of the result folder, where it is known before the pixels are read; else empty.
    """

    paths: tuple[Path, ...] = field(repr=False)
    series_instance_uid: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """What messages call it."""
        if len(self.paths) == 1:
            return str(self.paths[0])
        folder = os.path.commonpath([path.parent for path in self.paths])
        uid = f"series {show_uid(self.series_instance_uid)} in " if self.series_instance_uid else ""
        return f"{uid}{folder or '.'}"


@dataclass(frozen=True)
class Inputs:
    """What an input holds.

    Attributes:
        series: Its series, by folder and UID.
        unreadable: One error for each file that is DICOM and cannot be read: a series may lack it.
    """

    series: tuple[SeriesSource, ...]
    unreadable: tuple[InputError, ...] = ()


def list_given_pictures(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the pictures that a source is, or those of a folder of pictures and no DICOM; else nothing.

    Raises:
        InputError: There are pictures among other files.
    """
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    if len(paths) == 1 and paths[0].is_dir():
        pictures = list_pictures(paths[0])
        return [] if pictures and any(map(is_dicom, list_files(paths[0]))) else pictures
    pictures = [path for path in paths if path.suffix.lower() in PICTURES and not path.is_dir()]
    if pictures and len(pictures) < len(paths):
        raise InputError(pictures[0], found="a picture among other files", remedy="give pictures, or a series, alone")
    return pictures


def find_inputs(paths: Sequence[Path], series_uid: str | None = None, output: Path | None = None) -> Inputs:
    """Find every series of an input.

    A folder is searched with all that lies under it. Where there is DICOM, volume files in folders are taken for masks
    that lie beside it; without DICOM each of them is a series. Volume files that are named themselves always are.
    Results are no input: what lies in a folder that has a manifest of ours, or under the output folder, is passed over.

    Args:
        paths: Files and folders.
        series_uid: Only the series of this UID.
        output: The output folder; it matters where it lies under one of ``paths``.

    Raises:
        InputError: There is none.
        SeriesChoiceError: None has this UID.
    """
    pictures = list_given_pictures(paths)
    if pictures:
        return Inputs((SeriesSource(tuple(pictures)),))
    volumes = [path for path in dict.fromkeys(paths) if volume_suffix(path) and not path.is_dir()]
    others = [path for path in paths if path not in volumes]
    files = _list_sources(others, output)
    found = _scan(files)
    if others and not found.series:
        volumes += [path for path in files if volume_suffix(path)]
        if found.unreadable and not volumes:
            raise found.unreadable[0]
        if not volumes:
            find_series(others)  # says what there is instead
            raise InputError(others[0], found="results of an earlier run alone", remedy="name the folder of the series")
    series = (*found.series, *(SeriesSource((path,)) for path in volumes))
    return replace(found, series=series) if series_uid is None else _choose(series, series_uid, paths)


def _list_sources(paths: Sequence[Path], output: Path | None) -> list[Path]:
    """List the files that paths are or hold, without results."""
    results: dict[Path, bool] = {}
    files: dict[Path, None] = {}
    for given in paths:
        top = given.resolve()
        if output is not None and top in output.resolve().parents:
            results[output.resolve()] = True
        for path in list_files(given):
            folder = path.parent.resolve()
            if path == given or not _is_result(folder, top, results):
                files[path] = None
    return list(files)


def _is_result(folder: Path, top: Path, known: dict[Path, bool]) -> bool:
    """Tell whether a folder, or one above it up to ``top``, holds a result; ``known`` is kept from call to call."""
    if folder not in known:
        above = folder != top and top in folder.parents and _is_result(folder.parent, top, known)
        known[folder] = above or _has_manifest(folder)
    return known[folder]


def _has_manifest(folder: Path) -> bool:
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= _OF_MANIFESTS


def _choose(series: Sequence[SeriesSource], uid: str, paths: Sequence[Path]) -> Inputs:
    chosen = tuple(one for one in series if one.series_instance_uid == uid)
    if chosen:
        return Inputs(chosen)
    there = [show_uid(one.series_instance_uid) for one in series]
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    raise SeriesChoiceError(
        str(paths[0]) if len(paths) == 1 else f"{len(paths)} paths",
        found=f"no series {show_uid(uid)}; there are {', '.join(there[:_LISTED])}{more}",
        remedy="choose one of them",
    )


@dataclass(eq=False)
class _Group:
    """The files of a series, as they are found; ``full_name`` tells it from others of the same UID."""

    source: SeriesSource
    full_name: str
    files: list[Path] = field(default_factory=list)
    side_images_only: bool = True


def _scan(files: Sequence[Path]) -> Inputs:
    """Sort the DICOM CT images among files into series, holding one header at a time."""
    groups: dict[tuple[str, str, str], _Group] = {}
    left_out: Counter[str] = Counter()
    unreadable = []
    for path in tqdm(files, desc="scan", unit="file", delay=2, leave=False):
        try:
            header = read_header(path)
        except InputError as error:
            unreadable.append(error)
            continue
        kind = "not DICOM" if header is None else _foreign_kind(header)
        if header is None or kind:
            left_out[kind] += 1
        else:
            _add(header, groups)
    stacks = [group for group in groups.values() if not group.side_images_only] or list(groups.values())
    if left_out and groups:
        listed = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
        logger.info("left out %s", listed)
    alike = Counter(group.source.name for group in stacks)
    found = []
    for group in stacks:
        name = group.source.name if alike[group.source.name] == 1 else group.full_name
        found.append(replace(group.source, paths=tuple(group.files), name=name))
    found.sort(key=lambda one: (one.paths[0].parent, one.series_instance_uid))
    return Inputs(tuple(found), tuple(unreadable))


def _foreign_kind(header: Header) -> str:
    with quiet_pydicom():
        return foreign_kind(header)


def _add(header: Header, groups: dict[tuple[str, str, str], _Group]) -> None:
    with quiet_pydicom():
        one = build_series([header])
        is_side = is_side_image(header)
    key = (one.series_instance_uid, one.study_instance_uid, header.patient_key)
    group = groups.get(key)
    if group is None:
        uid = one.series_instance_uid
        full_name = hash_identity("series", "\0".join(key)) if uid else ""  # else known once all files are read
        group = groups[key] = _Group(SeriesSource((), uid, one.series_hash if uid else ""), full_name)
    group.files.append(header.path)
    group.side_images_only &= is_side
