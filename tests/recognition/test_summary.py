"""Rows, their table, and messages without paths."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from lung_d2 import recognize
from lung_d2.errors import InputError
from lung_d2.recognition.summary import DONE, FAILED, failed_row, format_summary, hide_paths, read_row
from recognition.chests import StandIn, write_chest

FILE = Path("/data/DOE^JANE/19010203/image one.dcm")


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_row_of_a_result_tells_its_lesions(tmp_path):
    write_chest(tmp_path / "series")
    folder = recognize(tmp_path / "series", StandIn()).write(tmp_path / "out")
    (row,) = rows_of(format_summary([read_row(folder, "1.2.3", DONE)]))
    assert (row["series_hash"], row["series_instance_uid"], row["status"]) == (folder.name, "1.2.3", "done")
    assert (row["slices"], row["ground_glass_opacity_lesions"], row["bronchiectasis_lesions"]) == ("12", "1", "1")
    assert float(row["ground_glass_opacity_ml"]) > float(row["bronchiectasis_ml"]) > 0
    assert float(row["seconds"]) > 0
    assert row["error_found"] == row["error_expected"] == row["error_remedy"] == ""


def test_row_of_a_failure_names_no_path():
    path = Path("/data/DOE^JANE/19010203.dcm")
    error = InputError(path, found=f"no pixels in {path}", expected="them", remedy=f"remove {path.name}")
    (row,) = rows_of(format_summary([failed_row("abcd", "1.2.3", error, [path])]))
    assert row["status"] == FAILED
    assert (row["error_found"], row["error_expected"], row["error_remedy"]) == (
        "no pixels in (path)",
        "them",
        "remove (path)",
    )
    assert row["slices"] == row["ground_glass_opacity_lesions"] == row["seconds"] == ""


def test_what_is_no_uid_is_left_out():
    error = InputError("a", found="b", remedy="c")
    assert failed_row("abcd", "DOE^JANE", error, []).series_instance_uid == ""


def test_table_without_rows_has_its_columns():
    (line,) = format_summary([]).splitlines()
    assert line.split(",")[:4] == ["series_hash", "series_instance_uid", "status", "slices"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("no pixels in /data/DOE^JANE/19010203/image one.dcm; copy it", "no pixels in (path); copy it"),
        ("see /data/DOE^JANE/19010203, then /data/DOE^JANE.", "see (path), then (path)."),
        ("see /data/DOE^JANE/other/file.nii; it", "see (path); it"),
        ("image one.dcm and its like", "(path) and its like"),
        ("512 rows, expected 256", "512 rows, expected 256"),
    ],
)
def test_paths_are_hidden(text, hidden):
    assert hide_paths(text, [FILE]) == hidden


def test_path_as_it_was_typed_is_hidden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hide_paths(f"{tmp_path}/DOE/a.dcm, or DOE/a.dcm", [Path("DOE/a.dcm")]) == "(path), or (path)"


def test_names_as_short_as_numbers_stay():
    assert hide_paths("2 of 12 files", [Path("/data/12/2")]) == "2 of 12 files"


def test_nothing_is_hidden_of_no_paths():
    assert hide_paths("/data/a.dcm", []) == "/data/a.dcm"
