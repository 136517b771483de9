"""Worker processes that end with the process that opened them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import Thread

import cv2


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_pool(
    workers: int, threads: int = 1, set_up: Callable[[], object] | None = None, *, end_on_error: bool = False
) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of worker processes; where this process is killed, they end at once.

    Otherwise they would go on writing into the folders of the next run. If an error leaves the pool, no job starts.

    Args:
        workers: Processes, 1 or more.
        threads: Threads of OpenCV in each.
        set_up: What else is done in each, before its first job; it is pickled.
        end_on_error: Where an error leaves the pool, end the jobs that run too; else they are waited for.

    Yields:
        The pool.
    """
    context = get_context("spawn")  # not forked: the threads of OpenCV and torch do not survive a fork
    theirs, ours = context.Pipe(duplex=False)
    with (
        theirs,
        ours,
        ProcessPoolExecutor(workers, context, _start_worker, (theirs, threads, set_up)) as pool,
        ExitStack() as on_error,
    ):
        on_error.callback(pool.shutdown, cancel_futures=True)
        if end_on_error:
            on_error.callback(ours.close)
        yield pool
        on_error.pop_all()


def _start_worker(parent: Connection, threads: int, set_up: Callable[[], object] | None) -> None:
    # First of all: what is set up may take seconds, in which the parent may end.
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(threads)
    if set_up is not None:
        set_up()


def _end_with(parent: Connection) -> None:
    """End this process when its parent ends: the connection then closes, and nothing else is ever sent over it."""
    wait([parent])
    os._exit(1)


def ignore_deprecations() -> None:
    """Ignore, in this process, the deprecation warnings of torch that Detectron2 causes."""
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid: in an upcoming release", category=UserWarning)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # it warns of how Detectron2 calls it
