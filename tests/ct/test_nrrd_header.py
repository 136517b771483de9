"""NRRD headers: spaces, encodings, and what is refused before ITK sees it."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ct.volume_samples import check_sample, ct_array, refused, write_nrrd
from lung_d2.ct import read_label_volume, read_volume
from lung_d2.errors import GeometryError

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
def test_one_volume_in_many_words(tmp_path: Path, fields: dict) -> None:
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
def test_voxels_beside_the_header(tmp_path: Path, name: str, field: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_bytes(RAW)
    path = write_nrrd(tmp_path / "a.nhdr", b"", **{field: name})
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimension": "4", "sizes": "2 5 6 2", "kinds": "list domain domain domain"}, "no space (list)"),
        ({"dimension": "2", "sizes": "5 6"}, "2 dimensions; expected 3-D"),
        ({"dimension": "-1"}, "an unknown number of dimensions"),
        ({"kinds": "RGB-color domain domain"}, "no space (rgb-color)"),
        ({"kinds": "domain domain John"}, "no space (an unknown code)"),
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
        ({"space_directions": "(nan,0,0) (0,0.5,0) (0,0,2)"}, "no vectors"),
        ({"space_directions": "(0,0,0) (0,0.5,0) (0,0,2)"}, "spacing 0 x 0.5 x 2 mm; expected above 0"),
        ({"space_directions": "(0.75,0,0) (0.75,0,0) (0,0,2)"}, "skewed"),
        ({"space_directions": "(0.75,0,0) (0.2,0.5,0) (0,0,2)"}, "skewed"),
        ({"space_directions": "(1e200,0,0) (0,0.5,0) (0,0,2)"}, "up to 100 mm"),
        ({"space_origin": "(nan,0,0)"}, "damaged or no NRRD file"),
        ({"space_origin": "(1e300,0,0)"}, "beyond 100 m"),
        ({"space_units": '"cm" "cm" "cm"'}, "another unit of length; expected mm"),
        ({"endian": None}, "damaged or no NRRD file"),
        ({"bogus": "3"}, "damaged or no NRRD file"),
        ({"content": "x\rdata file: /etc/passwd"}, "its header is no text"),
    ],
)
def test_refusals(tmp_path: Path, fields: dict, words: str, capfd: pytest.CaptureFixture[str]) -> None:
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
