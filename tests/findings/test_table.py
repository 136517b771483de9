"""``lesions.csv``: a row for each lesion, the same columns always."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from findings.findings_samples import find, find_all, sample_lobes, sample_lungs
from lung_d2.findings.document import build_findings
from lung_d2.findings.files import COLUMNS, format_lesion_table


def rows(found: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(format_lesion_table(build_findings(found)))))


def test_columns_are_these_in_this_order() -> None:
    assert ",".join(COLUMNS) == (
        "series_hash,lesion_number,category,score,volume_ml,voxel_count,slice_count,long_axis_mm,short_axis_mm,"
        "long_axis_slice_index,mean_hu,sd_hu,p5_hu,median_hu,p95_hu,side,lung_share_percent,reaches_end_of_scan,"
        "extent_right_left_mm,extent_front_back_mm,extent_foot_head_mm,"
        "centroid_x_lps_mm,centroid_y_lps_mm,centroid_z_lps_mm,"
        "first_slice_index,last_slice_index,key_slice_index,key_slice_position_mm,key_slice_sop_instance_uid,"
        "lower_score,volume_at_lower_score_ml,upper_score,volume_at_upper_score_ml,"
        "left_upper_lobe_ml,left_upper_lobe_percent,left_lower_lobe_ml,left_lower_lobe_percent,"
        "right_upper_lobe_ml,right_upper_lobe_percent,right_middle_lobe_ml,right_middle_lobe_percent,"
        "right_lower_lobe_ml,right_lower_lobe_percent"
    )


def test_without_lesions_there_is_the_header_alone() -> None:
    assert format_lesion_table(build_findings(find())) == ",".join(COLUMNS) + "\n"


def test_rows_tell_what_the_json_tells() -> None:
    found = find_all(lungs=sample_lungs(), lobes=sample_lobes())
    content = build_findings(found)
    table = rows(found)
    assert [row["lesion_number"] for row in table] == ["1", "2", "3", "4"]
    for row, lesion in zip(table, content["lesions"], strict=True):
        assert float(row["volume_ml"]) == lesion["volume_ml"]
        assert float(row["extent_front_back_mm"]) == lesion["extent_lps_mm"][1]
        assert float(row["centroid_z_lps_mm"]) == lesion["centroid_lps_mm"][2]
        assert float(row["left_lower_lobe_ml"]) == lesion["lobes"][1]["volume_ml"]
        assert row["series_hash"] == "bb"
    assert table[0]["key_slice_position_mm"] == str(16.0)
    assert (table[0]["first_slice_index"], table[0]["last_slice_index"]) == ("8", "15")
    assert (table[2]["lower_score"], table[2]["volume_at_upper_score_ml"]) == ("0.4", "0.0")


@pytest.mark.parametrize("column", ["side", "lung_share_percent", "right_upper_lobe_ml", "key_slice_sop_instance_uid"])
def test_what_is_not_known_is_empty(column: str) -> None:
    assert {row[column] for row in rows(find_all())} == {""}
