"""The picture of a training run: losses, learning rate and AP over the iterations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lung_d2.files import replace_file

METRICS_FILE = "metrics.json"
PICTURE_FILE = "training_curves.png"

_LOSSES = {
    "total_loss": "total",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_rpn_cls": "RPN objectness",
    "loss_rpn_loc": "RPN box",
}
_SCORES = {"bbox/AP": "box AP", "bbox/AP50": "box AP50", "segm/AP": "mask AP", "segm/AP50": "mask AP50"}


def read_metrics(output_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Read Detectron2's ``metrics.json`` as ``(iteration, value)`` of each metric.

    A value voids those before it of the same metric and the same or later iterations: they are of a run that was
    killed after its last checkpoint, or of an older run in the same folder. A line that a kill cut short is left out.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    path = output_dir / METRICS_FILE
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in row.items():
            points = series.setdefault(name, [])
            while points and points[-1][0] >= row["iteration"]:
                points.pop()
            points.append((row["iteration"], value))
    return series


def draw_training_curves(output_dir: Path) -> Path | None:
    """Draw the run in ``output_dir`` from its ``metrics.json``; without an evaluation the losses stand alone.

    Returns:
        The picture's path, or None while nothing was logged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_metrics(output_dir)
    if "total_loss" not in series:
        return None
    panels = 2 if series.keys() & _SCORES.keys() else 1
    figure = Figure(figsize=(5.5 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = figure.subplots(1, panels, squeeze=False)[0]
    _draw_lines(left, series, _LOSSES, marker="")
    left.set(xlabel="iteration", ylabel="loss", title="Losses", ylim=(0, None))
    for axes in right:
        _draw_lines(axes, series, _SCORES, marker="o")
        axes.set(xlabel="iteration", ylabel="%", title="Evaluation", ylim=(0, 100))
    if "lr" in series:
        rate = left.twinx()
        rate.plot(*zip(*series["lr"], strict=True), color="0.7", linewidth=1, linestyle=":")
        rate.set_ylabel("learning rate (dotted)", color="0.5")
        rate.set_ylim(0, None)
    path = output_dir / PICTURE_FILE
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _draw_lines(axes: Any, series: dict[str, list[tuple[int, float]]], names: dict[str, str], marker: str) -> None:
    for name, label in names.items():
        if name in series:
            axes.plot(*zip(*series[name], strict=True), label=label, linewidth=1.4, marker=marker, markersize=3)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.grid(color="0.9")
    axes.spines[["top"]].set_visible(False)
