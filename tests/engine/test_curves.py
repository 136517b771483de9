"""The curves are read from a log that a kill may have cut and a resume doubled."""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from lung_d2.engine.curves import draw_training_curves, read_metrics


def test_resumed_iterations_count_once_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    rows = [{"iteration": 19, "total_loss": 3.0}, {"iteration": 39, "total_loss": 2.0}]
    again = [{"iteration": 39, "total_loss": 1.5}, {"iteration": 40, "segm/AP": 12.0}]
    lines = [json.dumps(row) for row in rows] + ['{"iteration": 59, "total'] + [json.dumps(row) for row in again]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    series = read_metrics(tmp_path)
    assert series["total_loss"] == [(19, 3.0), (39, 1.5)]
    assert series["segm/AP"] == [(40, 12.0)]
    path = draw_training_curves(tmp_path)
    assert path is not None
    assert cv2.imread(str(path)).std() > 5  # something is drawn


def test_older_run_in_the_folder_does_not_show(tmp_path: Path) -> None:
    rows = [{"iteration": 99, "total_loss": 9.0}, {"iteration": 19, "total_loss": 1.0}]
    (tmp_path / "metrics.json").write_text("\n".join(json.dumps(row) for row in rows))
    assert read_metrics(tmp_path)["total_loss"] == [(19, 1.0)]


def test_losses_stand_alone_before_an_evaluation(tmp_path: Path) -> None:
    widths = []
    for row in ({"iteration": 19, "total_loss": 3.0}, {"iteration": 19, "total_loss": 3.0, "segm/AP": 1.0}):
        (tmp_path / "metrics.json").write_text(json.dumps(row))
        widths.append(cv2.imread(str(draw_training_curves(tmp_path))).shape[1])
    assert widths[1] == 2 * widths[0]


def test_no_picture_before_the_first_loss(tmp_path: Path) -> None:
    assert draw_training_curves(tmp_path) is None
