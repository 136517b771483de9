"""Many runs of an ablation, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from tqdm import tqdm

from lung_d2.ablation.runs import Run, carry_out
from lung_d2.errors import LungD2Error

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def carry_out_all(runs: Sequence[tuple[Run, CfgNode]], workers: int) -> list[str]:
    """Carry out the runs that have not ended, each in a process of its own with its log in its folder.

    Args:
        runs: The runs with their configs; those that have ended count in the progress bar alone.
        workers: How many at a time; they share the cores.

    Returns:
        The names of those that failed.
    """
    if not runs:
        return []
    todo = [(run, cfg) for run, cfg in runs if not run.has_ended]
    threads = max(len(os.sched_getaffinity(0)) // workers, 1)
    running: dict[int, tuple[Run, BaseProcess]] = {}
    failed = []
    with tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run") as bar:
        try:
            while todo or running:
                while todo and len(running) < workers:
                    run, cfg = todo.pop(0)
                    process = _start(run, cfg, threads)
                    running[process.sentinel] = run, process
                ended = wait(list(running))
                for sentinel in [one for one in running if one in ended]:
                    run, process = running.pop(sentinel)
                    process.join()
                    failed += [str(run)] if process.exitcode else []
                    bar.set_postfix_str(str(run))
                    bar.update()
        finally:
            for _, process in running.values():
                process.terminate()
    return failed


def _start(run: Run, cfg: CfgNode, threads: int) -> BaseProcess:
    # A process for each run: Detectron2's logs and registries are global.
    process = get_context("spawn").Process(target=_carry_out_one, args=(run, cfg, threads))
    process.start()
    return process


def _carry_out_one(run: Run, cfg: CfgNode, threads: int) -> None:
    """Carry out a run in this process, with what it says in its ``log.txt``; a defect keeps its traceback on stderr."""
    from detectron2.utils.logger import setup_logger

    log = setup_logger(cfg.OUTPUT_DIR, name="lung_d2", abbrev_name="lung_d2")
    try:
        carry_out(run, cfg, threads=threads)
    except LungD2Error as error:
        log.error("%s: %s", run, error)
        sys.exit(1)
