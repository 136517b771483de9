"""Curves as SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.charts import draw_froc, draw_precision_recall, draw_reliability

GGO, BRONCHIECTASIS = (category.name for category in CATEGORIES)
COLORS = {category.name: "#{:02x}{:02x}{:02x}".format(*category.color) for category in CATEGORIES}
TOGETHER = "#2b333c"
CURVE = {"false_positives": [0.0, 1.0, 3.0], "sensitivity": [0.25, 0.5, 0.75], "threshold": [0.9, 0.5, 0.0]}
FIGURES = {f"{rate:g}": {"value": 0.5, "low": 0.25, "high": 0.75} for rate in (0.5, 1, 2)}
DIAGRAM = {"bin": [0.2, 0.9], "detections": [5, 1], "mean_score": [0.25, 0.95], "share_correct": [0.0, 1.0]}


def texts_of(svg):
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def froc(*names, figures=FIGURES):
    return draw_froc(dict.fromkeys(names, CURVE), dict.fromkeys(names, figures), (0.5, 1.0, 2.0), "series")


def colors_of(svg):
    return {color for color in (*COLORS.values(), TOGETHER) if re.search(color, svg)}


def test_froc_names_its_rates_and_axes():
    assert {"1/2", "1", "2", "false positives per series", "lesions found"} <= set(texts_of(froc(GGO)))


def test_categories_have_their_colors_and_all_is_drawn_with_several():
    assert colors_of(froc("all", GGO, BRONCHIECTASIS)) == {*COLORS.values(), TOGETHER}
    assert colors_of(froc("all", BRONCHIECTASIS)) == {COLORS[BRONCHIECTASIS]}


def test_froc_without_intervals_is_drawn():
    figures = {rate: {"value": 0.5, "low": None, "high": None} for rate in FIGURES}
    assert froc(GGO, figures=figures).count("<path") < froc(GGO).count("<path")


def test_same_curve_same_bytes():
    assert froc(GGO) == froc(GGO)


def test_precision_against_recall():
    svg = draw_precision_recall([0.0, 0.5, 1.0], {GGO: [1.0, 0.5, 0.0]})
    assert {"recall", "precision"} <= set(texts_of(svg))
    assert colors_of(svg) == {COLORS[GGO]}


def test_reliability_has_its_axes():
    svg = draw_reliability({"all": DIAGRAM, GGO: DIAGRAM})
    assert {"score", "share correct"} <= set(texts_of(svg))
    assert colors_of(svg) == {COLORS[GGO]}
