from __future__ import annotations

import os
from functools import partial

import cv2
import numpy as np
import pytest

from ct.dicom_files import make_enhanced, make_slice, write
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.importers.pictures.picture_cases import (
    Drawing,
    annotate_picture,
    build_picture_cases,
    check_size,
    find_inside,
    list_pictures_below,
    list_slice_files,
    read_json,
    read_slice_file,
    take,
    take_objects,
)
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.instances import InstanceRule, Region
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError, InputError
from lung_d2.files import hash_identity

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
LETTERS = PatientRule(r"^(.)")


@pytest.fixture
def folder(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png"):
        cv2.imwrite(str(tmp_path / name), GREY)
    return tmp_path


def read(drawing: Drawing, index: int) -> AnnotatedSlice:
    return AnnotatedSlice(read_slice_file(drawing.picture)[0], (), index)


def build(folder, *names, patients=LETTERS, **options):
    drawings = [Drawing(folder / name, folder, **options) for name in names]
    return build_picture_cases(drawings, read, Request(folder, patients=patients))


def test_pictures_of_a_patient_are_one_case_in_their_order(folder):
    cases = {case.patient: case for case in build(folder, "a2.png", "b1.png", "a1.png")}
    assert set(cases) == {hash_identity("patient", name) for name in "ab"}
    case = cases[hash_identity("patient", "a")]
    assert [item.slice_index for item in case.load()] == [0, 1]
    assert (case.contiguous, case.load.func.__name__) == (False, "_load")
    assert len({one.series for one in cases.values()}) == 2


def test_slice_goes_by_the_path_of_its_picture_below_the_source(folder):
    (folder / "sub").mkdir()
    os.rename(folder / "a2.png", folder / "sub" / "a2.png")
    (case,) = build(folder, "a1.png", "sub/a2.png", patients=PatientRule("(a)"))
    assert [item.name for item in case.load()] == ["a1.png", "sub/a2.png"]


def test_no_name_of_a_patient_is_told(folder):
    (case,) = build(folder, "a1.png", patients=PatientRule(listed={"a1.png": "DOE^JANE"}))
    assert "DOE" not in repr(case)


def test_own_patient_of_a_drawing_counts_where_no_rule_does(folder):
    (case,) = build(folder, "a1.png", patients=PatientRule(), patient="0123")
    assert case.patient == "0123"


def test_picture_that_is_there_twice_is_refused(folder):
    (folder / "c1.png").symlink_to("a1.png")
    with pytest.raises(DatasetError, match=r"c1\.png: annotated twice"):
        build(folder, "a1.png", "c1.png")


def test_lesion_without_a_pixel_is_a_speck():
    regions = [
        Region(GROUND_GLASS_OPACITY, GREY > 9),
        Region(BRONCHIECTASIS, GREY > 99),
        Region(Label.BACKGROUND, GREY > 99),
    ]
    item = annotate_picture(GREY, regions, InstanceRule("values"), 3, (0.5, 0.7), GREY > 5)
    assert [(category, int(mask.sum())) for category, mask in item.instances] == [(GROUND_GLASS_OPACITY, 2)]
    assert (item.specks, item.slice_index, item.pixel_spacing_mm, int(item.lungs.sum())) == (1, 3, (0.5, 0.7), 6)


def test_picture_is_grey_without_spacing(folder):
    plane, spacing = read_slice_file(folder / "a1.png")
    assert np.array_equal(plane, GREY)
    assert spacing is None


@pytest.mark.parametrize("name", ["slice.dcm", "1.2.840", "IM_0001"])
def test_dicom_file_of_any_name_is_hu_with_spacing(tmp_path, name):
    write(make_slice(GREY.astype(np.uint16)), tmp_path / name)
    plane, spacing = read_slice_file(tmp_path / name)
    assert np.array_equal(plane, GREY.astype(np.int16) - 1024)
    assert spacing == (0.5, 0.75)


def test_dicom_file_of_several_slices_is_refused(tmp_path):
    write(make_enhanced([GREY.astype(np.uint16)] * 3, [0.0, 1.0, 2.0], [(1, -1024)] * 3), tmp_path / "many.dcm")
    with pytest.raises(DatasetError, match=r"many\.dcm: 3 slices; expected one"):
        read_slice_file(tmp_path / "many.dcm")


def test_file_that_is_neither_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"a\.txt: not a readable picture"):
        read_slice_file(tmp_path / "a.txt")


def test_files_are_listed_below_folders_without_hidden_ones(tmp_path):
    for name in ("b.PNG", "p/a.jpg", ".hidden.png", ".cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    write(make_slice(GREY.astype(np.uint16)), tmp_path / "p" / "slice.dcm")
    (tmp_path / "p" / "notes.txt").write_text("x")
    assert list_pictures_below(tmp_path) == [tmp_path / "b.PNG", tmp_path / "p" / "a.jpg"]
    assert list_slice_files(tmp_path) == [*list_pictures_below(tmp_path), tmp_path / "p" / "slice.dcm"]


def test_links_are_followed_once(tmp_path, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "c.png").write_bytes(b"x")
    (tmp_path / "p").symlink_to(other)
    (tmp_path / "round").symlink_to(tmp_path)
    assert list_pictures_below(tmp_path) == [tmp_path / "p" / "c.png"]


def test_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=f"{tmp_path}: a folder that cannot be opened"):
        list_pictures_below(tmp_path)


@pytest.mark.parametrize("size", [(3, 4), (None, None), (0, 0), (3, None)])
def test_size_that_fits_or_is_not_said_is_taken(size):
    check_size(GREY.shape, *size, "x")


@pytest.mark.parametrize("size", [(4, 3), (3, 5), ("3", 4), (3, -4)])
def test_other_size_is_refused(size):
    with pytest.raises(DatasetError, match=r"x: annotations of a picture of .*; expected 3 x 4 \(rows x columns\)"):
        check_size(GREY.shape, *size, "x")


def test_picture_is_found_in_its_folder(folder):
    assert find_inside(folder, "a1.png", "x") == folder / "a1.png"


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("/a1.png", "the absolute path"),
        ("c:a1.png", "the absolute path"),
        ("../a1.png", "a path that leads upwards"),
        ("p\\..\\a1.png", "a path that leads upwards"),
        ("p\\a1.png", "a path with backslashes"),
        (" ", "no file name"),
        (7, "no file name"),
        ("none.png", "no picture"),
        (".", "no picture"),
    ],
)
def test_name_that_leads_elsewhere_is_refused(folder, name, finding):
    with pytest.raises(DatasetError, match=f"^place: {finding}"):
        find_inside(folder, name, "place")


def test_link_out_of_the_folder_is_refused(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "link.png").symlink_to(folder / "a1.png")
    with pytest.raises(DatasetError, match=r"place: picture link\.png, a link that leads out"):
        find_inside(folder / "inner", "link.png", "place")


def test_folder_may_be_a_link(folder, tmp_path_factory):
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(folder)
    assert find_inside(link, "a1.png", "x") == link / "a1.png"


def test_reader_is_part_of_what_a_case_is_known_by(folder):
    """A case of other options is imported again: they must be seen in its loader."""
    (case,) = build(folder, "a1.png")
    assert isinstance(case.load, partial)
    assert read in case.load.args


def test_byte_order_mark_is_no_matter(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", "a file") == {"x": 1}


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"{", "broken JSON"),
        (b"\xff", "broken JSON"),
        (b"", "broken JSON"),
        (b"[" * 99999, "broken JSON"),
        (b"3", "a JSON int"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, data, finding):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"a\.json: {finding}; expected a file of shapes"):
        read_json(tmp_path / "a.json", "a file of shapes")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.json: cannot be opened"):
        read_json(tmp_path / "a.json", "a file")


def test_values_have_their_types():
    record = {"n": 3, "s": "x", "l": [{}, {"y": 1}]}
    assert (take(record, "n", int, "x"), take(record, "s", str, "x")) == (3, "x")
    assert take_objects(record, "l", "x") == [{}, {"y": 1}]


@pytest.mark.parametrize(
    ("record", "kind", "finding"),
    [
        ({}, int, "no 'n'; expected a whole number"),
        ({"n": True}, int, "bool as 'n'; expected a whole number"),
        ({"n": 3.5}, int, "float as 'n'"),
        ({"n": None}, str, "NoneType as 'n'; expected a text"),
        ({"n": {}}, list, "dict as 'n'; expected a list"),
    ],
)
def test_other_types_are_refused(record, kind, finding):
    with pytest.raises(DatasetError, match=f"place: {finding}"):
        take(record, "n", kind, "place")


def test_list_of_other_things_is_refused():
    with pytest.raises(DatasetError, match="place: str as item 1 of 'l'; expected objects"):
        take_objects({"l": [{}, "x"]}, "l", "place")
