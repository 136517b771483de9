"""The page of findings: whole, alone, escaped, small, and right."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from findings.findings_samples import MODEL, find, find_all, find_many, sample_lobes, sample_lungs
from html_page import Page, assert_stands_alone
from lung_d2.errors import Warning
from lung_d2.findings import page as findings_page
from lung_d2.findings.document import Findings, build_findings
from lung_d2.findings.page import MOST_PICTURED, render_findings_page


def render(found: Findings) -> Page:
    return Page(render_findings_page(found, build_findings(found), MODEL))


@cache
def everything() -> Page:
    lungs, lobes = sample_lungs(), sample_lobes()
    return render(find_all(lungs=lungs, lobes=lobes, lungs_from="found in the CT", lobes_from="label volume"))


@pytest.mark.parametrize("found", [find_all(), find(), find(lungs=sample_lungs()), find_many(3)])
def test_page_stands_alone(found: Findings) -> None:
    assert_stands_alone(render(found))
    assert_stands_alone(everything())


def test_page_says_what_was_found_and_what_it_is_not() -> None:
    text = everything().text
    assert "4 lesions found on 20 slices: 3 of ground glass opacity" in text
    assert "Research use only. Not a medical device" in text
    assert "Series bb · UID 1.2.3" in text


def test_lesions_are_listed_by_volume_with_their_measures() -> None:
    rows = re.findall(r'<tr><td>(?:<a href="#lesion-\d+">)?(\d+)<', everything().html)
    assert rows == ["1", "2", "3", "4"]
    words = everything().text
    assert "1 ground glass opacity left upper, left lower 8–15 8 0.90 5.38 5.38–5.38" in words
    assert "2 ground glass opacity right lower 4–6 4 0.70 0.40 0.40–0.40" in words
    assert "4 bronchiectasis left upper 10–12 10 0.80 0.16" in words
    assert "0.22 0.00–0.22" in words  # below the upper threshold


def test_range_goes_from_the_least_to_the_most() -> None:
    found = find_all()
    assert found.ranges is not None
    ranges = dict(found.ranges.lesions)
    ranges[1] = replace(ranges[1], lower_score_ml=4.5, upper_score_ml=5.0)  # 5.38 ml as it is
    ranges[2] = replace(ranges[2], lower_score_ml=0.25, upper_score_ml=0.75)  # 0.40 ml
    text = render(replace(found, ranges=replace(found.ranges, lesions=ranges))).text
    assert "5.38 4.50–5.38" in text
    assert "0.40 0.25–0.75" in text


def test_long_words_break_on_a_narrow_screen() -> None:
    html = everything().html
    assert re.search(r"^header p {[^}]*overflow-wrap: anywhere", html, re.MULTILINE)
    assert re.search(r"^\.facts \.code {[^}]*overflow-wrap: anywhere", html, re.MULTILINE)
    assert "minmax(min(360px, 100%), 1fr)" in html


def test_side_stands_for_lobes_that_are_not_known() -> None:
    text = render(find_all(lungs=sample_lungs())).text
    assert "1 ground glass opacity left 8–15 8 0.90 5.38" in text
    assert "3 ground glass opacity – 18–19 18 0.55 0.22" in text


def test_totals_by_category_side_and_lobe() -> None:
    text = everything().text
    assert "bronchiectasis 1 0.16 0.16–0.16 0.00 0.16" in text
    assert "all (shared voxels count once) 4 6.00" in text
    assert "Lungs: right 27 ml, left 27 ml (found in the CT)" in text
    assert "right middle 0.00 – 0.00 – –" in text


def test_each_lesion_leads_to_its_pictures() -> None:
    page = everything()
    assert page.attributes["href"] == [f"#lesion-{number}" for number in (1, 2, 3, 4)]
    assert "Lesion 2: key slice 4" in page.attributes["alt"]
    assert "Lesion 2: key slice, outlined 4" in page.attributes["alt"]
    assert "All lesions as seen from the front" in page.attributes["alt"]


def test_settings_run_and_warnings_are_told() -> None:
    text = everything().text
    for words in (
        "Least score of a detection 0.5",
        "Missed slices allowed up to 5 mm",
        "window C -600 W 1500 HU, each slice alone",
        "The network saw whole slices",
        "Lobes label volume",
        "Device cpu",
        "d" * 64,
        "Please note",
        "Lesion 3 lies on the first or last slice",
    ):
        assert words in text


def test_margin_and_neighbours_are_told() -> None:
    text = render(find(lung_margin_mm=10.0, channels="neighbours")).text
    assert "the lungs and 10 mm around them" in text
    assert "each slice with its neighbours" in text


def test_negative_series_have_a_page_too() -> None:
    page = render(find(lungs=sample_lungs()))
    assert "On 20 slices no lesion found with a score of at least 0.5." in page.text
    assert "No lesion found." in page.text
    assert "The scan" in page.text
    assert "Key slices" not in page.text
    assert page.attributes["alt"] == ["All lesions as seen from the front"]


def test_nothing_unknown_is_shown_as_a_word_of_the_machine() -> None:
    for page in (everything(), render(find()), render(replace(find_all(), ranges=None))):
        assert not re.search(r"\b(nan|None|null|inf|Undefined)\b(?!:)", page.text)


def test_hostile_text_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    found = replace(find_all(lungs_from=evil), warnings=(Warning("evil", evil),))
    content = build_findings(found)
    content["series"]["series_instance_uid"] = evil
    page = Page(render_findings_page(found, content, replace(MODEL, device=evil)))
    assert_stands_alone(page)
    assert page.text.count(evil) == 4


def test_two_runs_alike_make_the_same_page() -> None:
    pages = [render_findings_page(found, build_findings(found), MODEL) for found in (find_all(), find_all())]
    assert pages[0] == pages[1]


def test_hundred_lesions_stay_below_ten_megabytes() -> None:
    found = find_many(100)
    page = render(found)
    assert len(found.lesions) == 100
    assert len(page.html.encode()) < 10_000_000
    assert len([one for one in page.attributes["id"] if one.startswith("lesion-")]) == MOST_PICTURED
    assert f"The {MOST_PICTURED} largest of 100 lesions; the others are only in the table." in page.text
    assert page.text.count("ground glass opacity") > 100


def test_pictures_end_where_the_bytes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[Any] = []
    real = findings_page.embed_jpeg
    monkeypatch.setattr(findings_page, "embed_jpeg", lambda *args: sizes.append(real(*args)) or sizes[-1])
    found = find_all()
    own = sum(text.startswith("Lesion 1:") for text in render(found).attributes["alt"])
    monkeypatch.setattr(findings_page, "_PICTURE_BYTES", sum(map(len, sizes[:own])) + 10)
    page = render(found)
    assert page.attributes["id"] == ["lesion-1"]
    assert "The 1 largest of 4 lesions" in page.text
