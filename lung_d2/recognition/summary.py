"""A row for each series of a run, and the table of all."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lung_d2.categories import CATEGORIES
from lung_d2.ct.headers import show_uid
from lung_d2.errors import LungD2Error
from lung_d2.findings.document import FINDINGS_NAME
from lung_d2.findings.manifest import MANIFEST_NAME
from lung_d2.lesions.totals import ANY

HIDDEN = "(path)"
SUMMARY_NAME = "summary.csv"
DONE, KEPT, FAILED = "done", "kept", "failed"


def hide_paths(text: str, paths: Iterable[Path]) -> str:
    """Return a text without paths.

    Args:
        text: A message of ours.
        paths: Files and folders that it may name: by their whole path, that of a folder above them, or by the file's
            name alone.
    """
    names: set[str] = set()
    for path in paths:
        for one in (path, *path.parents, path.resolve(), *path.resolve().parents):
            names.add(str(one))
        names |= {path.name} if len(path.name) > 3 else set()  # "12" would hide numbers
    longest_first = sorted(names - {"", ".", "/"}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)(?:/[^\s;,]*)?", HIDDEN, text) if pattern else text


@dataclass(frozen=True)
class Row:
    """What became of a series; without names, ids and paths.

    Attributes:
        series_hash: Its result folder; empty where it failed before that was known.
        series_instance_uid: Empty where it has none, or it is not a UID.
        status: :data:`DONE`, :data:`KEPT` (it was done before), or :data:`FAILED`.
        slices: Their number.
        lesions: Their number by category; empty for pictures.
        volumes_ml: Their volume by category.
        seconds: From reading to writing.
        found: Of the error: what was found.
        expected: What was expected.
        remedy: What to do.
    """

    series_hash: str
    series_instance_uid: str
    status: str
    slices: int | None = None
    lesions: dict[str, int] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    found: str = ""
    expected: str = ""
    remedy: str = ""


def read_row(folder: Path, series_instance_uid: str, status: str) -> Row:
    """Return the row of a result folder."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    findings = folder / FINDINGS_NAME
    totals: dict[str, Any] = json.loads(findings.read_text())["totals"] if findings.is_file() else {}
    names = [name for name in totals if name != ANY]
    return Row(
        series_hash=folder.name,
        series_instance_uid=_legal(series_instance_uid),
        status=status,
        slices=manifest["slices"],
        lesions={name: totals[name]["lesion_count"] for name in names},
        volumes_ml={name: totals[name]["volume_ml"] for name in names},
        seconds=manifest["seconds"]["total"],
    )


def failed_row(name: str, series_instance_uid: str, error: LungD2Error, paths: Sequence[Path]) -> Row:
    """Return the row of a series that failed; ``paths`` are those that the error may name."""
    found, expected, remedy = (hide_paths(part, paths) for part in (error.found, error.expected, error.remedy))
    return Row(name, _legal(series_instance_uid), FAILED, found=found, expected=expected, remedy=remedy)


def format_summary(rows: Sequence[Row]) -> str:
    """Return the table of all rows as CSV."""
    stream = io.StringIO()
    # All series of a run have the same categories; failed ones and pictures have none.
    names = list(dict.fromkeys(name for row in rows for name in row.lesions)) or CATEGORIES.names
    records = [_flat(row, names) for row in rows]
    writer = csv.DictWriter(stream, fieldnames=list(_flat(Row("", "", DONE), names)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _flat(row: Row, names: Sequence[str]) -> dict[str, Any]:
    flat = asdict(row)
    lesions, volumes = flat.pop("lesions"), flat.pop("volumes_ml")
    errors = {f"error_{part}": flat.pop(part) for part in ("found", "expected", "remedy")}
    seconds = flat.pop("seconds")
    counts = {f"{name}_lesions": lesions.get(name) for name in names}
    ml = {f"{name}_ml": volumes.get(name) for name in names}
    return {**flat, **counts, **ml, "seconds": seconds, **errors}


def _legal(uid: str) -> str:
    return uid if show_uid(uid) == uid else ""
