from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.importers.slice_folders import find_slice_cases, patients_by_pattern
from lung_d2.errors import DatasetError, InputError
from tiny import square

SIZE = 16
LESION = square(SIZE, 2, 3, 4)
PATIENTS = {"a1.png": "a", "a2.png": "a", "b1.png": "b"}


def draw(path, values):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), values)


@pytest.fixture
def source(tmp_path):
    """Give three slices, a1 with a lesion of 16 pixels."""
    for number, name in enumerate(PATIENTS):
        draw(tmp_path / "ct" / name, np.full((SIZE, SIZE), 50 + number, np.uint8))
    draw(tmp_path / "ggo" / "a1.png", LESION.astype(np.uint8) * 255)
    return tmp_path


def find(source, patient_of=PATIENTS, **folders):
    masks = {source / name: category for name, category in folders.items()} or {source / "ggo": GROUND_GLASS_OPACITY}
    return find_slice_cases(source / "ct", masks, patient_of)


def sizes(source, **folders):
    """Return category id and size of the lesions of slice a1."""
    first = next(iter(find(source, **folders)[0].load()))
    return [(category.coco_id, int(mask.sum())) for category, mask in first.instances]


def test_slices_are_grouped_by_patient(source):
    cases = find(source)
    assert [case.patient for case in cases] == ["a", "b"]
    assert [[int(item.plane[0, 0]) for item in case.load()] for case in cases] == [[50, 51], [52]]


def test_pictures_make_no_neighbours_and_have_no_hu(source):
    case = find(source)[0]
    item = next(iter(case.load()))
    assert not case.contiguous
    assert (item.plane.dtype, item.pixel_spacing_mm, item.slice_position_mm) == (np.uint8, None, None)


def test_picture_without_a_mask_has_no_lesion(source):
    assert [len(item.instances) for case in find(source) for item in case.load()] == [1, 0, 0]


def test_mask_lies_where_it_was_drawn(source):
    item = next(iter(find(source)[0].load()))
    assert np.array_equal(item.instances[0][1], LESION)


@pytest.mark.parametrize("value", [1, 2, 100, 255])
def test_any_value_is_inside(source, value):
    draw(source / "ggo" / "a1.png", LESION.astype(np.uint8) * value)
    assert sizes(source) == [(1, 16)]


def test_labels_of_one_mask_are_all_inside(source):
    draw(source / "ggo" / "a1.png", LESION.astype(np.uint8) * 2 + square(SIZE, 10, 10, 3).astype(np.uint8))
    assert sizes(source) == [(1, 16), (1, 9)]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_low_labels_beside_255_are_inside(source, suffix):
    (source / "ggo" / "a1.png").unlink()
    draw(source / "ggo" / f"a1{suffix}", LESION.astype(np.uint8) * 255 + square(SIZE, 10, 10, 3) * np.uint8(1))
    assert sizes(source) == [(1, 16), (1, 9)]


@pytest.mark.parametrize(("side", "expected"), [(8, [(1, 64)]), (0, [])])
def test_greys_around_a_jpeg_mask_are_outside(source, side, expected):
    (source / "ggo" / "a1.png").unlink()
    draw(source / "ggo" / "a1.jpg", square(SIZE, 0, 8, side).astype(np.uint8) * 255)
    assert sizes(source) == expected


def test_jpeg_mask_of_low_labels_is_refused(source):
    (source / "ggo" / "a1.png").unlink()
    draw(source / "ggo" / "a1.jpg", np.full((SIZE, SIZE), 2, np.uint8))
    with pytest.raises(DatasetError, match=r"a1\.jpg: a JPEG mask of levels up to 2; expected 0 and 255"):
        sizes(source)


def test_colour_mask_is_named_as_a_mask(source):
    draw(source / "ggo" / "a1.png", np.dstack([LESION * np.uint8(value) for value in (0, 0, 255)]))
    with pytest.raises(InputError, match=r"a1\.png: a colour picture; expected an 8-bit mask"):
        sizes(source)


@pytest.mark.parametrize("name", ["ct/a2.png", "ggo/a1.png"])
def test_case_knows_that_a_file_of_it_changed(source, name):
    before = [case.fingerprint for case in find(source)]
    assert [case.fingerprint for case in find(source)] == before
    os.utime(source / name, ns=(1, 1))
    after = [case.fingerprint for case in find(source)]
    assert (after[0] != before[0], after[1] != before[1]) == (True, False)


def test_hidden_files_are_no_pictures(source):
    (source / "ct" / "._a1.png").write_bytes(b"of another system")
    assert len(find(source)) == 2


def test_each_folder_brings_its_category(source):
    draw(source / "bronchi" / "a1.png", square(SIZE, 10, 10, 3).astype(np.uint8))
    assert sizes(source, ggo=GROUND_GLASS_OPACITY, bronchi=BRONCHIECTASIS) == [(1, 16), (2, 9)]


def test_mask_without_a_picture_is_named(source):
    draw(source / "ggo" / "c9.png", np.zeros((SIZE, SIZE), np.uint8))
    with pytest.raises(DatasetError, match=r"ggo: 1 mask\(s\) without a picture, c9\.png first"):
        find(source)


def test_folder_without_a_mask_is_refused(source):
    (source / "ggo" / "a1.png").unlink()
    with pytest.raises(DatasetError, match="ggo: no mask"):
        find(source)


def test_mask_of_another_size_is_named(source):
    draw(source / "ggo" / "a1.png", np.zeros((SIZE, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"a1\.png: size \(16, 8\); expected \(16, 16\)"):
        sizes(source)


@pytest.mark.parametrize("folder", ["ct", "ggo"])
def test_16_bit_pictures_are_refused(source, folder):
    """PNG of 16 bits holds HU in our own data sets; nobody knows what it holds in others."""
    draw(source / folder / "a1.png", np.zeros((SIZE, SIZE), np.uint16))
    with pytest.raises(InputError, match=r"a1\.png: 16-bit pixels"):
        sizes(source)


def test_picture_without_a_patient_is_named(source):
    with pytest.raises(DatasetError, match=r"b1\.png: no patient"):
        find(source, {"a1.png": "a", "a2.png": "a"})


def test_missing_folder_is_named(source):
    with pytest.raises(DatasetError, match="none: no such folder"):
        find(source, none=GROUND_GLASS_OPACITY)


def test_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "ct").mkdir()
    with pytest.raises(DatasetError, match="ct: no picture"):
        find_slice_cases(tmp_path / "ct", {}, {})


def test_pattern_takes_the_patient_from_the_name(source):
    (source / "ct" / "notes.txt").write_text("no picture")
    assert patients_by_pattern(source / "ct", r"^([a-z])\d") == PATIENTS


@pytest.mark.parametrize(
    ("pattern", "finding"),
    [("[a-z]", "no match"), (r"^(a)", r"b1\.png: no match"), ("(", "--patients '\\('")],
    ids=["no group", "no match", "broken"],
)
def test_pattern_that_does_not_fit_is_refused(source, pattern, finding):
    with pytest.raises(DatasetError, match=finding):
        patients_by_pattern(source / "ct", pattern)
