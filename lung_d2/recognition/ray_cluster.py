"""Series on a Ray cluster: the same job, as Ray tasks."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lung_d2.errors import ConfigError, DependencyError, LungD2Error
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.sources import SeriesSource
from lung_d2.recognition.summary import Row
from lung_d2.recognition.workers import CORES_PER_WORKER, Outcome

_PATIENCE_S = 10.0
_RETRIES = 1  # of a task whose process or node died


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
        _prepare(ray, shared, options)
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
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray {address}", found="no cluster answers", expected="a running one", remedy="start it by 'ray start'"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray itself would wait for many minutes."""
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


def _prepare(ray: Any, job: Any, options: dict[str, float]) -> None:
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
