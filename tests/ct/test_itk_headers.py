"""Headers of NRRD and MetaImage files: what is read, and what is refused before ITK reads the file."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ct.volume_samples import check_sample, ct_array, make_affine, refused, write_meta, write_nrrd
from lung_d2.ct import read_label_volume, read_volume
from lung_d2.ct.itk_headers import MAX_HEADER_BYTES, VoxelData
from lung_d2.errors import GeometryError, InputError

RAW = ct_array().tobytes()
STREAM = gzip.compress(RAW)
SIGNS = {
    "left-posterior-superior": (1, 1, 1),
    "LPS": (1, 1, 1),
    "Left-Anterior-Superior": (1, -1, 1),
    "LAS": (1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "RAS": (-1, -1, 1),
}
META_RAW = ct_array().tobytes()
META_ZIP = zlib.compress(META_RAW)


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


@pytest.mark.parametrize("space", SIGNS)
def test_every_space_in_the_patient_is_brought_to_lps(tmp_path: Path, space: str) -> None:
    nrrd = pytest.importorskip("nrrd")
    turn = np.deg2rad(15)
    directions = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 2]])
    directions *= np.array([[0.75], [0.5], [1]])  # a row for each axis
    origin = np.array([10.0, -20.0, 30.0])
    header = {"space": space, "space directions": directions, "space origin": origin}
    nrrd.write(str(tmp_path / "a.nrrd"), ct_array().transpose(2, 1, 0), header)
    values, read = nrrd.read(str(tmp_path / "a.nrrd"))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = read["space directions"].T, read["space origin"]
    affine = np.diag([*SIGNS[space], 1.0]) @ affine  # what the format says the letters mean
    volume = read_volume(tmp_path / "a.nrrd")
    to_file = np.linalg.inv(affine) @ volume.affine_lps
    for index_zyx in np.ndindex(volume.hu.shape):
        x, y, z = np.rint(to_file @ [*index_zyx[::-1], 1])[:3].astype(int)
        assert volume.hu[index_zyx] == values[x, y, z]
    assert nibabel.aff2axcodes(volume.affine_lps, (("R", "L"), ("A", "P"), ("I", "S"))) == ("L", "P", "S")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kinds": None},
        {"kinds": "space space space"},
        {"type": "signed short int"},
        {"space_units": '"mm" "mm" "mm"', "measurement_frame": "(1,0,0) (0,1,0) (0,0,1)"},
        {"# comment": "data file: /etc/passwd", "content": "a: b"},
        {"encoding": "ascii", "data": " ".join(map(str, ct_array().ravel())).encode()},
        {"encoding": "hex", "data": RAW.hex().encode()},
        {"encoding": "gz", "data": STREAM},
        {"encoding": "gzip", "data": gzip.compress(RAW[:100]) + gzip.compress(RAW[100:])},
        {"endian": "big", "data": ct_array().astype(">i2").tobytes()},
        {"byte_skip": "2", "data": b"xx" + RAW},
        {"byte_skip": "-1", "data": b"xx" + RAW},
        {"line_skip": "1", "data": b"x\n" + RAW},
    ],
)
def test_one_nrrd_in_many_words(tmp_path: Path, fields: dict) -> None:
    check_sample(read_volume(write_nrrd(tmp_path / "a.nrrd", **fields)))


def test_remarks_of_the_writer_are_no_fields(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"endian", b"remark:=data file: /etc/passwd\nendian"))
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


def test_line_ends_of_another_system(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", b"")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + RAW)
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize("name", ["a.raw", "data/a.raw", "./a.raw"])
@pytest.mark.parametrize("field", ["data file", "datafile", "Data File"])
def test_nrrd_voxels_beside_the_header(tmp_path: Path, name: str, field: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_bytes(RAW)
    path = write_nrrd(tmp_path / "a.nhdr", b"", **{field: name})
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimension": "4", "sizes": "2 5 6 2", "kinds": "list domain domain domain"}, "not space (list)"),
        ({"dimension": "2", "sizes": "5 6"}, "2 dimensions; expected 3-D"),
        ({"dimension": "-1"}, "an unknown number of dimensions"),
        ({"kinds": "RGB-color domain domain"}, "not space (rgb-color)"),
        ({"kinds": "domain domain John"}, "not space (an unknown code)"),
        ({"sizes": None}, "no field 'sizes'"),
        ({"encoding": None}, "no field 'encoding'"),
        ({"sizes": "5 6"}, "damaged or no NRRD file"),
        ({"sizes": "0 6 4"}, "damaged or no NRRD file"),
        ({"sizes": "-5 6 4"}, "damaged or no NRRD file"),
        ({"sizes": "9999 6 4"}, "size (9999, 6, 4)"),
        ({"sizes": "2048 2048 1024"}, "2^30 voxels"),
        ({"sizes": "5 6 400"}, "shorter than declared"),
        ({"type": "block", "block_size": "2"}, "damaged or no NRRD file"),
        ({"type": "bogus"}, "damaged or no NRRD file"),
        ({"encoding": "bzip2"}, "encoding bzip2; expected raw or gzip"),
        ({"encoding": "bogus"}, "encoding an unknown code; expected raw or gzip"),
        ({"encoding": "gzip", "byte_skip": "2"}, "a part to skip"),
        ({"space": None, "space_directions": None, "space_origin": None, "spacings": "1 1 1"}, "no orientation"),
        ({"space": "scanner-xyz"}, "no orientation (its space is not RAS, LAS or LPS)"),
        ({"space": "3D-right-handed"}, "no orientation"),
        ({"space": "left-posterior-superior-time"}, "no orientation"),
        ({"space_directions": None}, "no orientation (an axis has no space direction)"),
        ({"space_directions": "none none none"}, "no orientation"),
        ({"space_directions": "(nan,0,0) (0,0.5,0) (0,0,2)"}, "not vectors"),
        ({"space_directions": "(0,0,0) (0,0.5,0) (0,0,2)"}, "spacing 0 x 0.5 x 2 mm; expected above 0"),
        ({"space_directions": "(0.75,0,0) (0.75,0,0) (0,0,2)"}, "skewed"),
        ({"space_directions": "(0.75,0,0) (0.2,0.5,0) (0,0,2)"}, "skewed"),
        ({"space_directions": "(1e200,0,0) (0,0.5,0) (0,0,2)"}, "up to 100 mm"),
        ({"space_origin": "(nan,0,0)"}, "damaged or no NRRD file"),
        ({"space_origin": "(1e300,0,0)"}, "beyond 100 m"),
        ({"space_units": '"cm" "cm" "cm"'}, "another unit of length; expected mm"),
        ({"endian": None}, "damaged or no NRRD file"),
        ({"bogus": "3"}, "damaged or no NRRD file"),
        ({"content": "x\rdata file: /etc/passwd"}, "its header is not text"),
    ],
)
def test_nrrd_refusals(tmp_path: Path, fields: dict, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert words in refused(write_nrrd(tmp_path / "a.nrrd", **fields))
    assert capfd.readouterr() == ("", "")


def test_no_orientation_is_an_error_of_geometry_for_labels_too(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="no orientation"):
        read_label_volume(write_nrrd(tmp_path / "a.nrrd", space="scanner-xyz"))


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (RAW[:-1], "raw", "shorter than declared"),
        (b"", "raw", "shorter than declared"),
        (STREAM[:-1], "gzip", "damaged compressed stream"),
        (STREAM[:40] + bytes([STREAM[40] ^ 255]) + STREAM[41:], "gzip", "damaged compressed stream"),
        (STREAM[:-5] + bytes([STREAM[-5] ^ 255]) + STREAM[-4:], "gzip", "damaged compressed stream"),
        (gzip.compress(RAW[:100]), "gzip", "damaged compressed stream"),
        (gzip.compress(bytes(10**7)), "gzip", "damaged compressed stream"),
        (RAW, "gzip", "damaged compressed stream"),
        (b"1 2 3", "ascii", "damaged or no NRRD file"),
        (b"x" * 480, "hex", "damaged or no NRRD file"),
    ],
    ids=["cut", "empty", "cut stream", "flipped", "checksum", "ends early", "bomb", "raw", "few words", "no hex"],
)
def test_damaged_voxels(
    tmp_path: Path, data: bytes, encoding: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(write_nrrd(tmp_path / "a.nrrd", data, encoding=encoding))
    assert capfd.readouterr() == ("", "")


def test_small_file_that_declares_a_large_volume_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", STREAM, encoding="gzip", sizes="1024 1024 1024")
    assert "shorter than declared" in refused(path)


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
def test_one_metaimage_in_many_words(tmp_path: Path, fields: dict[str, str | None]) -> None:
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
    (tmp_path / "b.mha").write_bytes(header.replace(b"\n", b"\r\n") + META_RAW)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mha").hu, ct_array())


@pytest.mark.parametrize("name", ["a.raw", "data/a.raw", "./a.raw"])
def test_metaimage_voxels_beside_the_header(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_bytes(b"xx" + META_RAW)
    for size in ("2", "-1"):
        path = write_meta(tmp_path / "a.mhd", b"", ElementDataFile=name, HeaderSize=size)
        np.testing.assert_array_equal(read_volume(path).hu, ct_array())


def test_compressed_voxels_beside_the_header_need_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.zraw").write_bytes(META_ZIP)
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
        ({"Comment": "x\rNDims = 4"}, "its header is not text"),
        ({"Comment": "a" * 600}, "damaged or no MetaImage file"),
        ({"ElementDataFile": None}, "no field 'ElementDataFile'"),
    ],
)
def test_metaimage_refusals(
    tmp_path: Path, fields: dict[str, str | None], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = b"" if "ElementDataFile" in fields else None
    assert words in refused(write_meta(tmp_path / "a.mha", data, **fields))
    assert capfd.readouterr() == ("", "")


def test_spacing_of_the_wrong_kind_is_an_error_of_geometry(tmp_path: Path) -> None:
    with pytest.raises(GeometryError):
        read_volume(write_meta(tmp_path / "a.mha", ElementSpacing="0 0.5 2"))


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (META_ZIP[:-20], len(META_ZIP), "shorter than declared"),
        (META_ZIP[:-20], len(META_ZIP) - 20, "damaged compressed stream"),
        (META_ZIP, None, "no CompressedDataSize"),
        (META_ZIP, -5, "no CompressedDataSize"),
        (
            META_ZIP[:40] + bytes([META_ZIP[40] ^ 255]) + META_ZIP[41:],
            len(META_ZIP),
            "damaged compressed stream",
        ),
        (META_ZIP[:-1] + bytes([META_ZIP[-1] ^ 255]), len(META_ZIP), "damaged compressed stream"),
        (zlib.compress(META_RAW[:100]), len(zlib.compress(META_RAW[:100])), "damaged compressed stream"),
        (zlib.compress(bytes(10**7)), len(zlib.compress(bytes(10**7))), "damaged compressed stream"),
        (META_RAW, len(META_RAW), "damaged compressed stream"),
    ],
    ids=["cut", "cut and resized", "unsized", "negative", "flipped", "checksum", "ends early", "bomb", "raw"],
)
def test_damaged_streams(
    tmp_path: Path, data: bytes, size: int | None, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stated = {} if size is None else {"CompressedDataSize": str(size)}
    assert words in refused(write_meta(tmp_path / "a.mha", data, CompressedData="True", **stated))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stream", [META_ZIP, gzip.compress(META_RAW)])
def test_whole_stream_is_read(tmp_path: Path, stream: bytes) -> None:
    path = write_meta(tmp_path / "a.mha", stream, CompressedData="True", CompressedDataSize=str(len(stream)))
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize("missing", [1, len(META_RAW)])
def test_truncated_file(tmp_path: Path, missing: int) -> None:
    assert "shorter than declared" in refused(write_meta(tmp_path / "a.mha", META_RAW[:-missing]))
