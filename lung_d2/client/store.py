"""DICOM objects in a folder, indexed by SQLite: the CT that came in, and the SEG and SR that were made of it.

Names of files are hashes. What a query needs of the headers lies in the index, as DICOM JSON, so that no file is opened
for it. An object whose UIDs break the standard is stored under UIDs derived from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage

from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.errors import InputError

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage)
RESULT_MODALITIES = ("SEG", "SR")

_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS instances (
    sop TEXT PRIMARY KEY, series TEXT NOT NULL, study TEXT NOT NULL, modality TEXT NOT NULL, path TEXT NOT NULL,
    position REAL NOT NULL, renamed INTEGER NOT NULL, added REAL NOT NULL, header TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_series ON instances (series);
CREATE INDEX IF NOT EXISTS by_study ON instances (study);
"""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_LEGAL_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_NOT_INDEXED = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "IconImageSequence", "EncapsulatedDocument")


@dataclass(frozen=True)
class Stored:
    """What became of files that were given to a store.

    Attributes:
        series: UIDs of the CT series that got images, in order.
        images: How many CT images were stored.
        skipped: What the other files were, and how many.
        renamed: Images whose illegal UIDs were replaced.
    """

    series: tuple[str, ...]
    images: int
    skipped: dict[str, int] = field(default_factory=dict)
    renamed: int = 0


class Store:
    """A folder of DICOM objects.

    Args:
        folder: Where they lie; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the index holds names of patients
        for name in ("objects", "incoming"):
            (folder / name).mkdir(exist_ok=True, mode=0o700)
        for left in (folder / "incoming").iterdir():  # of a process that was killed
            shutil.rmtree(left)
        with self.connect() as database:
            database.executescript(_TABLES)

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """Open the index; what is done within is committed as a whole."""
        database = sqlite3.connect(self.folder / "index.sqlite", timeout=30)
        database.row_factory = sqlite3.Row
        try:
            with database:
                yield database
        finally:
            database.close()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a folder for files on their way in; it is gone afterwards, with what is left in it."""
        folder = self.folder / "incoming" / os.urandom(8).hex()
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def add(self, paths: Iterable[Path], *, results: bool = False) -> Stored:
        """Store CT images; other files are counted by what they are.

        Args:
            paths: Files, which are moved.
            results: Take SEG and SR too.

        Returns:
            What was stored.

        Raises:
            InputError: There is no CT image among them (with ``results``: no object of ours).
        """
        series: dict[str, None] = {}
        skipped: Counter[str] = Counter()
        images = renamed = 0
        for path in paths:
            dataset, kind = _read(path)
            if dataset is None or not (_is_ct(dataset) or (results and dataset.get("Modality") in RESULT_MODALITIES)):
                skipped[kind] += 1
                continue
            changed = _legalize(dataset)
            self._keep(path, dataset, changed)
            series[str(dataset.SeriesInstanceUID)] = None
            images, renamed = images + 1, renamed + changed
        if not images:
            found = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common(4)) or "nothing"
            raise InputError("upload", found=found, expected="CT images in DICOM", remedy="drop the CT series")
        return Stored(tuple(series), images, dict(skipped), renamed)

    def _keep(self, path: Path, dataset: Dataset, changed: bool) -> None:
        sop, series = str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID)
        final = self.folder / "objects" / _hash(series)[:16] / f"{_hash(sop)[:32]}.dcm"
        final.parent.mkdir(exist_ok=True, mode=0o700)
        if changed:
            dataset.save_as(path)
        row = (
            *(sop, series, str(dataset.StudyInstanceUID), str(dataset.get("Modality") or "CT")),
            *(str(final.relative_to(self.folder)), _position(dataset), int(changed), time.time(), _header_of(dataset)),
        )
        with self._lock, self.connect() as database:
            os.replace(path, final)
            database.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def find(self, study: str = "", series: str = "", sop: str = "", modality: str = "") -> list[sqlite3.Row]:
        """Return the rows of the index that have these UIDs, in the order of the slices; an empty one is any."""
        wanted = {"study": study, "series": series, "sop": sop, "modality": modality}
        given = {name: value for name, value in wanted.items() if value}
        where = " AND ".join(f"{name} = :{name}" for name in given) or "1"
        with self.connect() as database:
            query = f"SELECT * FROM instances WHERE {where} ORDER BY series, position, sop"
            return database.execute(query, given).fetchall()

    def list_series(self, study: str = "") -> list[dict[str, Any]]:
        """Return one entry for each series: UIDs, modality, number of images, and one of their headers."""
        where = "WHERE study = :study" if study else ""
        query = f"""SELECT series, study, modality, COUNT(*) AS images, MIN(added) AS added, SUM(renamed) AS renamed,
            header FROM instances {where} GROUP BY series ORDER BY added DESC, series"""
        with self.connect() as database:
            rows = database.execute(query, {"study": study} if study else {}).fetchall()
        return [{**dict(row), "header": json.loads(row["header"])} for row in rows]

    def files_of(self, series: str) -> list[Path]:
        """Return the files of a series, in the order of its slices; none where it is not here."""
        return [self.folder / row["path"] for row in self.find(series=series)]

    def remove(self, study: str) -> None:
        """Remove the objects of a study."""
        rows = self.find(study=study)
        with self._lock, self.connect() as database:
            database.executemany("DELETE FROM instances WHERE sop = ?", [(row["sop"],) for row in rows])
        for folder in {(self.folder / row["path"]).parent for row in rows}:
            shutil.rmtree(folder, ignore_errors=True)

    def list_expired(self, keep_days: float) -> list[str]:
        """Return the UIDs of studies to which nothing was added for so many days."""
        query = "SELECT study FROM instances GROUP BY study HAVING MAX(added) < ?"
        with self.connect() as database:
            return [row["study"] for row in database.execute(query, (time.time() - keep_days * 86400,))]


def show_uid_text(header: dict[str, Any], keyword: str) -> str:
    """Return the first value of an attribute of DICOM JSON as text; empty where it has none."""
    tag = f"{pydicom.datadict.tag_for_keyword(keyword):08X}"
    values = header.get(tag, {}).get("Value") or [""]
    first = values[0]
    return str(first.get("Alphabetic", "") if isinstance(first, dict) else first)


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()


def _read(path: Path) -> tuple[Dataset | None, str]:
    """Read an object, and say what it is."""
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path)
            for keyword in _UIDS[:3]:
                str(dataset[keyword].value)
            json.dumps(_strip(dataset).to_json_dict())
    except READ_ERRORS:
        return None, "files that are not DICOM, or damaged"
    modality = re.sub(r"\W", "", str(dataset.get("Modality") or ""))[:8]
    return dataset, f"objects of modality {modality}" if modality else "objects without modality"


def _strip(dataset: Dataset) -> Dataset:
    kept = Dataset()
    for element in dataset:
        if element.keyword not in _NOT_INDEXED and not element.tag.is_private:
            kept.add(element)
    return kept


def _is_ct(dataset: Dataset) -> bool:
    return "PixelData" in dataset and (dataset.get("SOPClassUID") in CT_CLASSES or dataset.get("Modality") == "CT")


def _legalize(dataset: Dataset) -> bool:
    """Replace illegal UIDs by UIDs under 2.25 derived from them (PS3.5 9.1, B.2), and tell whether there were any."""
    changed = False
    for keyword in _UIDS:
        uid = str(dataset.get(keyword) or "")
        if keyword in dataset and (len(uid) > 64 or not _LEGAL_UID.fullmatch(uid)):
            value = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:16], "big")
            dataset[keyword].value = UID(f"2.25.{value}")
            changed = True
    if changed:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return changed


def _header_of(dataset: Dataset) -> str:
    header = _strip(dataset).to_json_dict()
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    return json.dumps({**header, "00083002": {"vr": "UI", "Value": [syntax]}})


def _position(dataset: Dataset) -> float:
    try:
        return float(dataset.ImagePositionPatient[2])
    except READ_ERRORS:
        return 0.0
