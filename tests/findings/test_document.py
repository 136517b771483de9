"""Findings as plain data: whole, rightly numbered, without names, and always JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code

from findings.dicom_samples import make_lesion, make_lesions, make_masks, run_tool, write_ct
from findings.findings_samples import LARGE, MODEL, SHAPE, SMALL, VOXEL_ML, find, find_all, sample_lobes, sample_lungs
from html_page import Page
from lung_d2 import __version__
from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct import read_volume
from lung_d2.ct.grey import GreyLevels
from lung_d2.errors import Warning
from lung_d2.findings import dicom_seg, dicom_sr, files, page, schema
from lung_d2.findings.document import build_findings
from lung_d2.findings.schema import SCHEMA_VERSION, FindingsContent
from lung_d2.lesions import LinkSettings, measure, measure_lesions
from lung_d2.lesions.measure import MEASURES, CodedNumber, Measure

AROUND: dict[str, Any] = {"lungs": sample_lungs(), "lobes": sample_lobes()}


def misfits(value: Any, hint: Any, place: str = "findings") -> list[str]:
    """Return where a value is not what a type says, key by key."""
    if hint is Any:
        return []
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, dict) or set(value) != set(hints):
            return [f"{place}: {list(value) if value else value} are not {list(hints)}"]
        return [one for key in hints for one in misfits(value[key], hints[key], f"{place}.{key}")]
    if origin is list:
        return [one for item in value for one in misfits(item, args[0], f"{place}[]")]
    if origin is dict:
        return [one for key, item in value.items() for one in misfits(item, args[1], f"{place}.{key}")]
    if origin is types.UnionType:
        return min((misfits(value, arg, place) for arg in args), key=len)
    fits = isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
    return [] if fits else [f"{place}: {value!r} is not {hint}"]


@pytest.mark.parametrize("found", [find_all(**AROUND), find_all(), find(), find(**AROUND)])
def test_content_is_what_the_schema_says(found: Any) -> None:
    content = json.loads(json.dumps(build_findings(found), allow_nan=False))
    assert misfits(content, FindingsContent) == []
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["lung_d2_version"] == __version__
    assert "Research use only" in content["note"]
    for lesion in content["lesions"]:
        measured = {measure.name for measure in MEASURES}
        parts = {"lobes": list[schema.Lobe], "box": schema.Box, "slices": list[schema.Slice]}
        assert set(lesion) == {"number", "category", "key_slice_index", "volume_range", *parts, *measured}
        assert [misfits(lesion[name], hint, name) for name, hint in parts.items()] == [[]] * 3
        assert misfits(lesion["volume_range"], schema.Range | type(None), "volume_range") == []


def test_check_of_the_schema_sees_what_is_wrong() -> None:
    content: Any = build_findings(find_all())
    content["warnings"][0]["kind"] = 1
    content["totals"]["any"]["extra"] = 1
    content["lesions_found"] = 1
    assert len(misfits(content, FindingsContent)) == 3


def test_lesion_is_told_with_its_numbers() -> None:
    first, second, *_ = build_findings(find_all(**AROUND))["lesions"]
    assert (first["number"], first["category"], first["score"]) == (1, "ground_glass_opacity", 0.9)
    assert first["voxel_count"] == LARGE.sum() == 4800
    assert first["volume_ml"] == pytest.approx(4800 * VOXEL_ML)
    assert first["box"] == {"start_zyx": [8, 20, 50], "stop_zyx": [16, 50, 70]}
    assert first["extent_lps_mm"] == pytest.approx([14, 24, 16])
    assert first["centroid_lps_mm"] == pytest.approx([59.5 * 0.7, 34.5 * 0.8, 11.5 * 2])
    assert (first["side"], second["side"]) == ("left", "right")
    assert second["mean_hu"] == -500
    assert second["lung_share_percent"] == pytest.approx(100 * 360 / (2 * 14 * 50 * 34))


def test_slices_are_named_by_index_position_and_uid() -> None:
    found = find_all()
    uids = tuple(f"1.2.{index}" for index in range(SHAPE[0]))
    named = replace(found, volume=replace(found.volume, sop_instance_uids=uids, frame_numbers=(7,) * SHAPE[0]))
    lesion = build_findings(named)["lesions"][1]
    assert [one["slice_index"] for one in lesion["slices"]] == [4, 5, 6]
    assert lesion["slices"][0] == {
        "slice_index": 4,
        "position_mm": 8.0,
        "sop_instance_uid": "1.2.4",
        "frame_number": 7,
        "score": 0.7,
        "area_mm2": pytest.approx(120 * 0.7 * 0.8),
    }
    assert lesion["key_slice_index"] in (4, 5, 6)


def test_lesion_at_the_end_of_the_scan_is_marked() -> None:
    assert [one["reaches_end_of_scan"] for one in build_findings(find_all())["lesions"]] == [False, False, True, False]


def test_totals_count_shared_voxels_once() -> None:
    totals = build_findings(find_all(**AROUND))["totals"]
    assert [totals[name]["lesion_count"] for name in ("ground_glass_opacity", "bronchiectasis", "any")] == [3, 1, 4]
    assert totals["any"]["volume_ml"] == totals["ground_glass_opacity"]["volume_ml"]  # the tube lies inside
    assert totals["any"]["volume_range"] is None
    assert totals["bronchiectasis"]["left_ml"] == pytest.approx(144 * VOXEL_ML)


def test_lungs_lobes_and_severity_are_told_where_known() -> None:
    content = build_findings(find_all(**AROUND))
    assert content["lungs"] == pytest.approx({"right_ml": 14 * 50 * 34 * VOXEL_ML, "left_ml": 14 * 50 * 34 * VOXEL_ML})
    assert [one["lobe"] for one in content["lesions"][0]["lobes"]][:2] == ["left upper", "left lower"]
    severity = content["severity"]
    assert severity is not None
    assert severity["total"] is None  # one lobe is missing
    assert [one["score"] for one in severity["lobes"]] == [3, 2, 0, None, 1]


def test_what_is_not_known_is_null() -> None:
    found = find_all()
    content = build_findings(replace(found, ranges=None))
    assert content["lungs"] is content["severity"] is content["lesions"][0]["side"] is None
    assert content["lesions"][0]["volume_range"] is content["totals"]["bronchiectasis"]["volume_range"] is None
    assert content["series"]["series_instance_uid"] == "1.2.3"


def test_range_is_that_of_the_thresholds_around() -> None:
    lesion = build_findings(find_all())["lesions"][2]  # its score is 0.55
    assert lesion["volume_range"] == pytest.approx(
        {"lower_score": 0.4, "upper_score": 0.6, "lower_score_ml": 200 * VOXEL_ML, "upper_score_ml": 0.0}
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_numbers_that_are_none_become_null(value: Any) -> None:
    found = find_all()
    first = found.measurements[0]
    broken = (replace(first, values={**first.values, "sd_hu": value}), *found.measurements[1:])
    content = build_findings(replace(found, measurements=broken))
    assert content["lesions"][0]["sd_hu"] is None
    json.dumps(content, allow_nan=False)


def test_no_lesion_is_said_in_words_and_as_a_flag() -> None:
    content = build_findings(find(**AROUND))
    assert content["lesions_found"] is False
    assert content["summary"] == "On 20 slices no lesion found with a score of at least 0.5."
    assert content["lesions"] == []
    assert content["totals"]["any"]["volume_ml"] == 0


def test_summary_counts_and_measures() -> None:
    assert build_findings(find((SMALL, 0.8)))["summary"] == (
        "1 lesion found on 20 slices: 1 of ground glass opacity (0.4 ml)."
    )
    assert build_findings(find_all(lungs=sample_lungs()))["summary"] == (
        "4 lesions found on 20 slices: 3 of ground glass opacity (6.0 ml, 10.8 % of the lungs) "
        "and 1 of bronchiectasis (0.2 ml, 0.3 % of the lungs)."
    )


def test_settings_are_told() -> None:
    settings = build_findings(
        find((SMALL, 0.8), link=LinkSettings(max_gap_mm=3.0), lungs_from="label volume", channels="neighbours")
    )["settings"]
    assert settings["linking"]["max_gap_mm"] == 3.0
    assert settings["grey_levels"] == {
        "kind": "window",
        "window_center": -600.0,
        "window_width": 1500.0,
        "channels": "neighbours",
    }
    assert (settings["lungs_from"], settings["lobes_from"], settings["lung_margin_mm"]) == ("label volume", None, None)


def test_grey_levels_without_a_window_tell_none() -> None:
    content = build_findings(find(grey=GreyLevels("minmax_clahe")))
    assert content["settings"]["grey_levels"]["window_center"] is None
    assert [one["kind"] for one in content["warnings"]] == ["grey_levels"]


def test_warnings_of_the_caller_come_first() -> None:
    refused = Warning("no_dicom_seg", "No DICOM SEG: two slices have the same SOPInstanceUID.")
    warnings = build_findings(replace(find_all(), warnings=(refused,)))["warnings"]
    assert [one["kind"] for one in warnings] == ["no_dicom_seg", "lesions_at_end_of_scan"]


def test_nobody_is_named() -> None:
    found = find_all()
    volume = replace(
        found.volume,
        series_instance_uid="DOE^JANE",
        study_instance_uid="12 Main Street",
        sop_instance_uids=("JANE",) * SHAPE[0],
        patient_hash="1234567890abcdef",
        source_files=(Path("/home/doe/jane.dcm"),) * SHAPE[0],
    )
    text = json.dumps(build_findings(replace(found, volume=volume)))
    assert not [word for word in ("JANE", "jane", "doe", "Main", "1234567890abcdef") if word in text]
    assert build_findings(replace(found, volume=volume))["series"]["series_hash"] == "bb"


def test_a_measure_is_defined_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new row of the table is in findings.json, lesions.csv, the page and the SR, and nothing else is changed."""
    coded = CodedNumber(("flatness", "99LUNGD2", "Width over height"), ("1", "UCUM", "no units"))
    flatness = Measure("flatness", "", "flatness", lambda of: 0.123, coded=(coded,), digits=3, page="table")
    monkeypatch.setattr(measure, "MEASURES", (*MEASURES, flatness))
    found = find_all()
    content = build_findings(found)
    assert [lesion["flatness"] for lesion in content["lesions"]] == [0.123] * 4
    (row, *_) = csv.DictReader(io.StringIO(files.format_lesion_table(content)))
    assert row["flatness"] == "0.123"
    text = Page(page.render_findings_page(found, content, MODEL)).text
    assert "flatness" in text
    assert text.count("0.123") >= 8  # in the table, and beside the pictures
    volume = read_volume(write_ct(tmp_path / "ct"))
    lesions = make_lesions()
    report = dicom_sr.write_structured_report(lesions, measure_lesions(lesions, volume), volume, tmp_path)
    groups = hd.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    assert [group.get_measurements(Code(*coded.concept))[0].value for group in groups] == [0.123] * 3


def test_a_third_category_is_in_every_output(tmp_path: Path) -> None:
    code, color = ("95436008", "SCT", "Lung consolidation"), (204, 121, 167)
    third = Category("consolidation", 3, color, code, "CON")
    categories = Categories([*CATEGORIES, third])
    found = find((SMALL, 0.9, third), (LARGE, 0.9), categories=categories)
    content = build_findings(found)
    assert content["totals"]["consolidation"]["lesion_count"] == 1
    assert content["summary"].endswith("and 1 of consolidation (0.4 ml).")
    assert "consolidation" in files.format_lesion_table(content)
    html = page.render_findings_page(found, content, MODEL)
    assert "#cc79a7" in html
    assert "consolidation" in Page(html).text
    volume = read_volume(write_ct(tmp_path / "ct"))
    lesions = [make_lesion(1, make_masks()[0], third)]
    (path,) = dicom_seg.write_segmentations(lesions, volume, tmp_path, categories=categories)
    assert path.name == "segmentation_consolidation.dcm"
    (segment,) = pydicom.dcmread(path).SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == code
    assert list(segment.RecommendedDisplayCIELabValue) == list(hd.color.CIELabColor.from_rgb(*color).value)
    report = dicom_sr.write_structured_report(
        lesions, measure_lesions(lesions, volume), volume, tmp_path, [path], categories=categories
    )
    read = hd.sr.srread(report).content
    assert [group.finding_type.value for group in read.get_volumetric_roi_measurement_groups()] == [code[0]]
    (group,) = read.get_image_measurement_groups()
    said = {item.name.value: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert said.items() >= {"112120": "Absent", "12295008": "Absent", "95436008": "Present"}.items()
    for one in (path, report):
        assert "Error" not in run_tool("dciodvfy", one)
