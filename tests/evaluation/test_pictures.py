"""Curves as SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_detections, make_truth, square
from lung_d2.categories import CATEGORIES
from lung_d2.data.planes import write_plane
from lung_d2.errors import DatasetError
from lung_d2.evaluation.pictures import (
    chart_colors,
    draw_froc,
    draw_precision_recall,
    draw_reliability,
    draw_slice,
    draw_slices,
)
from lung_d2.evaluation.truth import Source, Truth

HAZE, TUBE = CATEGORIES.names
COLORS = chart_colors(CATEGORIES)
TOGETHER = "#2b333c"
CURVE = {"false_positives": [0.0, 1.0, 3.0], "sensitivity": [0.25, 0.5, 0.75], "threshold": [0.9, 0.5, 0.0]}
FIGURES = {f"{rate:g}": {"value": 0.5, "low": 0.25, "high": 0.75} for rate in (0.5, 1, 2)}
DIAGRAM = {"bin": [0.2, 0.9], "detections": [5, 1], "mean_score": [0.25, 0.95], "share_correct": [0.0, 1.0]}


def texts_of(svg):
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def froc(*names, figures=FIGURES):
    return draw_froc(dict.fromkeys(names, CURVE), dict.fromkeys(names, figures), (0.5, 1.0, 2.0), "series", COLORS)


def colors_of(svg):
    return {color for color in (*COLORS.values(), TOGETHER) if re.search(color, svg)}


def test_froc_names_its_rates_and_axes():
    assert {"1/2", "1", "2", "false positives per series", "lesions found"} <= set(texts_of(froc(HAZE)))


def test_categories_have_their_colors_and_all_is_drawn_with_several():
    assert colors_of(froc("all", HAZE, TUBE)) == {*COLORS.values(), TOGETHER}
    assert colors_of(froc("all", TUBE)) == {COLORS[TUBE]}


def test_froc_without_intervals_is_drawn():
    figures = {rate: {"value": 0.5, "low": None, "high": None} for rate in FIGURES}
    assert froc(HAZE, figures=figures).count("<path") < froc(HAZE).count("<path")


def test_same_curve_same_bytes():
    assert froc(HAZE) == froc(HAZE)


def test_precision_against_recall():
    svg = draw_precision_recall([0.0, 0.5, 1.0], {HAZE: [1.0, 0.5, 0.0]}, COLORS)
    assert {"recall", "precision"} <= set(texts_of(svg))
    assert colors_of(svg) == {COLORS[HAZE]}


def test_reliability_has_its_axes():
    svg = draw_reliability({"all": DIAGRAM, HAZE: DIAGRAM}, COLORS)
    assert {"score", "share correct"} <= set(texts_of(svg))
    assert colors_of(svg) == {COLORS[HAZE]}


SLICES = [Slice([(GGO, square(10, 10, 20))], [(GGO, square(40, 40, 20))])]
FOUND = make_detections([(0, BRONCHIECTASIS, 0.6, square(10, 10, 20)), (0, GGO, 0.4, square(40, 5, 10))])


def truth_in(folder, plane, slices=SLICES):
    made = make_truth(slices)
    write_plane(plane, folder / "0.png")
    records = tuple(replace(one, path=folder / one.file_name) for one in made.slices)
    return Truth((Source("made_val", folder / "x.json", folder),), records, made.lesions, made.undecided)


def halves(picture):
    width = (picture.shape[1] - 3) // 2
    return picture[:, :width], picture[:, -width:]


def has_color(picture, color):
    return bool((np.abs(picture.astype(int) - np.array(color)).max(axis=-1) <= 2).any())


GREY = np.full((64, 64), 100, np.uint8)


def test_lesions_are_left_and_detections_that_count_right(tmp_path):
    left, right = halves(draw_slice(truth_in(tmp_path, GREY), FOUND, 0, 0.5))
    ggo, bronchiectasis = (category.color for category in CATEGORIES)
    assert (has_color(left, ggo), has_color(left, bronchiectasis)) == (True, False)
    assert (has_color(right, ggo), has_color(right, bronchiectasis)) == (False, True)
    assert has_color(halves(draw_slice(truth_in(tmp_path, GREY), FOUND, 0, 0.4))[1], ggo)


def test_undecided_is_hatched_on_the_left_alone(tmp_path):
    left, right = halves(draw_slice(truth_in(tmp_path, GREY), make_detections([]), 0, 0.5))
    corner = slice(190, 280)
    assert (left[corner, corner] != 100).any()
    assert (right == 100).all()


def test_hu_is_shown_in_the_lung_window(tmp_path):
    plane = np.full((64, 64), -600, np.int16)  # the centre of the window
    right = halves(draw_slice(truth_in(tmp_path, plane), make_detections([]), 0, 0.5))[1]
    assert abs(int(right.mean()) - 128) <= 1


def test_pictures_say_how_good_and_which_slice(tmp_path):
    entry = {"slice": 0, "dataset": "made_val", "file_name": "0.png", "dice": 0.25, "lesion": 1400, "missed": 30,
             "false": 2}  # fmt: skip
    (picture,) = draw_slices(truth_in(tmp_path, GREY), FOUND, [entry], 0.5)
    assert picture.note == "Dice 0.25: 1,400 px lesion, 30 missed, 2 false"
    assert picture.place == "made_val · 0.png"
    assert picture.source.startswith("data:image/jpeg;base64,")


def test_picture_of_another_size_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"0\.png.*prepare the data set again"):
        draw_slice(truth_in(tmp_path, np.zeros((32, 64), np.uint8)), FOUND, 0, 0.5)


def test_slice_whose_picture_is_missing_is_drawn_without_and_says_so(tmp_path):
    truth = truth_in(tmp_path, GREY)
    ranked = [{"slice": 0, "dataset": "d", "file_name": "0.png", "dice": 0.5, "lesion": 9, "missed": 3, "false": 1}]
    (there,) = draw_slices(truth, FOUND, ranked, 0.5)
    seen = draw_slice(truth, FOUND, 0, 0.5)
    (tmp_path / "0.png").unlink()
    (gone,) = draw_slices(truth, FOUND, ranked, 0.5)
    assert (there.place, gone.place) == ("d · 0.png", "d · 0.png · picture missing")
    drawn = draw_slice(truth, FOUND, 0, 0.5)
    assert drawn.shape == seen.shape
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 2  # the outlines are there


def test_picture_outside_the_data_set_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    truth = truth_in(tmp_path, GREY)
    away = Truth((Source("made_val", tmp_path, tmp_path / "in"),), truth.slices, truth.lesions, truth.undecided)
    with pytest.raises(DatasetError, match="outside the data set"):
        draw_slice(away, FOUND, 0, 0.5)
