#!/usr/bin/env python
r"""Measure how fast this project is, against plain Detectron2 and torchvision, in one run on one machine.

python tools/benchmark.py --input DICOM_FOLDER --output output/benchmark
python tools/benchmark.py --quick --output output/benchmark      # a tiny phantom: shows that it works, measures nothing

Contenders take turns, so that the ratios hold on a busy machine too; the times themselves do not. OUTPUT gets
benchmark.json, benchmark.md and benchmark.svg. A ratio above 1 means that this project is faster; each figure that was
not measured is null, and `reasons` says why.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lung_d2.command_line import run_tool
from lung_d2.ct import CTVolume, read_volume
from lung_d2.drawing.svg_chart import open_chart
from lung_d2.engine.precision import cpu_has_bfloat16
from lung_d2.errors import ConfigError
from lung_d2.files import create_folder, write_json, write_text
from studies.benchmark import inference, series, training
from studies.benchmark.inference import Setting
from studies.benchmark.timing import Timing

logger = logging.getLogger("benchmark")
PARTS = ("start", "series", "network", "decoding", "loading", "training", "scaling")
FIGURES = {
    "series_speedup": "the whole command against the plain loop",
    "network_speedup": "the network, same weights and size, against plain Detectron2",
    "roofline_share": "share of what a convolution reaches here",
    "train_speedup": "a training iteration against plain Detectron2",
    "loader_speedup": "loading a slice, cold, against Detectron2's mapper",
    "startup_s": "seconds to import and load",
}
_SCALES = (150, 300, 600)
_LOOP = "plain loop: " + inference.DEFAULTS


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        setting: The sizes of the network.
        slices: On which the network is timed.
        turns: Of what is done to a whole series.
        batch: Images of a training iteration.
        train_side: Pixels of their shorter side.
        steps: Iterations.
        scales: Numbers of slices of the series that show how time and memory grow.
        phantom: Slices and pixels of the phantom that stands for the series where none is given.
    """

    setting: Setting
    slices: int = 8
    turns: int = 3
    batch: int = 4
    train_side: int = 256
    steps: int = 5
    scales: tuple[int, ...] = _SCALES
    phantom: tuple[int, int] = (150, 512)


@dataclass
class Report:
    """What was measured.

    Attributes:
        figures: Of :data:`FIGURES`; None where a reason stands in ``reasons``.
        reasons: By figure.
        rows: What was measured, unit of work, times and, where there is one, their ratio.
        stages: Seconds of each stage of the whole command.
        facts: Of the machine and the measurements.
    """

    figures: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(FIGURES))
    reasons: dict[str, str] = field(default_factory=lambda: dict.fromkeys(FIGURES, "left out by --parts"))
    rows: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def set(self, name: str, value: float) -> None:
        """Keep a figure."""
        self.figures[name] = round(value, 3)
        del self.reasons[name]

    def add(self, what: str, times: dict[str, Timing], unit: str, reference: str = "") -> None:
        """Keep a row for each contender; ``reference`` is what the others are compared with."""
        for name, timing in times.items():
            ratio = round(times[reference].seconds / timing.seconds, 2) if reference else None
            rounded = {key: round(value, 5) for key, value in asdict(timing).items()}
            self.rows.append({"what": what, "who": name, "unit": unit, **rounded, "speedup": ratio})

    def write(self, folder: Path) -> None:
        """Write ``benchmark.json``, ``benchmark.md`` and ``benchmark.svg``."""
        rest = {"reasons": self.reasons, "machine": self.facts, "stages": self.stages, "rows": self.rows}
        write_json({**self.figures, **rest}, folder / "benchmark.json", indent=1)
        write_text(self._format(), folder / "benchmark.md")
        write_text(_draw(self.figures), folder / "benchmark.svg")

    def _format(self) -> str:
        lines = ["# Benchmark", "", *(f"- {name}: {value}" for name, value in self.facts.items()), ""]
        lines += ["![Ratios](benchmark.svg)", "", "| figure | value | meaning |", "|---|---|---|"]
        for name, meaning in FIGURES.items():
            value = self.figures[name]
            shown = f"not measured: {self.reasons[name]}" if value is None else f"{value:g}"
            lines.append(f"| `{name}` | {shown} | {meaning} |")
        lines += ["", "| what | who | seconds | processor seconds | of | times as fast |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            cells = (row["what"], row["who"], f"{row['seconds']:.4g}", f"{row['cpu_seconds']:.4g}", row["unit"])
            lines.append(f"| {' | '.join(cells)} | {row['speedup'] or ''} |")
        lines += ["", "| stage of the whole command | seconds |", "|---|---|"]
        lines += [f"| {name} | {seconds:.3g} |" for name, seconds in self.stages.items()]
        return "\n".join(lines) + "\n"


def _draw(figures: dict[str, float | None]) -> str:
    shown = {name: value for name, value in figures.items() if name.endswith("_speedup") and value is not None}
    with open_chart((6.0, 2.4)) as (axes, svg):
        axes.barh(list(shown), list(shown.values()))
        axes.axvline(1.0, color="0.4", linewidth=1)
        axes.set_xlabel("times as fast")
    return svg.getvalue()


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="folder with the DICOM files of one series (default: a phantom)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    parser.add_argument("--weights", default="mask_rcnn_R_50_FPN_both", help="weights file (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores (default: all)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1], help="default: all but scaling")
    parser.add_argument("--slices", type=int, default=Size.slices, help="slices for the network (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny phantom, a tiny network input and few turns")
    return parser


def main() -> None:
    """Measure, and write the report."""
    args = build_parser().parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("--device", found="no GPU that torch can use", expected="one", remedy="take --device cpu")
    create_folder(args.output)
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the commands that are run
    setting = Setting(args.weights, args.device)
    size = Size(setting, slices=args.slices)
    if args.quick:
        setting = Setting(args.weights, args.device, side=64, default_side=96)
        size = Size(setting, 1, 1, batch=1, train_side=64, steps=1, scales=(4, 8), phantom=(6, 96))
    report = Report(facts=_describe_machine(args.threads, args.device))
    with tempfile.TemporaryDirectory() as folder:
        source = args.input or series.write_phantom(Path(folder, "phantom"), *size.phantom)
        measure(report, size, source, Path(folder), args.parts)
    report.write(args.output)
    for name, value in report.figures.items():
        logger.info("%-16s %s", name, report.reasons[name] if value is None else value)


def _describe_machine(threads: int, device: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else "none used"
    limit, dtype = inference.measure_limit(device)
    return {
        "platform": f"{platform.system()} {platform.machine()}, torch {torch.__version__}",
        "threads": threads,
        "gpu": gpu,
        "processor computes bfloat16": cpu_has_bfloat16(),
        "convolution limit": f"{limit / 1e9:.0f} GFLOP/s in {dtype}",
        "load average before": round(os.getloadavg()[0], 2),
    }


def measure(report: Report, size: Size, source: Path, folder: Path, parts: list[str]) -> None:
    """Measure the parts that are asked for; ``folder`` is for what is written on the way."""
    volume = read_volume(source)
    report.facts["series"] = f"{len(volume.hu)} slices of {volume.hu.shape[1]} x {volume.hu.shape[2]} pixels"
    if "start" in parts:
        report.set("startup_s", inference.measure_start(size.setting, size.turns))
    if "series" in parts:
        _measure_series(report, size, source, volume)
    if "network" in parts:
        _measure_network(report, size, volume)
    if "decoding" in parts:
        times, missing = series.measure_decoding(source, folder / "decoding", size.turns)
        report.add("decoding", times, "series")
        report.facts |= {f"decoding {name}": reason for name, reason in missing.items()}
    if "loading" in parts or "training" in parts:
        _measure_training(report, size, volume, folder, parts)
    if "scaling" in parts:
        _measure_scaling(report, size, volume, folder)


def _measure_series(report: Report, size: Size, source: Path, volume: CTVolume) -> None:
    command, loop = inference.measure_series(size.setting, source, volume, size.slices)
    report.stages = command.stages
    report.add("whole command", {"lung_d2": command.timing, _LOOP: loop}, "series", _LOOP)
    report.set("series_speedup", loop.seconds / command.timing.seconds)
    report.facts |= {
        "slices a second": round(len(volume.hu) / command.timing.seconds, 2),
        "slices in the plain loop": f"{loop.turns}, for all",
        "peak memory, MiB": command.peak_memory_mib,
    }


def _measure_network(report: Report, size: Size, volume: CTVolume) -> None:
    times, operations = inference.measure_network(size.setting, volume, size.slices)
    report.add("network", times, "slice", inference.PLAIN)
    report.set("network_speedup", times[inference.PLAIN].seconds / times[inference.OURS].seconds)
    limit, _ = inference.measure_limit(size.setting.device)
    report.set("roofline_share", operations / times[inference.OURS].seconds / limit)
    report.facts["operations of a slice"] = f"{operations / 1e9:.1f} GFLOP"


def _measure_training(report: Report, size: Size, volume: CTVolume, folder: Path, parts: list[str]) -> None:
    cfg = training.training_config(size.setting.weights, size.setting.device, size.train_side)
    records = training.write_slices(volume, folder / "slices", max(4 * size.slices, size.batch))
    if "loading" in parts:
        times = training.measure_loading(cfg, records)
        report.add("loading", times, "slice", training.PLAIN)
        report.set("loader_speedup", times[training.PLAIN].seconds / times[training.OURS].seconds)
    if "training" in parts:
        times = training.measure_training(cfg, records, size.batch, size.steps)
        report.add("training", times, f"iteration of {size.batch}", training.PLAIN)
        report.set("train_speedup", times[training.PLAIN].seconds / times[training.OURS].seconds)


def _measure_scaling(report: Report, size: Size, volume: CTVolume, folder: Path) -> None:
    for slices in size.scales:
        source = series.write_copy(volume, folder / f"{slices}", slices)
        command = inference.measure_command(size.setting, source, folder / f"{slices}_results")
        report.add("scaling", {f"{slices} slices": command.timing}, "series")
        report.facts[f"peak memory of {slices} slices, MiB"] = command.peak_memory_mib


if __name__ == "__main__":
    run_tool(main)
