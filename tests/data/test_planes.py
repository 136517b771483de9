from __future__ import annotations

import cv2
import numpy as np
import pytest

from lung_d2.data.planes import decode_picture, list_pictures, read_picture, read_plane, write_plane
from lung_d2.errors import DatasetError, InputError


@pytest.mark.parametrize(
    "plane",
    [np.array([[-32768, -1024], [0, 32767]], np.int16), np.arange(256, dtype=np.uint8).reshape(16, 16)],
    ids=["HU", "grey"],
)
def test_every_value_comes_back(tmp_path, plane):
    write_plane(plane, tmp_path / "slice.png")
    again = read_plane(tmp_path / "slice.png")
    assert again.dtype == plane.dtype
    assert np.array_equal(again, plane)


def test_hu_are_stored_with_an_offset(tmp_path):
    write_plane(np.array([[-1000]], np.int16), tmp_path / "slice.png")
    assert cv2.imread(str(tmp_path / "slice.png"), cv2.IMREAD_UNCHANGED).tolist() == [[31768]]


def test_grey_picture_with_three_channels_is_grey(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "picture.png"), np.dstack([grey] * 3))
    assert np.array_equal(read_plane(tmp_path / "picture.png"), grey)


def test_transparency_is_left_out(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "picture.png"), np.dstack([grey, grey, grey, np.full_like(grey, 9)]))
    assert np.array_equal(read_plane(tmp_path / "picture.png"), grey)


def test_colour_picture_is_refused(tmp_path):
    picture = np.zeros((3, 4, 3), np.uint8)
    picture[1, 1, 2] = 200
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    with pytest.raises(DatasetError, match=r"picture\.png: a colour picture"):
        read_plane(tmp_path / "picture.png")


@pytest.mark.parametrize("name", ["slice.png", "slice.jpg"])
def test_file_that_breaks_off_is_refused(tmp_path, name):
    path = tmp_path / name
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DatasetError, match=f"{name}: not a readable picture"):
        read_plane(path)


def test_whole_jpeg_is_read(tmp_path):
    cv2.imwrite(str(tmp_path / "slice.jpg"), np.full((8, 8), 77, np.uint8))
    assert np.unique(read_plane(tmp_path / "slice.jpg")).tolist() == [77]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.png: no such file.*prepare the data set again"):
        read_plane(tmp_path / "none.png")


def test_missing_picture_of_a_user_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: no such file.*; check the path$"):
        read_picture(tmp_path / "none.png")


def test_picture_is_what_the_caller_expects(tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), np.array([[[0, 0, 9]]], np.uint8))
    with pytest.raises(InputError, match=r"mask\.png: a colour picture; expected a mask; give it in grey"):
        read_picture(tmp_path / "mask.png", expected="a mask")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_picture_of_other_than_8_bits_is_refused(tmp_path, dtype):
    cv2.imwrite(str(tmp_path / "slice.tiff"), np.zeros((4, 4), dtype))
    with pytest.raises(InputError, match=r"slice\.tiff: (16-bit pixels|pixels of float32); expected 8-bit"):
        read_picture(tmp_path / "slice.tiff")


def test_pictures_are_listed_by_name(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.bmp", ".d.png", "e.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_pictures(tmp_path)] == ["a.jpeg", "b.PNG", "c.bmp"]


def test_floating_point_picture_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "slice.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(DatasetError, match="pixels of float32; expected 8 or 16 bits"):
        read_plane(tmp_path / "slice.tiff")


def test_folder_that_is_not_there_cannot_be_written(tmp_path):
    with pytest.raises(DatasetError, match="cannot be written"):
        write_plane(np.zeros((4, 4), np.int16), tmp_path / "none" / "slice.png")


def test_picture_inside_another_file_is_decoded():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(decode_picture(cv2.imencode(".png", grey)[1].tobytes(), "a.json"), grey)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", cv2.imencode(".png", np.eye(9, dtype=np.uint8))[1].tobytes()[:60]]
)
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(InputError, match=r"a\.json: not a readable picture; expected 8-bit grey"):
        decode_picture(data, "a.json")
