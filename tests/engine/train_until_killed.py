"""A training run for the tests to kill: ``--root R --output O [--kill-at N] KEY VALUE ...``.

Every loss is appended to ``OUTPUT/losses.txt`` as ``iteration total_loss``.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

from lung_d2.engine import LungTrainer
from tiny import tiny_config


class WriteLosses(HookBase):  # type: ignore[misc]
    """Append each loss to a file, and kill the process after a given iteration."""

    def __init__(self, path: Path, kill_at: int | None) -> None:
        self.path, self.kill_at = path, kill_at

    def after_step(self) -> None:
        loss = self.trainer.storage.history("total_loss").latest()
        with self.path.open("a") as stream:
            stream.write(f"{self.trainer.iter} {loss!r}\n")
        if self.trainer.iter == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(number: int) -> None:
    """Let the save of this number, from 1, write half of its bytes and die."""
    real_save, count = torch.save, 0

    def save(content: Any, stream: Any) -> None:
        nonlocal count
        count += 1
        real_save(content, stream)
        if count == number:
            stream.flush()
            os.ftruncate(stream.fileno(), stream.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save


def main() -> None:
    """Train, taking up what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-in-save", type=int)
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.kill_in_save:
        kill_in_save(args.kill_in_save)
    trainer = LungTrainer(tiny_config(args.root, args.output, *args.opts))
    trainer.register_hooks([WriteLosses(args.output / "losses.txt", args.kill_at)])
    trainer.resume_or_load(resume=True)
    trainer.train()


if __name__ == "__main__":
    main()
