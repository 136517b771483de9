from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2.data.importers.mask_names import match_masks, names_below
from lung_d2.errors import DatasetError

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
