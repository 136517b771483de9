"""OHIF is taken as it was published, or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile

import pytest

from lung_d2.client import viewer
from lung_d2.errors import InputError


def write_package(path):
    files = {
        "dist/index.html": b"<p>",
        "dist/a.js.map": b"1",
        "dist/ort/x.wasm": b"1",
        "src/x.js": b"1",
        "dist/b/c.js": b"2",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def test_pages_are_unpacked_without_what_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "INTEGRITY", write_package(tmp_path / "p.tgz"))
    folder = viewer.install_viewer(tmp_path / "p.tgz", tmp_path / "share" / "ohif")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "b/c.js",
        "index.html",
    ]
    assert viewer.find_viewer(folder) == folder


def test_another_package_is_refused(tmp_path):
    write_package(tmp_path / "p.tgz")
    with pytest.raises(InputError, match="sha512"):
        viewer.install_viewer(tmp_path / "p.tgz", tmp_path / "ohif")
    assert not (tmp_path / "ohif").exists()


def test_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"index\.html"):
        viewer.find_viewer(tmp_path)
