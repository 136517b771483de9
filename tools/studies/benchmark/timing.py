"""Time contenders alternately, so that what else the machine does touches all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Work = Callable[[int], object]
"""What a contender does with the input of this number."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one unit of work, medians over all turns.

    Attributes:
        seconds: By the clock on the wall.
        cpu_seconds: Of all threads of this process; other processes hardly change them.
        turns: How often it was done.
    """

    seconds: float
    cpu_seconds: float
    turns: int


def alternate(contenders: Mapping[str, Work], count: int, device: str = "cpu") -> dict[str, Timing]:
    """Let each contender work on each input in turn.

    Args:
        contenders: By name; each works on the first input once before, untimed.
        count: Number of inputs, 1 or more.
        device: On a GPU its queue is waited for.
    """
    for work in contenders.values():
        work(0)
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(count):
        for name in names if number % 2 else reversed(names):
            wall, cpu = time_once(lambda name=name, number=number: contenders[name](number), device)
            walls[name].append(wall)
            cpus[name].append(cpu)
    return {name: Timing(statistics.median(walls[name]), statistics.median(cpus[name]), count) for name in names}


def time_once(work: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Return the seconds of some work on the wall, and of the processor."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
