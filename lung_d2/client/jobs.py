"""The queue of recognitions: in SQLite, so that it survives a restart; one runs at a time, in a process of its own.

A decoder or a network that brings its process down takes one job with it, not the service. A result is whole or absent,
so a job that a kill interrupted is simply run again.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lung_d2.client.store import Store
from lung_d2.errors import LungD2Error
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.many import restore_results
from lung_d2.recognition.sources import find_inputs

logger = logging.getLogger(__name__)

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
_OPEN = (QUEUED, RUNNING)
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, series TEXT NOT NULL, study TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    folder TEXT NOT NULL DEFAULT '', images INTEGER NOT NULL, created REAL NOT NULL, started REAL, ended REAL);
"""
_POLL_S = 0.2


class QueueFullError(LungD2Error):
    """As many jobs wait as may wait."""


@dataclass(frozen=True)
class Job:
    """One recognition of a series; the fields are the columns of the table.

    Attributes:
        state: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        done: Slices done of ``total``.
        error: Why it failed, in one line.
        folder: Name of the result folder.
        images: Of the series when the job was made; a series that has grown since is recognised again.
    """

    id: int
    series: str
    study: str
    model: str
    state: str
    done: int
    total: int
    error: str
    folder: str
    images: int
    created: float
    started: float | None
    ended: float | None

    @property
    def seconds_left(self) -> float | None:
        """Seconds that are left, by the pace so far; None where it is not known."""
        if self.state != RUNNING or not self.done or self.started is None:
            return None
        return (time.time() - self.started) / self.done * (self.total - self.done)


class Jobs:
    """The queue, and the thread that works it off.

    Args:
        store: Where the series are, and where SEG and SR go.
        recognition: What is done with each series; its output is the folder of results.
        model: What tells weights and settings apart: the same series with the same ones is not run twice.
        most: How many may wait.
        on_done: Called with each job that is done, in the thread of the queue.
    """

    def __init__(
        self,
        store: Store,
        recognition: RecognitionJob,
        model: str,
        *,
        most: int = 100,
        on_done: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._store, self._recognition, self._model, self._most = store, recognition, model, most
        self._on_done = on_done
        self._worker = _Worker(recognition)
        self._stop, self._wake, self._cancelled = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        recognition.output.mkdir(parents=True, exist_ok=True, mode=0o700)
        restore_results(recognition.output)
        with store.connect() as database:
            database.executescript(_TABLE)
            database.execute("UPDATE jobs SET state = ?, done = 0 WHERE state = ?", (QUEUED, RUNNING))
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End; a job that runs is run again after the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._worker.kill()

    def add(self, series: str) -> Job:
        """Queue a series, unless it is queued, runs, or is done with the same images, weights and settings.

        Raises:
            QueueFullError: Too many wait.
            LungD2Error: There is no such series.
        """
        rows = self._store.find(series=series)
        if not rows or rows[0]["modality"] != "CT":
            raise LungD2Error("series", found="no such CT series", remedy="choose one of the list")
        with self._lock:
            for job in self.list(series):
                same = job.model == self._model and job.images == len(rows)
                if same and (job.state in _OPEN or (job.state == DONE and self.result_of(job) is not None)):
                    return job
            waiting = sum(job.state == QUEUED for job in self.list())
            if waiting >= self._most:
                raise QueueFullError("queue", found=f"{waiting} jobs wait", remedy="try again later")
            values = (series, rows[0]["study"], self._model, QUEUED, len(rows), time.time())
            with self._store.connect() as database:
                cursor = database.execute(
                    "INSERT INTO jobs (series, study, model, state, images, created) VALUES (?, ?, ?, ?, ?, ?)", values
                )
        self._wake.set()
        return self.get(cursor.lastrowid or 0)

    def get(self, number: int) -> Job:
        """Return a job.

        Raises:
            LungD2Error: There is none of this number.
        """
        with self._store.connect() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise LungD2Error("job", found="no such job", remedy="load the page again")
        return Job(**dict(row))

    def list(self, series: str = "") -> list[Job]:
        """Return all jobs, or those of a series, the newest first."""
        where = "WHERE series = ?" if series else ""
        query = f"SELECT * FROM jobs {where} ORDER BY id DESC"
        with self._store.connect() as database:
            return [Job(**dict(row)) for row in database.execute(query, (series,) if series else ())]

    def cancel(self, number: int) -> Job:
        """Take a job out of the queue, or stop it where it runs."""
        with self._store.connect() as database:
            sql = "UPDATE jobs SET state = ?, ended = ? WHERE id = ? AND state IN (?, ?)"
            database.execute(sql, (CANCELLED, time.time(), number, *_OPEN))
        return self.get(number)

    def remove_study(self, study: str) -> None:
        """Remove a study with its jobs, its results and all that was made of it."""
        for job in self.list():
            if job.study == study:
                self.cancel(job.id)
                if (folder := self.result_of(job)) is not None:
                    shutil.rmtree(folder)
        with self._store.connect() as database:
            database.execute("DELETE FROM jobs WHERE study = ?", (study,))
        self._store.remove(study)

    def result_of(self, job: Job) -> Path | None:
        """Return the folder of the results of a job, if it is there."""
        folder = self._recognition.output / job.folder
        return folder if job.folder and folder.is_dir() else None

    def _run(self) -> None:
        while not self._stop.is_set():
            job = next((job for job in reversed(self.list()) if job.state == QUEUED), None)
            if job is None:
                self._wake.wait(5.0)
                self._wake.clear()
                continue
            self._set(job.id, QUEUED, state=RUNNING, started=time.time())
            self._do(job)

    def _do(self, job: Job) -> None:
        paths = self._store.files_of(job.series)
        if not paths:
            self._set(job.id, RUNNING, state=FAILED, error="series: it was removed meanwhile", ended=time.time())
            return
        self._worker.send(paths)
        while not self._stop.is_set():
            kind, *values = self._worker.receive(_POLL_S)
            if self._state_of(job.id) != RUNNING:
                self._worker.kill()
                return
            if kind == "progress":
                self._set(job.id, RUNNING, done=values[0], total=values[1])
            elif kind == "failed":
                self._set(job.id, RUNNING, state=FAILED, error=values[0], ended=time.time())
                return
            elif kind == "done":
                self._finish(job, Path(values[0]))
                return

    def _state_of(self, number: int) -> str:
        """Return the state of a job; that of a removed one is that it was cancelled."""
        with self._store.connect() as database:
            row = database.execute("SELECT state FROM jobs WHERE id = ?", (number,)).fetchone()
        return row["state"] if row else CANCELLED

    def _finish(self, job: Job, folder: Path) -> None:
        objects = [*folder.glob("segmentation_*.dcm"), *folder.glob("structured_report.dcm")]
        with self._store.staging() as staging:
            copies = [staging / path.name for path in objects]
            for path, copy in zip(objects, copies, strict=True):
                copy.write_bytes(path.read_bytes())
            if copies:
                self._store.add(copies, results=True)
        self._set(job.id, RUNNING, state=DONE, folder=folder.name, ended=time.time())
        self._on_done(self.get(job.id))

    def _set(self, number: int, expected: str, **values: Any) -> None:
        columns = ", ".join(f"{name} = :{name}" for name in values)
        with self._store.connect() as database:
            sql = f"UPDATE jobs SET {columns} WHERE id = :number AND state = :expected"
            database.execute(sql, {**values, "number": number, "expected": expected})


class _Worker:
    """The process that holds the model; started when it is needed, and again after it died."""

    def __init__(self, recognition: RecognitionJob) -> None:
        self._recognition = recognition
        self._process: Any = None
        self._pipe: Connection | None = None

    def send(self, paths: list[Path]) -> None:
        """Give it the files of a series."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of the service
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_work, args=(other, self._recognition), daemon=True)
            self._process.start()
            other.close()
        assert self._pipe is not None
        self._pipe.send(paths)

    def receive(self, seconds: float) -> tuple[Any, ...]:
        """Wait for a message; ``("none",)`` where none came, ``("failed", why)`` where the process died."""
        assert self._pipe is not None
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else ("none",)
        except (EOFError, ConnectionResetError):
            self._process.join()
            logger.error("the process of a recognition died with status %s", self._process.exitcode)
            return "failed", "series: its process died; give it more memory, or export the images again"

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _work(pipe: Connection, recognition: RecognitionJob) -> None:
    """Recognise what comes through the pipe, until it is closed."""
    job = replace(recognition, progress=lambda done, total: pipe.send(("progress", done, total)))
    while True:
        try:
            paths = pipe.recv()
        except EOFError:
            return
        try:
            inputs = find_inputs(paths)
            folder, _ = job.run(inputs.series[0])
        except LungD2Error as error:
            pipe.send(("failed", str(replace_paths(error, paths))))
        else:
            pipe.send(("done", str(folder)))


def replace_paths(error: LungD2Error, paths: list[Path]) -> LungD2Error:
    """Return the same error without the paths of this machine: a file is called by its number in the series."""
    number = next((index for index, path in enumerate(paths) if str(path) in str(error.where)), None)
    return error.at("series" if number is None else f"file {number + 1} of the series")
