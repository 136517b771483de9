"""Two processes that train together, for the tests: ``ROOT OUTPUT``; two lines from each."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.utils import comm

from lung_d2.engine import LungTrainer
from lung_d2.engine.convergence import ConvergenceStop
from lung_d2.errors import CheckpointError
from tiny import tiny_config


def converge() -> None:
    """Give both the flat loss of a run that has converged; an iteration needs both, as a training step does."""
    flat = SimpleNamespace(history=lambda name: SimpleNamespace(latest=lambda: 1.0))
    trainer: Any = SimpleNamespace(iter=0, max_iter=60, storage=flat)
    stop = ConvergenceStop(window=2, patience=5, tolerance=0.01, armed_from=0)
    stop.trainer = trainer
    while trainer.iter < trainer.max_iter:
        torch.distributed.all_reduce(torch.zeros(1))
        stop.after_step()
        trainer.iter += 1
    say(f"stopped at {trainer.iter}, converged at {stop.converged_at}")


def resume(root: str, output: Path) -> None:
    """Take up a run whose checkpoint is in the folder of the first process alone."""
    trainer = LungTrainer(
        tiny_config(Path(root), output / str(comm.get_rank()), "SOLVER.MAX_ITER", 4, "DATASETS.TEST", ())
    )
    try:
        trainer.resume_or_load(resume=True)
    except CheckpointError as error:
        say(str(error))


def say(text: str) -> None:
    sys.stdout.write(f"{comm.get_rank()}: {text}\n")
    sys.stdout.flush()
    time.sleep(0.2)  # or the other process may be ended with this one


def work(rank: int, root: str, output: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{output}/store", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    converge()
    resume(root, output)


if __name__ == "__main__":
    torch.multiprocessing.start_processes(work, (sys.argv[1], Path(sys.argv[2])), nprocs=2, start_method="fork")
