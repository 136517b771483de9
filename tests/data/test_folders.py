from __future__ import annotations

import pytest

from lung_d2.data.folders import create_folder, replace_folder, restore_folder
from lung_d2.errors import OutputError


def folder(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_new_takes_the_place_of_the_old(tmp_path):
    folder(tmp_path / "final", "old")
    replace_folder(folder(tmp_path / "staging", "new"), tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final" / "file").read_text() == "new"


def test_new_that_cannot_be_moved_leaves_the_old(tmp_path):
    folder(tmp_path / "final", "old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "none", tmp_path / "final")
    restore_folder(tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "old"


def test_what_lies_aside_is_not_brought_back_over_the_new(tmp_path):
    folder(tmp_path / ".final.old", "old")
    folder(tmp_path / "final", "new")
    restore_folder(tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "new"


@pytest.mark.parametrize(("name", "finding"), [("file", "a file"), ("file/x", "cannot be created")])
def test_folder_that_cannot_be_is_named(tmp_path, name, finding):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"{name}: {finding}"):
        create_folder(tmp_path / name)


def test_folder_may_be_there_and_its_parents_not(tmp_path):
    for _ in range(2):
        create_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
