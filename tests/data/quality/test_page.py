"""Bar charts as SVG."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from html_page import Page, assert_stands_alone
from lung_d2.categories import CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import write_dataset
from lung_d2.data.quality.page import bar_heights, draw_histogram, write_dataset_page
from lung_d2.data.quality.summary import build_histogram
from lung_d2.data.selection import KEEP_ALL, Selection
from lung_d2.errors import DatasetError
from tiny import tiny_slices, write_tiny_dataset

COLORS = [category.color for category in CATEGORIES]


def texts_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_are_of_all_splits_with_what_lies_beyond_the_edges() -> None:
    histogram = build_histogram({"train": [-5, 3, 12], "val": [4, 99]}, (0, 10, 20))
    assert bar_heights(histogram) == [1, 2, 1, 1]


def test_chart_is_svg_with_its_labels_as_text() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    texts = texts_of(draw_histogram([histogram], "mm²", "lesions"))
    assert {"mm²", "lesions", "0", "10", "20"} <= set(texts)


def test_colors_are_those_of_the_categories() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    svg = draw_histogram([histogram, histogram], "HU", "lesions", COLORS)
    for color in COLORS:
        assert re.search("#{:02x}{:02x}{:02x}".format(*color), svg)


def test_axis_shows_only_where_something_is() -> None:
    histogram = build_histogram({"train": [41, 44]}, tuple(range(0, 100, 10)))
    texts = texts_of(draw_histogram([histogram], "mm", "series"))
    assert {"30", "40", "50", "60"} <= set(texts)
    assert not {"20", "70", "90"} & set(texts)


def test_same_histogram_same_bytes() -> None:
    histogram = build_histogram({"train": [3, 12]}, (0, 10, 20))
    assert draw_histogram([histogram], "mm", "series") == draw_histogram([histogram], "mm", "series")


def test_empty_histogram_is_drawn() -> None:
    assert texts_of(draw_histogram([build_histogram({}, (0, 10, 20))], "mm", "series"))


MOST_BYTES = 5_000_000


def read_page(folder: Path) -> Page:
    return Page(write_dataset_page(folder).read_text(encoding="utf-8"))


def write(
    root: Path,
    change: Callable[[AnnotatedSlice], AnnotatedSlice],
    split: dict[str, str],
    selection: Selection = KEEP_ALL,
) -> Path:
    """Write a data set of the tiny patients, their slices changed; one for each patient of the split."""

    def load(number: int) -> Iterator[AnnotatedSlice]:
        return map(change, tiny_slices(number, 4, 64, 0))

    cases = [Case(f"case {n}", name, f"series{n}", partial(load, n), True) for n, name in enumerate(split)]
    return write_dataset(root, "tiny", cases, split, selection=selection)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"))


def edit_report(folder: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Return a data set like this, whose report is changed."""
    for name in ("annotations", "images"):
        (target / name).symlink_to(folder / name)
    summary = json.loads((folder / "report.json").read_text())
    change(summary)
    (target / "report.json").write_text(json.dumps(summary))
    return target


def test_page_stands_beside_the_report(dataset: Path) -> None:
    assert write_dataset_page(dataset) == dataset / "report.html"


def test_page_needs_nothing_else(dataset: Path) -> None:
    page = read_page(dataset)
    assert len(page.attributes["src"]) > 8
    assert_stands_alone(page)


def test_charts_need_nothing_else(dataset: Path) -> None:
    for source in read_page(dataset).attributes["src"]:
        kind, _, data = source.partition(",")
        if "svg" in kind:
            svg = base64.b64decode(data).decode()
            assert "<script" not in svg
            assert not re.search(r'href="(?!#)', svg)


def test_page_says_the_numbers(dataset: Path) -> None:
    text = read_page(dataset).text
    for words in ("4 patients", "16 slices", "12 ground glass opacity", "12 bronchiectasis", "train 3 3 12 9 3 0 0 0"):
        assert words in text


def test_page_says_what_it_is_not(dataset: Path) -> None:
    assert "research use only, not a medical device" in read_page(dataset).text


def test_rules_of_selection_are_listed_with_what_they_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, lambda item: item, {"a": "train", "b": "val"}, Selection(lesion_free_ratio=0.0))
    assert "--lesion-free-ratio slices without lesions for each slice with lesions 1 0 1 0" in read_page(folder).text


def test_suspicions_have_words_and_pictures(tmp_path: Path) -> None:
    def invert(item: AnnotatedSlice) -> AnnotatedSlice:
        return replace(item, instances=((GROUND_GLASS_OPACITY, np.ones(item.plane.shape, bool)),))

    page = read_page(write(tmp_path, invert, {"a": "train", "b": "val"}))
    assert "Mask nearly everywhere : 8 slices" in page.text.replace("everywhere:", "everywhere :")
    assert "100% of the slice is lesion" in page.attributes["alt"]
    assert "Look at this before training" in page.text


def test_nothing_suspicious_is_said_too(dataset: Path, tmp_path: Path) -> None:
    page = read_page(edit_report(dataset, tmp_path, lambda summary: summary["suspicions"].clear()))
    assert "Nothing: masks, values, orientation, spacing and copies were checked" in page.text
    assert "Look at this before training" not in page.text


def test_leaks_that_were_allowed_are_listed(dataset: Path, tmp_path: Path) -> None:
    leak = {"first": "a/1.png", "second": "b/2.png", "distance": 7, "kind": "mirrored copy", "splits": ["train", "val"]}
    leaks = {"count": 1, "kinds": {"mirrored copy": 1}, "examples": [leak]}
    page = read_page(edit_report(dataset, tmp_path, lambda summary: summary.update(leaks=leaks)))
    assert "1 pair of slices or patients in two splits" in page.text
    assert "train · a/1.png val · b/2.png mirrored copy 7" in page.text


def test_hostile_words_are_escaped(dataset: Path, tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>"><img src=x>'

    def poison(summary: dict[str, Any]) -> None:
        summary["name"] = evil
        example = {"file_name": "series0/0001.png", "split": evil, "note": evil}
        suspicion = {"kind": evil, "title": evil, "unit": "slice", "count": 1, "explanation": evil, "remedy": evil}
        summary["suspicions"] = [suspicion | {"examples": [example]}]

    page = read_page(edit_report(dataset, tmp_path, poison))
    assert "script" not in page.tags
    assert "x" not in page.attributes["src"]
    assert evil in page.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda item: replace(item, instances=()), "No lesion is in this data set."),
        (lambda item: replace(item, instances=item.instances[:1]), "0 bronchiectasis"),
        (
            lambda item: replace(item, pixel_spacing_mm=None, slice_position_mm=None),
            "Lesion area in a slice, in pixels",
        ),
        (
            lambda item: replace(item, plane=np.clip(item.plane // 8 + 125, 0, 255).astype(np.uint8)),
            "1 of 1 series are grey levels without HU",
        ),
        (
            lambda item: replace(item, undecided=np.ones(item.plane.shape, bool), instances=()),
            "4 slices hold only undecided regions",
        ),
    ],
    ids=["no lesions", "one category", "no spacing", "grey", "undecided"],
)
def test_odd_sets_have_a_page(tmp_path: Path, change: Callable[[AnnotatedSlice], AnnotatedSlice], words: str) -> None:
    assert words in read_page(write(tmp_path, change, {"a": "train"})).text


def test_page_stays_small_whatever_the_pictures(tmp_path: Path) -> None:
    def enlarge(item: AnnotatedSlice) -> AnnotatedSlice:
        rng = np.random.default_rng(item.slice_index)
        plane = rng.integers(-1000, 400, (512, 512)).astype(np.int16)  # noise, which JPEG cannot press
        masks = [np.pad(mask, (0, 448)) for _, mask in item.instances]
        return replace(item, plane=plane, instances=tuple((GROUND_GLASS_OPACITY, mask) for mask in masks))

    folder = write(tmp_path, enlarge, {"a": "train"})
    examples = [{"file_name": f"series0/{n % 4:04d}.png", "split": "train", "note": "x"} for n in range(8)]
    summary = json.loads((folder / "report.json").read_text())
    words = dict.fromkeys(("title", "explanation", "remedy"), "odd") | {"unit": "slice", "count": 8}
    summary["suspicions"] = [{"kind": f"kind{n}", "examples": examples} | words for n in range(30)]
    (folder / "report.json").write_text(json.dumps(summary))
    assert 1_000_000 < write_dataset_page(folder).stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    ("content", "found"), [("{", "no report"), ("[]", "no report"), ('{"schema_version": 99}', "version 99")]
)
def test_broken_report_is_an_error(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DatasetError, match=f"report.json: {found}"):
        write_dataset_page(tmp_path)


def test_missing_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"report.json: no report"):
        write_dataset_page(tmp_path)
