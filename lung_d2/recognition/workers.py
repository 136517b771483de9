"""Series in worker processes of this machine: one that dies takes no other series with it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from lung_d2.errors import CheckpointError
from lung_d2.processes import open_pool
from lung_d2.quiet import ignore_deprecations
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.sources import SeriesSource
from lung_d2.recognition.summary import Row

logger = logging.getLogger(__name__)

CORES_PER_WORKER, GIB_PER_WORKER = 4, 4.0
"""What a worker takes on a CPU, where nothing else is asked for: 600 slices of 512 x 512 need 2.5 GiB."""

Outcome = tuple[SeriesSource, Row | BaseException]
"""A series, and its row, or what a defect raised."""


def count_workers(device: str, series: int) -> int:
    """Return how many workers this machine has cores and memory for; on a GPU one, which keeps it busy.

    Args:
        device: ``MODEL.DEVICE``.
        series: Number of series.
    """
    if not device.startswith("cpu") or not hasattr(os, "sysconf"):
        return 1
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(_cores() // CORES_PER_WORKER, int(gib / GIB_PER_WORKER), series))


def run_in_processes(job: RecognitionJob, sources: Sequence[SeriesSource], workers: int) -> Iterator[Outcome]:
    """Yield the outcome of each series, as it comes.

    Where a worker dies, as for want of memory, the series that were not finished are run again one by one, each in a
    process of its own; that which kills its process is the one that failed.

    Args:
        job: What is done; its bars of the slices are shown by a single worker only, as several would overwrite them.
        sources: The series.
        workers: Processes, 1 or more.

    Raises:
        LungD2Error: The model cannot be loaded.
    """
    job = replace(job, progress=job.progress and workers == 1)
    done: set[SeriesSource] = set()
    with _open(workers) as pool:
        _prepare(pool, job)
        for outcome in _collect(pool, job, sources):
            if not isinstance(outcome[1], BrokenProcessPool):
                done.add(outcome[0])
                yield outcome
    rest = [source for source in sources if source not in done]
    if rest:
        logger.warning("a worker process died: %d series are run again, one by one", len(rest))
    for source in rest:
        with _open(1) as pool:
            yield from _collect(pool, job, [source])


def _open(workers: int) -> AbstractContextManager[ProcessPoolExecutor]:
    """Open a pool that has all cores; an error ends what it does, as Ctrl-C should."""
    threads = max(1, _cores() // workers)
    return open_pool(workers, threads, partial(_set_up, threads), end_on_error=True)


def _prepare(pool: ProcessPoolExecutor, job: RecognitionJob) -> None:
    try:
        pool.submit(job.prepare).result()
    except BrokenProcessPool as error:
        raise CheckpointError(
            job.model.config_file or job.model.weights,
            found="a worker process died while it loaded the model",
            remedy="free memory, or use fewer workers",
        ) from error


def _collect(pool: ProcessPoolExecutor, job: RecognitionJob, sources: Sequence[SeriesSource]) -> Iterator[Outcome]:
    waiting: dict[Future[Row], SeriesSource] = {}
    try:
        for source in sources:
            waiting[pool.submit(job, source)] = source
    except BrokenProcessPool:
        logger.debug("the pool broke while series were handed in")  # those handed in say so themselves
    for future in as_completed(waiting):
        error = future.exception()
        yield waiting.pop(future), future.result() if error is None else error


def _set_up(threads: int) -> None:
    """Set up a worker, with its share of the cores."""
    ignore_deprecations()
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no traceback from each worker


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
