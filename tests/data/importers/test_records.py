from __future__ import annotations

import pytest

from lung_d2.data.importers.records import read_json, take, take_objects
from lung_d2.errors import DatasetError


def test_byte_order_mark_is_no_matter(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", "a file") == {"x": 1}


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"{", "broken JSON"),
        (b"\xff", "broken JSON"),
        (b"", "broken JSON"),
        (b"[" * 99999, "broken JSON"),
        (b"3", "a JSON int"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, data, finding):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"a\.json: {finding}; expected a file of shapes"):
        read_json(tmp_path / "a.json", "a file of shapes")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.json: cannot be opened"):
        read_json(tmp_path / "a.json", "a file")


def test_values_have_their_types():
    record = {"n": 3, "s": "x", "l": [{}, {"y": 1}]}
    assert (take(record, "n", int, "x"), take(record, "s", str, "x")) == (3, "x")
    assert take_objects(record, "l", "x") == [{}, {"y": 1}]


@pytest.mark.parametrize(
    ("record", "kind", "finding"),
    [
        ({}, int, "no 'n'; expected a whole number"),
        ({"n": True}, int, "bool as 'n'; expected a whole number"),
        ({"n": 3.5}, int, "float as 'n'"),
        ({"n": None}, str, "NoneType as 'n'; expected a text"),
        ({"n": {}}, list, "dict as 'n'; expected a list"),
    ],
)
def test_other_types_are_refused(record, kind, finding):
    with pytest.raises(DatasetError, match=f"place: {finding}"):
        take(record, "n", kind, "place")


def test_list_of_other_things_is_refused():
    with pytest.raises(DatasetError, match="place: str as item 1 of 'l'; expected objects"):
        take_objects({"l": [{}, "x"]}, "l", "place")
