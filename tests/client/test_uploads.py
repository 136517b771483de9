"""Archives are unpacked within limits, and the names in them lead nowhere."""

from __future__ import annotations

import zipfile

import pytest

from client.parts import make_zip
from lung_d2.client.uploads import Limits, unpack_zip
from lung_d2.errors import InputError


def unpack(tmp_path, content, **limits):
    (tmp_path / "archive").write_bytes(content)
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    return [path.read_bytes() for path in unpack_zip(tmp_path / "archive", folder, Limits(**limits))]


def test_files_come_out_under_numbers(tmp_path):
    assert unpack(tmp_path, make_zip({"a/b.dcm": b"1", "a/c.dcm": b"22", "d/": b""})) == [b"1", b"22"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000", "000001"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..\\a", "C:\\a"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="leads out"):
        unpack(tmp_path, make_zip({name: b"1"}))
    assert list((tmp_path / "out").iterdir()) == []


def test_symbolic_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        unpack(tmp_path, (tmp_path / "a.zip").read_bytes())


@pytest.mark.parametrize(
    ("content", "limits", "found"),
    [
        (make_zip({f"{index}": b"" for index in range(30)}), {"files": 20}, "30 entries"),
        (make_zip({"a": bytes(3 << 20)}), {"unpacked_mb": 2}, "3 MB unpacked"),
        (make_zip({"a": bytes(3 << 20)}), {}, "far more than images"),
        (b"PK\x03\x04 no archive", {}, "damaged"),
        (make_zip({"a": b"123456789"})[:-30], {}, "damaged"),
    ],
)
def test_too_much_or_damaged_is_refused(tmp_path, content, limits, found):
    with pytest.raises(InputError, match=found):
        unpack(tmp_path, content, **limits)


def test_an_archive_that_lies_about_sizes_is_refused(tmp_path):
    content = bytearray(make_zip({"a": bytes(100_000)}))
    size = (100_000).to_bytes(4, "little")
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InputError):
        unpack(tmp_path, bytes(content), ratio=1e9)
