from __future__ import annotations

import hashlib
import hmac
import os
import stat

import pytest

from lung_d2.errors import DatasetError, OutputError
from lung_d2.files import (
    create_folder,
    create_key,
    hash_file_stats,
    hash_identity,
    pseudonym,
    read_key,
    replace_file,
    replace_folder,
    restore_folder,
    write_json,
    write_key,
    write_text,
)


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


def test_text_is_written_whole_with_its_folders(tmp_path):
    write_text(iter(["ä", "b"]), tmp_path / "new" / "a.txt")
    assert (tmp_path / "new" / "a.txt").read_text("utf-8") == "äb"
    write_json({"a": 1}, tmp_path / "new" / "a.txt")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_text_that_breaks_off_leaves_what_was_there(tmp_path):
    def parts():
        yield "new"
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(parts(), tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_file_of_the_longest_name_is_replaced_whole(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    path.write_text("old")
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_whose_making_fails_otherwise_leaves_nothing(tmp_path):
    def make():
        with replace_file(tmp_path / "a.png") as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        make()
    assert list(tmp_path.iterdir()) == []


def test_file_in_what_is_no_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written"):
        write_text("a", tmp_path / "file" / "a.txt")


def test_pseudonym_is_hmac_sha_256_of_kind_and_value():
    expected = hmac.new(b"Jefe", b"patient\0" + b"007", hashlib.sha256).hexdigest()[:16]
    assert pseudonym("patient", "007", b"Jefe") == expected


def test_pseudonym_depends_on_kind_value_and_key():
    one, other = create_key(), create_key()
    names = [pseudonym(*parts) for parts in (("patient", "1", one), ("series", "1", one), ("patient", "2", one))]
    assert len({*names, pseudonym("patient", "1", other), hash_identity("patient", "1")}) == 5
    assert pseudonym("patient", "1", one) == names[0]


def test_key_comes_back_and_only_its_owner_may_read_it(tmp_path):
    key = create_key()
    for _ in range(2):
        write_key(key, tmp_path / "pseudonym.key")
    assert read_key(tmp_path / "pseudonym.key") == key
    assert stat.S_IMODE((tmp_path / "pseudonym.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("content", "found"), [(None, "cannot be read"), (b"short", "5 bytes; expected a key of 32")])
def test_what_is_not_a_key_is_refused(tmp_path, content, found):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(DatasetError, match=f"key: {found}"):
        read_key(tmp_path / "key")


def test_stats_are_path_size_and_time(tmp_path):
    path = tmp_path / "a"
    seen = []
    for name, text, time in (("a", "one", 1), ("a", "one", 1), ("a", "one", 2), ("a", "four", 2), ("b", "four", 2)):
        path = path.rename(tmp_path / name) if path.exists() else path
        path.write_text(text)
        os.utime(path, ns=(1, time))
        seen.append(hash_file_stats([path]))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4
    with pytest.raises(DatasetError, match="none: cannot be opened"):
        hash_file_stats([tmp_path / "none"])


@pytest.mark.parametrize(
    ("identity", "expected"),
    [(("series", "1.2.3"), "75eb11d70444c707"), (("patient", "\ud800"), "3158fa2d7d71fb4a")],
)
def test_results_that_exist_keep_their_names(identity, expected):
    assert hash_identity(*identity) == expected
