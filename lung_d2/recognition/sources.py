"""What an input holds: one series, a tree of any number of them, volume files, or pictures."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lung_d2.ct.headers import is_dicom, list_files, show_uid, volume_suffix
from lung_d2.ct.scan import Scan, scan_files
from lung_d2.ct.series import CTSeries
from lung_d2.data.planes import PICTURES, list_pictures
from lung_d2.errors import InputError, SeriesChoiceError
from lung_d2.findings.manifest import MANIFEST_NAME

logger = logging.getLogger(__name__)

_LISTED = 8
_OF_MANIFESTS = {"series_hash", "weights_sha256", "seconds"}


@dataclass(frozen=True)
class SeriesSource:
    """One series of an input.

    Attributes:
        paths: DICOM files, one volume file, or pictures.
        series_instance_uid: Of DICOM; may be empty.
        name: Name of the result folder, where it is known before the pixels are read; else empty.
        series: Of DICOM, what the scan read of the headers.
    """

    paths: tuple[Path, ...] = field(repr=False)
    series_instance_uid: str = ""
    name: str = ""
    series: CTSeries | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """What messages call it."""
        if self.series is not None:
            return self.series.name
        if len(self.paths) == 1:
            return str(self.paths[0])
        return os.path.commonpath([path.parent for path in self.paths]) or "."

    def resolve(self) -> SeriesSource:
        """Return the same source by paths that hold in any working directory."""
        paths = tuple(path.resolve() for path in self.paths)
        return replace(self, paths=paths, series=self.series and replace(self.series, files=paths))


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
    Results are not input: a folder that has a manifest of ours, and the output folder, are passed over.

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
    scan = scan_files(_list_sources(others, output))
    if others and not scan.series:
        volumes += [path for path in scan.others if volume_suffix(path)]
        if not volumes:
            raise _nothing_found(scan, others)
    if scan.series:
        scan.log_left_out(_name_of(others))
    series = (*_name_series(scan), *(SeriesSource((path,)) for path in volumes))
    return Inputs(series, scan.unreadable) if series_uid is None else _choose(series, series_uid, paths)


def _name_of(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} paths"


def _nothing_found(scan: Scan, paths: Sequence[Path]) -> InputError:
    if scan.unreadable:
        return scan.unreadable[0]
    if scan.objects or scan.others or not list_files(paths):
        return scan.nothing_found(_name_of(paths))
    return InputError(paths[0], found="only results of an earlier run", remedy="name the folder of the series")


def _name_series(scan: Scan) -> list[SeriesSource]:
    """Name each series by its hash; those of several patients that share one also by patient and study."""
    shared = Counter(one.series_hash for one in scan.series)
    found = [
        SeriesSource(
            one.files,
            one.series_instance_uid,
            one.series_hash if shared[one.series_hash] == 1 else one.full_hash,
            one,
        )
        for one in scan.series
    ]
    return sorted(found, key=lambda one: (one.paths[0].parent, one.series_instance_uid))


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
        _name_of(paths),
        found=f"no series {show_uid(uid)}; there are {', '.join(there[:_LISTED])}{more}",
        remedy="choose one of them",
    )
