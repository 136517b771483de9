"""MetaImage headers: what is read as the format has it, and what is refused before ITK sees it."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path

import numpy as np
import pytest

from ct.volume_samples import check_sample, ct_array, make_affine, refused, write_meta
from lung_d2.ct import read_volume
from lung_d2.errors import GeometryError

RAW = ct_array().tobytes()
STREAM = zlib.compress(RAW)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"BinaryDataByteOrderMSB": None},
        {"BinaryData": None},
        {"CompressedData": None},
        {"ElementSpacing": None, "ElementSize": "0.75 0.5 2"},
        {"Offset": None, "Position": "-30 -20 100"},
        {"Offset": None, "Origin": "-30 -20 100"},
        {"TransformMatrix": None, "Rotation": "1 0 0 0 1 0 0 0 1"},
        {"HeaderSize": "-1"},
        {"DistanceUnits": "mm"},
        {"ElementToIntensityFunctionSlope": "1.0", "ElementToIntensityFunctionOffset": "0"},
        {"AnatomicalOrientation": "???", "Modality": "MET_MOD_CT", "Comment": "a: b = c", "0008|0060": "CT"},
    ],
)
def test_one_volume_in_many_words(tmp_path: Path, fields: dict[str, str | None]) -> None:
    check_sample(read_volume(write_meta(tmp_path / "a.mha", **fields)))


def test_rows_of_the_matrix_are_the_directions_of_the_axes(tmp_path: Path) -> None:
    # x runs to the back, y to the right, z to the head.
    path = write_meta(tmp_path / "a.mha", TransformMatrix="0 1 0 -1 0 0 0 0 1", Offset="10 20 30")
    volume = read_volume(path)
    assert volume.spacing_mm == (2.0, 0.75, 0.5)
    np.testing.assert_array_equal(volume.hu, ct_array().transpose(0, 2, 1)[:, :, ::-1])
    np.testing.assert_allclose(volume.affine_lps[:3, 3], [10 - 5 * 0.5, 20, 30])


def test_byte_order_and_line_ends(tmp_path: Path) -> None:
    big = ct_array().astype(">i2").tobytes()
    path = write_meta(tmp_path / "a.mha", big, BinaryDataByteOrderMSB="True")
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())
    header = write_meta(tmp_path / "b.mha", b"").read_bytes()
    (tmp_path / "b.mha").write_bytes(header.replace(b"\n", b"\r\n") + RAW)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mha").hu, ct_array())


@pytest.mark.parametrize("name", ["a.raw", "data/a.raw", "./a.raw"])
def test_voxels_beside_the_header(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_bytes(b"xx" + RAW)
    for size in ("2", "-1"):
        path = write_meta(tmp_path / "a.mhd", b"", ElementDataFile=name, HeaderSize=size)
        np.testing.assert_array_equal(read_volume(path).hu, ct_array())


def test_compressed_voxels_beside_the_header_need_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.zraw").write_bytes(STREAM)
    path = write_meta(tmp_path / "a.mhd", b"", ElementDataFile="a.zraw", CompressedData="True")
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


def test_no_matrix_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        volume = read_volume(write_meta(tmp_path / "a.mha", TransformMatrix=None))
    np.testing.assert_allclose(volume.affine_lps, make_affine())
    assert "no TransformMatrix" in caplog.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"NDims": "-1"}, "an unknown number of dimensions"),  # ITK crashes on it
        ({"NDims": "4", "DimSize": "5 6 4 1"}, "4 dimensions; expected 3-D"),
        ({"NDims": "2", "DimSize": "5 6"}, "2 dimensions; expected 3-D"),
        ({"NDims": None}, "no field 'NDims'"),
        ({"DimSize": None}, "no field 'DimSize'"),
        ({"ElementType": None}, "no field 'ElementType'"),
        ({"ElementSpacing": None}, "no ElementSpacing"),
        ({"DimSize": "5 6"}, "DimSize that is not 3 finite numbers"),
        ({"DimSize": "5\n6\n4"}, "a line without a value"),
        ({"DimSize": "0 6 4"}, "size (0, 6, 4)"),
        ({"DimSize": "-5 6 4"}, "size (4294967291, 6, 4)"),
        ({"DimSize": "9999 6 4"}, "size (9999, 6, 4)"),
        ({"DimSize": "2048 2048 1024"}, "2^30 voxels"),
        ({"DimSize": "5 6 400"}, "shorter than declared"),
        ({"ElementSpacing": "nan 0.5 2"}, "ElementSpacing that is not 3"),
        ({"ElementSpacing": "a b c"}, "ElementSpacing that is not 3"),
        ({"ElementSpacing": "1e999 1 1"}, "ElementSpacing that is not 3"),
        ({"ElementSpacing": "0 0.5 2"}, "spacing 0 x 0.5 x 2 mm; expected above 0"),
        ({"ElementSpacing": "-1 0.5 2"}, "spacing -1 x 0.5 x 2 mm; expected above 0"),
        ({"ElementSpacing": "1e308 0.5 2"}, "up to 100 mm"),
        ({"Offset": "1e308 0 0"}, "beyond 100 m"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "TransformMatrix that is not 9"),
        ({"TransformMatrix": "1 0 0 0 nan 0 0 0 1"}, "TransformMatrix that is not 9"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "skewed"),
        ({"TransformMatrix": "0 0 0 0 1 0 0 0 1"}, "not of length 1"),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 1"}, "not of length 1"),
        ({"TransformMatrix": "1 1e308 0 0 1 0 0 0 1"}, "not of length 1"),
        ({"TransformMatrix": "1 0 0 0.3 0.954 0 0 0 1"}, "skewed"),
        ({"ElementNumberOfChannels": "2"}, "several components"),
        ({"ElementNumberOfChannels": "100000000"}, "several components"),
        ({"ElementType": "MET_SHORT_ARRAY"}, "one number a voxel"),
        ({"ElementType": "MET_BOGUS"}, "damaged or no MetaImage file"),
        ({"ElementToIntensityFunctionSlope": "2"}, "values with a scale"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "values with a scale"),
        ({"DistanceUnits": "cm"}, "another unit of length; expected mm"),
        ({"BinaryData": "False"}, "voxels as text"),
        ({"BinaryDataByteOrderMSB": "t?"}, "neither True nor False"),
        ({"ObjectType": "Mesh"}, "another object than an image"),
        ({"HeaderSize": "20"}, "HeaderSize where nothing is skipped"),
        ({"Comment": "x\nNDims = 4"}, "a field given twice"),
        ({"Comment": "x\njunk"}, "a line without a value"),
        ({"Comment": "x\rNDims = 4"}, "its header is no text"),
        ({"Comment": "a" * 600}, "damaged or no MetaImage file"),
        ({"ElementDataFile": None}, "no field 'ElementDataFile'"),
    ],
)
def test_refusals(tmp_path: Path, fields: dict[str, str | None], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = b"" if "ElementDataFile" in fields else None
    assert words in refused(write_meta(tmp_path / "a.mha", data, **fields))
    assert capfd.readouterr() == ("", "")


def test_spacing_of_the_wrong_kind_is_an_error_of_geometry(tmp_path: Path) -> None:
    with pytest.raises(GeometryError):
        read_volume(write_meta(tmp_path / "a.mha", ElementSpacing="0 0.5 2"))


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (STREAM[:-20], len(STREAM), "shorter than declared"),
        (STREAM[:-20], len(STREAM) - 20, "damaged compressed stream"),
        (STREAM, None, "no CompressedDataSize"),
        (STREAM, -5, "no CompressedDataSize"),
        (STREAM[:40] + bytes([STREAM[40] ^ 255]) + STREAM[41:], len(STREAM), "damaged compressed stream"),
        (STREAM[:-1] + bytes([STREAM[-1] ^ 255]), len(STREAM), "damaged compressed stream"),
        (zlib.compress(RAW[:100]), len(zlib.compress(RAW[:100])), "damaged compressed stream"),
        (zlib.compress(bytes(10**7)), len(zlib.compress(bytes(10**7))), "damaged compressed stream"),
        (RAW, len(RAW), "damaged compressed stream"),
    ],
    ids=["cut", "cut and resized", "unsized", "negative", "flipped", "checksum", "ends early", "bomb", "raw"],
)
def test_damaged_streams(
    tmp_path: Path, data: bytes, size: int | None, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stated = {} if size is None else {"CompressedDataSize": str(size)}
    assert words in refused(write_meta(tmp_path / "a.mha", data, CompressedData="True", **stated))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stream", [STREAM, gzip.compress(RAW)])
def test_whole_stream_is_read(tmp_path: Path, stream: bytes) -> None:
    path = write_meta(tmp_path / "a.mha", stream, CompressedData="True", CompressedDataSize=str(len(stream)))
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize("missing", [1, len(RAW)])
def test_truncated_file(tmp_path: Path, missing: int) -> None:
    assert "shorter than declared" in refused(write_meta(tmp_path / "a.mha", RAW[:-missing]))
