"""The figures that are said first."""

from __future__ import annotations

import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_case, make_detections, perfect, square
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.headline import ROWS, say_figure, say_headline, shown_categories

BOTH = [Slice([(GGO, square(4, 4, 16)), (BRONCHIECTASIS, square(40, 40, 12))], patient=name) for name in "ab"]
ONE = [Slice([(GGO, square(4, 4, 16))], patient=name) for name in "ab"]


def build(slices, found, against=None):
    others = None if against is None else make_detections(against)
    return evaluate(*make_case(slices, found), EvaluationSettings(draws=20), others)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_row_is_found(row):
    content = build(BOTH, perfect(BOTH))
    found = [row.find(content["metrics"], name) for name in ("all", "ground_glass_opacity")]
    assert found[1]["patients"] == 0 if row.label.endswith(("specificity", "AUC")) else found[1]["patients"] == 2
    assert (found[0] is None) == (row.group == "series")


def test_categories_together_are_shown_where_there_are_several():
    assert shown_categories(build(BOTH, [])) == ["all", "ground_glass_opacity", "bronchiectasis"]
    assert shown_categories(build(ONE, [])) == ["ground_glass_opacity"]
    assert shown_categories(build(ONE, [(0, BRONCHIECTASIS, 0.5, square(0, 0, 9))]))[0] == "all"
    assert shown_categories(build([Slice()], [])) == ["all", "ground_glass_opacity", "bronchiectasis"]


def test_lines_hold_figure_interval_patients_and_warnings():
    lines = list(say_headline(build(ONE, perfect(ONE))))
    assert "Mask AP, %, ground glass opacity: 100.0 [100.0, 100.0], 2 patients (few)" in lines
    assert lines[-1].startswith("warning: ")
    assert not any("specificity" in line for line in lines if not line.startswith("warning"))


def test_comparison_is_in_the_line():
    (line,) = (one for one in say_headline(build(ONE, perfect(ONE), [])) if one.startswith("Mask AP50"))
    assert line.endswith("; against 0.0: +100.0 [100.0, 100.0], p 0.500")


def test_figure_without_interval_is_said_alone():
    figure = {"value": 0.5, "low": None, "high": None, "patients": 1}
    assert say_figure(figure, 2) == "0.50, 1 patient"
    assert say_figure(figure | {"low": 0.4, "high": 0.6, "patients": 8}, 1) == "0.5 [0.4, 0.6], 8 patients"
