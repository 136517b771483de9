from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lung_d2.data.importers.pictures.slices import match_masks, names_below, read_labels, read_mask
from lung_d2.errors import DatasetError, InputError

VALUES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
SHAPE = (2, 3)
COLOURS = [0, 0, 0, 255, 0, 0, 0, 255, 0]


def save_indexed(path, palette):
    indexed = Image.new("P", SHAPE[::-1])
    indexed.putdata(VALUES.ravel().tolist())
    indexed.putpalette(palette)
    indexed.save(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_indices_of_colours_are_labels(tmp_path, suffix):
    save_indexed(tmp_path / f"a{suffix}", COLOURS)
    assert np.array_equal(read_labels(tmp_path / f"a{suffix}", SHAPE), VALUES)


def test_greys_that_are_indexed_are_levels(tmp_path):
    """As programs write that make PNG files smaller."""
    save_indexed(tmp_path / "a.png", [0, 0, 0, 127, 127, 127, 255, 255, 255])
    assert read_labels(tmp_path / "a.png", SHAPE).tolist() == [[0, 127, 255], [255, 127, 0]]


@pytest.mark.parametrize("factor", [1, 300])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_labels_of_16_bits_are_read(tmp_path, suffix, factor):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), VALUES.astype(np.uint16) * factor)
    assert np.array_equal(read_labels(tmp_path / f"a{suffix}", SHAPE), VALUES.astype(int) * factor)


def test_bits_are_labels(tmp_path):
    Image.fromarray(VALUES == 1).save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png", SHAPE) != 0, VALUES == 1)


@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_are_labels(tmp_path, channels):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([VALUES] * 3 + [np.full(SHAPE, 255, np.uint8)] * (channels - 3)))
    assert np.array_equal(read_labels(tmp_path / "a.png", SHAPE), VALUES)


def test_colours_without_an_index_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([VALUES, VALUES * 2, VALUES]))
    with pytest.raises(InputError, match=r"a\.png: a colour picture; expected labels.*indexed PNG"):
        read_labels(tmp_path / "a.png", SHAPE)


def test_fractions_are_refused(tmp_path):
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: a picture of mode F"):
        read_labels(tmp_path / "a.tif", SHAPE)


def test_other_size_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), VALUES)
    with pytest.raises(DatasetError, match=r"a\.png: size \(2, 3\); expected \(2, 4\)"):
        read_labels(tmp_path / "a.png", (2, 4))


def test_truncated_file_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.png: not a readable picture"):
        read_labels(tmp_path / "a.png", noise.shape)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: no such file"):
        read_labels(tmp_path / "a.png", SHAPE)


def test_jpeg_holds_no_labels_but_may_hold_a_mask(tmp_path):
    square = np.zeros((16, 16), np.uint8)
    square[:8, :8] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), square)
    with pytest.raises(DatasetError, match=r"a\.jpg: labels as JPEG"):
        read_labels(tmp_path / "a.jpg", square.shape)
    assert np.array_equal(read_mask(tmp_path / "a.jpg", square.shape), square > 0)


def test_jpeg_mask_of_low_labels_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((16, 16), 2, np.uint8))
    with pytest.raises(DatasetError, match=r"a\.jpg: a JPEG mask of levels up to 2; expected 0 and 255"):
        read_mask(tmp_path / "a.jpg", (16, 16))


def test_labels_of_a_mask_are_kept(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), VALUES)
    assert np.array_equal(read_mask(tmp_path / "a.png", SHAPE), VALUES)


FOLDER = Path("masks")


def named(names):
    return {name: Path(f"{name}.png") for name in names.split()}


def match(pictures, masks):
    """Return the names of the masks by those of their pictures."""
    found = match_masks(named(pictures), named(masks), FOLDER)
    return {picture.with_suffix("").as_posix(): mask.with_suffix("").as_posix() for picture, mask in found.items()}


def test_same_names_match():
    assert match("a b c", "c a") == {"a": "a", "c": "c"}


@pytest.mark.parametrize(
    ("pictures", "masks", "expected"),
    [
        ("0001 0002 0011", "0001_mask 0011_mask", {"0001": "0001_mask", "0011": "0011_mask"}),
        ("0001 0002", "mask_0001 mask_0002", {"0001": "mask_0001", "0002": "mask_0002"}),
        ("img_1 img_2", "seg_2", {"img_2": "seg_2"}),
        ("1_ct 2_ct", "1_lesion 2_lesion", {"1_ct": "1_lesion", "2_ct": "2_lesion"}),
        ("IMG0001 IMG0002", "MASK0001", {"IMG0001": "MASK0001"}),
        ("a_1 b_1", "a_1_mask", {"a_1": "a_1_mask"}),
        ("p/1 q/1", "p/1_mask q/1_mask", {"p/1": "p/1_mask", "q/1": "q/1_mask"}),
    ],
)
def test_affix_that_all_masks_have_is_left_out(pictures, masks, expected):
    assert match(pictures, masks) == expected


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        ("a b", "a c"),  # one fits as it is, so there is no affix
        ("0001 0002", "mask_0001 0002_mask"),
        ("1 2", "11 12"),  # a digit is no affix
        ("a_1 b_1", "c_1"),  # not all pictures begin with a_
        ("p/1 q/2", "p/2 q/1"),
        ("p/1 q/2", "p/1_mask q/1_mask"),
    ],
)
def test_mask_without_a_picture_is_named(pictures, masks):
    with pytest.raises(DatasetError, match=r"masks: \d mask\(s\) without a picture, .*\.png first"):
        match(pictures, masks)


def test_names_that_fit_in_two_ways_are_refused():
    with pytest.raises(DatasetError, match="fit the pictures in several ways"):
        match("x x_x", "x_x_x")


def test_folder_without_masks_is_refused():
    with pytest.raises(DatasetError, match="masks: no mask"):
        match("a b", "")


def test_names_are_paths_below_the_folder_without_suffix():
    files = [Path("ct/p/1.PNG"), Path("ct/2.5.jpg"), Path("ct/1.2.840.113"), Path("ct/x.dcm")]
    assert list(names_below(files, Path("ct"))) == ["p/1", "2.5", "1.2.840.113", "x"]


def test_files_that_differ_by_their_suffix_are_refused():
    with pytest.raises(DatasetError, match=r"1\.png: named as 1\.jpg"):
        names_below([Path("ct/1.jpg"), Path("ct/1.png")], Path("ct"))
