"""The figures that are said first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_case, make_detections, make_truth, perfect, square
from html_page import Page, assert_stands_alone
from lung_d2.data.planes import write_plane
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.page import (
    ROWS,
    render_evaluation_page,
    say_figure,
    say_figures,
    say_headline,
    show_cell,
    shown_categories,
)
from lung_d2.evaluation.truth import Source, Truth

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
    lines = list(say_figures(build(ONE, perfect(ONE))))
    assert "Mask AP, %, ground glass opacity: 100.0 [100.0, 100.0], 2 patients (few)" in lines
    assert lines[-1].startswith("warning: ")
    assert not any("specificity" in line for line in lines if not line.startswith("warning"))


def test_headline_is_short():
    first, *rest, last = say_headline(build(ONE, perfect(ONE)))
    assert first == "Mask AP50, %, ground glass opacity: 100.0 [100.0, 100.0], 2 patients (few)"
    assert [line.split(",")[0] for line in rest] == ["Found on slices at 1 false positive per image"]
    assert last.endswith(" warnings: see the page")


def test_comparison_is_in_the_line():
    (line,) = (one for one in say_figures(build(ONE, perfect(ONE), [])) if one.startswith("Mask AP50"))
    assert line.endswith("; against 0.0: +100.0 [100.0, 100.0], p 0.500")


def test_figure_without_interval_is_said_alone():
    figure = {"value": 0.5, "low": None, "high": None, "patients": 1}
    assert say_figure(figure, 2) == "0.50, 1 patient"
    assert say_figure(figure | {"low": 0.4, "high": 0.6, "patients": 8}, 1) == "0.5 [0.4, 0.6], 8 patients"


LESIONS = [(GGO, square(4, 4, 20)), (BRONCHIECTASIS, square(40, 40, 12))]
SLICES = [
    Slice(LESIONS, patient="aa", slice_index=0, position_mm=0.0),
    Slice(LESIONS, [(GGO, square(30, 0, 20))], patient="aa", slice_index=1, position_mm=2.0),
    Slice(LESIONS[:1], patient="bb", slice_index=0, spacing_mm=None),
    Slice(patient="bb", slice_index=1, spacing_mm=None),
]
FOUND = [*perfect(SLICES), (3, GGO, 0.7, square(30, 30, 9)), (0, BRONCHIECTASIS, 0.3, square(2, 40, 9))]


def build_page(folder, slices=SLICES, found=FOUND, against=None, name="made_val", draws=20):
    made = make_truth(slices, name)
    for number in range(len(slices)):
        write_plane(np.full((64, 64), 90, np.uint8), folder / f"{number}.png")
    records = tuple(replace(one, path=folder / one.file_name) for one in made.slices)
    truth = Truth((Source(name, folder / "val.json", folder),), records, made.lesions, made.undecided)
    detections = make_detections(found)
    others = None if against is None else make_detections(against)
    content = evaluate(truth, detections, EvaluationSettings(draws=draws), others)
    return content, Page(render_evaluation_page(content, truth, detections))


def test_page_stands_alone(tmp_path):
    _, page = build_page(tmp_path, against=[])
    assert_stands_alone(page)
    assert len(page.html) < 2_000_000


def test_page_shows_figures_with_intervals_and_patients(tmp_path):
    content, page = build_page(tmp_path)
    figure = content["metrics"]["coco"]["figures"]["segm"]["AP50"]["ground_glass_opacity"]
    assert f"{figure['value']:.1f} {figure['low']:.1f} to {figure['high']:.1f} 2 patients" in page.text
    for title in ("At a glance", "FROC", "Series", "Calibration", "Slices as cases"):
        assert title in page.text


def test_curves_and_slices_are_pictures(tmp_path):
    _, page = build_page(tmp_path)
    assert sum(alt.startswith("Curve: ") for alt in page.attributes["alt"]) == 4
    assert "Chart: Reliability of scores" in page.attributes["alt"]
    assert sum(alt.startswith("Annotation and detections") for alt in page.attributes["alt"]) == 4


def test_warnings_come_first(tmp_path):
    content, page = build_page(tmp_path)
    assert content["warnings"]
    for warning in content["warnings"]:
        assert page.text.index(warning) < page.text.index("At a glance")


def test_froc_names_the_threshold_of_each_rate(tmp_path):
    content, page = build_page(tmp_path)
    thresholds = content["metrics"]["froc"]["curves"]["series_per_series"]["all"]["thresholds"]
    assert thresholds["0.125"] == 0.9
    assert "from score 0.900" in page.text


def test_volumes_are_unknown_without_spacing(tmp_path):
    _, page = build_page(tmp_path)
    assert "aa aa ground glass opacity 1.00 1.6 1.6 +0.00" in page.text
    assert "bb bb ground glass opacity 0.91 – – +0.20" in page.text


def test_comparison_is_shown_with_p(tmp_path):
    _, page = build_page(tmp_path, against=[])
    assert "Comparison" in page.text
    assert "Mask AP50, % all 100.0 0.0 100.0 1 patient – ground glass opacity 100.0 0.0 100.0 100.0 to" in page.text
    assert "100.0 2 patients 0.500" in page.text
    assert "Comparison" not in build_page(tmp_path)[1].text


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        (SLICES, []),
        ([Slice()], []),
        ([Slice()], [(0, GGO, 0.9, square(0, 0, 9))]),
        (SLICES[2:3], perfect(SLICES[2:3])),
    ],
    ids=["nothing found", "nothing there", "all false", "one category, one patient"],
)
@pytest.mark.parametrize("draws", [0, 5])
def test_odd_results_have_a_page(tmp_path, slices, found, draws):
    _, page = build_page(tmp_path, slices, found, draws=draws)
    assert_stands_alone(page)
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text


def test_one_category_has_one_column(tmp_path):
    _, page = build_page(tmp_path, SLICES[2:], [])
    head, _, table = page.text.partition("At a glance")
    assert "bronchiectasis" in head
    assert "bronchiectasis" not in table.split("Mask AP")[0]


def test_names_are_escaped(tmp_path):
    _, page = build_page(
        tmp_path, [replace(SLICES[2], series="<i>x</i>")], [(0, GGO, 0.9, square(0, 0, 9))], name="<b>bold</b>"
    )
    assert "<b>bold</b>" not in page.html
    assert "<i>x</i>" not in page.html
    assert "<b>bold</b>" in page.text


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (None, ("–", "", None, False)),
        ({"value": None, "low": None, "high": None, "patients": 0}, ("–", "", None, False)),
        ({"value": 0.5, "low": None, "high": None, "patients": 1}, ("0.50", "", 1, False)),
        ({"value": 0.5, "low": 0.25, "high": 0.75, "patients": 7}, ("0.50", "0.25 to 0.75", 7, True)),
        ({"value": 0.5, "low": 0.25, "high": 0.75, "patients": 8}, ("0.50", "0.25 to 0.75", 8, False)),
    ],
)
def test_cell_marks_few_patients(figure, shown):
    cell = show_cell(figure, 2)
    assert (cell.value, cell.interval, cell.patients, cell.is_few) == shown
