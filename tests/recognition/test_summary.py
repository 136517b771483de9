from __future__ import annotations

import csv
import io
from pathlib import Path

from lung_d2 import recognize
from lung_d2.errors import InputError
from lung_d2.recognition.summary import DONE, FAILED, failed_row, format_summary, read_row
from recognition.chests import StandIn, write_chest


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
