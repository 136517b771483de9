from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2.recognition.private_text import hide_paths

FILE = Path("/data/DOE^JANE/19010203/image one.dcm")


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
