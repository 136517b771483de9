"""Headers without an end, data files that may not be read, streams of exactly the declared length."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from ct.volume_samples import ct_array, write_meta, write_nrrd
from lung_d2.ct import read_volume
from lung_d2.ct.text_headers import MAX_HEADER_BYTES, VoxelData, describe_dimensions
from lung_d2.errors import InputError


def write_detached(path: Path, name: str) -> Path:
    if path.suffix == ".nhdr":
        return write_nrrd(path, b"", data_file=name)
    return write_meta(path, b"", ElementDataFile=name)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.raw", "its data file 'gone.raw' is missing"),
        ("{folder}/data/a.raw", "a data file elsewhere"),
        ("../a.raw", "a data file elsewhere"),
        ("data/../../a.raw", "a data file elsewhere"),
        (r"..\a.raw", "a data file elsewhere"),
        (r"C:\a.raw", "a data file elsewhere"),
        ("//server/share/a.raw", "a data file elsewhere"),
        ("LIST", "not in one data file"),
        ("LIST 2", "not in one data file"),
        ("a%03d.raw 1 4 1", "not in one data file"),
        ("-", "not in one data file"),
        ("data", "is missing"),
        ("pipe", "is missing"),
    ],
)
def test_data_file_that_may_not_be_read(tmp_path: Path, suffix: str, name: str, words: str) -> None:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "pipe").symlink_to("/dev/stdin")
    for path in (tmp_path / "a.raw", home / "data" / "a.raw", home / "-"):
        path.write_bytes(ct_array().tobytes())
    header = write_detached(home / f"a{suffix}", name.format(folder=home))
    with pytest.raises(InputError, match=words) as caught:
        read_volume(header)
    assert str(caught.value).startswith(f"{header}: ")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_header_without_an_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"NRRD0004\n" + b"# a\n" * (MAX_HEADER_BYTES // 4))
    with pytest.raises(InputError, match="its header has no end"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_header_cut_anywhere(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    whole = (write_nrrd(path) if suffix == ".nrrd" else write_meta(path)).read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_volume(path)


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zlib", zlib.compress)])
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_a_stream_holds_what_is_declared(tmp_path: Path, coding: str, compress: object, size: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"head" + compress(bytes(size)))
    VoxelData(path, 4, coding).check(size, path)
    for other in (size - 1, size + 1):
        with pytest.raises(InputError, match="damaged compressed stream"):
            VoxelData(path, 4, coding).check(other, path)


def test_dimensions_are_shown_only_where_they_are_a_number() -> None:
    assert describe_dimensions("4") == "4 dimensions"
    assert describe_dimensions("John Doe") == "an unknown number of dimensions"
