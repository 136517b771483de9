"""Series in worker processes of this machine or of a Ray cluster: one that dies takes no other series with it."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lung_d2.errors import CheckpointError, ConfigError, DependencyError, LungD2Error
from lung_d2.processes import count_cores, ignore_deprecations, open_pool
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.sources import SeriesSource
from lung_d2.recognition.summary import Row

logger = logging.getLogger(__name__)

CORES_PER_WORKER, GIB_PER_WORKER = 4, 4.0
"""What a worker takes on a CPU, where nothing else is asked for: 600 slices of 512 x 512 need 2.5 GiB."""

Outcome = tuple[SeriesSource, Row | BaseException]
"""A series, and its row, or what a defect raised."""
_PATIENCE_S = 10.0
_RETRIES = 1  # of a task whose process or node died


def count_workers(device: str, series: int) -> int:
    """Return how many workers this machine has cores and memory for; on a GPU one, which keeps it busy.

    Args:
        device: ``MODEL.DEVICE``.
        series: Number of series.
    """
    if not device.startswith("cpu") or not hasattr(os, "sysconf"):
        return 1
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(count_cores() // CORES_PER_WORKER, int(gib / GIB_PER_WORKER), series))


def run_in_processes(job: RecognitionJob, sources: Sequence[SeriesSource], workers: int) -> Iterator[Outcome]:
    """Yield the outcome of each series, as it comes.

    Where a worker dies, as when memory runs out, the series that were not finished are run again one by one, each in a
    process of its own; that which kills its process is the one that failed.

    Args:
        job: What is done; its bars of the slices are shown by a single worker only, as several would overwrite them.
        sources: The series.
        workers: Processes, 1 or more.

    Raises:
        LungD2Error: The model cannot be loaded.
    """
    job = replace(job, progress=job.progress is True and workers == 1)
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
    threads = max(1, count_cores() // workers)
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


def run_on_ray(
    job: RecognitionJob, sources: Sequence[SeriesSource], address: str, workers: int | None = None
) -> Iterator[Outcome]:
    """Yield the outcome of each series, as it comes from a Ray cluster.

    Every node needs lung_d2, and the same paths for input, output, config and weights, as on a shared disk. A task
    takes :data:`lung_d2.recognition.workers.CORES_PER_WORKER` cores, or all of the largest node, and a GPU where there
    are any.

    Args:
        job: What is done.
        sources: The series.
        address: Of the cluster, as ``auto`` or ``10.0.0.1:6379``.
        workers: Most tasks at a time; None: as many as the cluster has room for.

    Raises:
        ConfigError: No cluster answers at this address.
        DependencyError: Ray is not installed.
        LungD2Error: The model cannot be loaded.
    """
    ray = _connect(address)
    try:
        options = _resources(ray)
        shared = ray.put(_absolute(job))
        _prepare_on_ray(ray, shared, options)
        run = ray.remote(_run).options(max_retries=_RETRIES, **options)
        waiting: dict[Any, SeriesSource] = {}
        left = list(reversed(sources))
        while left or waiting:
            while left and len(waiting) < (workers or len(sources)):
                source = left.pop()
                waiting[run.remote(shared, source.resolve())] = source
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(ready), _outcome(ray, ready)
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            "ray", found="not installed", expected="it, for --ray", remedy="run \"pip install 'lung_d2[ray]'\""
        ) from error
    try:
        _check_address(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray {address}", found="no cluster answers", expected="a running one", remedy="start it by 'ray start'"
        ) from error
    return ray


def _check_address(address: str) -> None:
    """Raise OSError if nothing listens at the address: Ray itself would wait for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()


def _resources(ray: Any) -> dict[str, float]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = max(node.get("CPU", 0.0) for node in nodes)
    gpus = max(node.get("GPU", 0.0) for node in nodes)
    return {"num_cpus": min(CORES_PER_WORKER, cores), "num_gpus": 1 if gpus else 0}


def _absolute(job: RecognitionJob) -> RecognitionJob:
    """Return a job that finds its files from any working directory."""
    opts = tuple(str(Path(value).resolve()) if Path(value).is_file() else value for value in job.model.opts)
    model = replace(job.model, config_file=job.model.config_file and job.model.config_file.resolve(), opts=opts)
    labels = job.settings.labels
    lungs = labels.lungs.resolve() if isinstance(labels.lungs, Path) else labels.lungs
    labels = replace(labels, lungs=lungs, lobes=labels.lobes and labels.lobes.resolve())
    settings = replace(job.settings, labels=labels)
    return replace(job, model=model, settings=settings, output=job.output.resolve(), progress=False)


def _prepare_on_ray(ray: Any, job: Any, options: dict[str, float]) -> None:
    try:
        ray.get(ray.remote(_load).options(max_retries=_RETRIES, **options).remote(job))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _load(job: RecognitionJob) -> None:
    job.prepare()


def _run(job: RecognitionJob, source: SeriesSource) -> Row:
    return job(source)


def _outcome(ray: Any, task: Any) -> Row | BaseException:
    try:
        row: Row = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error.cause
        return cause
    except ray.exceptions.RayError as error:
        return LungD2Error("ray", found=f"the task was lost ({type(error).__name__})", remedy="check the node's memory")
    return row
