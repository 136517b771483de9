from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from ct.dicom_files import PLANTED, expected_hu, make_enhanced, write, write_series
from data.importers.volume_files import write_volume
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume, write_nifti
from lung_d2.data.importers.dicom.dicom_masks import find_cases
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import Label, LabelTable
from lung_d2.errors import DatasetError, GeometryError, InputError, SeriesChoiceError

GGO = "ground_glass_opacity.nii.gz"


def labels(*pixels):
    """Return a label volume of the tiny series, 3 slices of 6 x 5, with ``(z, y, x, value)`` set."""
    values = np.zeros((3, 6, 5), np.uint16)
    for z, y, x, value in pixels:
        values[z, y, x] = value
    return values


def write_case(folder, masks, **tags):
    """Write a series of 3 slices and its masks by file name."""
    write_series(folder / "dicom", count=3, **tags)
    affine = read_volume(folder / "dicom").affine_lps
    for name, values in masks.items():
        write_nifti(values, affine, folder / name)
    return folder


def find(root, table=None, instances="components", **options):
    return find_cases(Request(root, LabelTable(table or {}), InstanceRule(instances), **options))


def load(root, table=None, instances="components"):
    (case,) = find(root, table, instances)
    return list(case.load())


def found(slices):
    """Return category and size of every lesion, slice by slice."""
    return [[(category.name, int(mask.sum())) for category, mask in item.instances] for item in slices]


def test_slices_hold_hu_spacing_and_position(tmp_path):
    slices = load(write_case(tmp_path, {GGO: labels((1, 2, 2, 1))}))
    assert np.array_equal(np.stack([item.plane for item in slices]), expected_hu(3))
    assert [item.slice_index for item in slices] == [0, 1, 2]
    assert [item.slice_position_mm for item in slices] == [0.0, 2.0, 4.0]
    assert slices[0].pixel_spacing_mm == (0.5, 0.75)


def test_mask_named_by_its_category_lies_where_it_was_drawn(tmp_path):
    slices = load(write_case(tmp_path, {GGO: labels((1, 2, 3, 1), (1, 2, 4, 1))}))
    assert found(slices) == [[], [("ground_glass_opacity", 2)], []]
    assert np.argwhere(slices[1].instances[0][1]).tolist() == [[2, 3], [2, 4]]


def test_each_file_brings_its_category(tmp_path):
    masks = {GGO: labels((0, 0, 0, 1)), "bronchiectasis.nii": labels((0, 5, 4, 1))}
    assert found(load(write_case(tmp_path, masks)))[0] == [("ground_glass_opacity", 1), ("bronchiectasis", 1)]


def test_label_map_goes_by_its_table(tmp_path):
    masks = {"lesions.nii.gz": labels((0, 0, 0, 1), (0, 3, 3, 2), (1, 0, 0, 9))}
    slices = load(write_case(tmp_path, masks), {"1": GROUND_GLASS_OPACITY, "2": BRONCHIECTASIS, "9": Label.BACKGROUND})
    assert found(slices) == [[("ground_glass_opacity", 1), ("bronchiectasis", 1)], [], []]


def test_label_without_a_category_is_refused_with_the_option(tmp_path):
    folder = write_case(tmp_path, {"lesions.nii.gz": labels((0, 0, 0, 1), (1, 1, 1, 4))})
    with pytest.raises(DatasetError, match=r"lesions\.nii\.gz: 1 label\(s\) without a category: '4'.*--label '4="):
        load(folder, {"1": GROUND_GLASS_OPACITY})


TOUCHING = labels((0, 0, 0, 1), (0, 0, 1, 1), (0, 0, 2, 300), (0, 4, 4, 300))


def test_components_are_what_touches(tmp_path):
    assert found(load(write_case(tmp_path, {GGO: TOUCHING})))[0] == [("ground_glass_opacity", size) for size in (3, 1)]


def test_values_are_lesions_though_they_touch(tmp_path):
    slices = load(write_case(tmp_path, {GGO: TOUCHING}), instances="values")
    assert found(slices)[0] == [("ground_glass_opacity", 2), ("ground_glass_opacity", 2)]


def test_mask_stored_in_other_axes_lies_in_the_same_place(tmp_path):
    folder = write_case(tmp_path, {})
    affine = read_volume(folder / "dicom").affine_lps
    flipped = affine.copy()  # x runs from the last column to the first
    flipped[:3, 3] += 4 * affine[:3, 0]
    flipped[:3, 0] *= -1
    write_nifti(labels((2, 1, 0, 1))[..., ::-1], flipped, folder / GGO)
    assert np.argwhere(load(folder)[2].instances[0][1]).tolist() == [[1, 0]]


def test_mask_of_another_grid_is_refused_by_name(tmp_path):
    folder = write_case(tmp_path, {})
    affine = read_volume(folder / "dicom").affine_lps.copy()
    affine[0, 3] += 5
    write_nifti(labels((0, 0, 0, 1)), affine, folder / GGO)
    with pytest.raises(GeometryError, match=r"ground_glass_opacity\.nii\.gz: a grid of .*expected that of the CT"):
        load(folder)


def test_image_in_place_of_a_mask_is_refused(tmp_path):
    folder = write_case(tmp_path, {GGO: expected_hu(3)})
    with pytest.raises(InputError, match=r"ground_glass_opacity\.nii\.gz: values that are not labels"):
        load(folder)


def cohort(root, *, masks):
    """Write a case for each name, with the masks given for it."""
    for number, (name, files) in enumerate(masks.items()):
        write_case(root / name, files, PatientID=f"p{number}", SeriesInstanceUID=f"1.2.{number}")
    return root


def test_case_without_a_mask_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no mask"):
        find(write_case(tmp_path, {}))


def test_case_without_a_mask_among_others_is_refused_with_the_option(tmp_path):
    cohort(tmp_path, masks={"a": {GGO: labels()}, "b": {}})
    with pytest.raises(DatasetError, match=r"/b: no mask .*--allow-unannotated"):
        find(tmp_path)


@pytest.mark.parametrize("others", [{"a": {GGO: labels((0, 0, 0, 1))}}, {}])
def test_case_without_a_mask_may_be_a_normal_patient(tmp_path, others):
    cohort(tmp_path, masks=others | {"b": {}})
    cases = find(tmp_path, allow_unannotated=True)
    assert [case.name for case in cases] == [*others, "b"]
    assert found(cases[-1].load()) == [[], [], []]


@pytest.mark.parametrize("mask", ["masks/one/" + GGO, GGO])
@pytest.mark.parametrize("images", ["dicom", "."])
def test_one_case_may_be_the_source(tmp_path, images, mask):
    write_series(tmp_path / "case" / images, count=3)
    (tmp_path / "case" / mask).parent.mkdir(parents=True, exist_ok=True)
    affine = read_volume(tmp_path / "case").affine_lps
    write_nifti(labels((1, 2, 2, 1)), affine, tmp_path / "case" / mask)
    (case,) = find(tmp_path / "case")
    assert case.name == "case"
    assert found(case.load()) == [[], [("ground_glass_opacity", 1)], []]


def test_masks_without_a_series_among_cases_are_refused(tmp_path):
    cohort(tmp_path, masks={"a": {GGO: labels()}, "b": {GGO: labels()}})
    shutil.rmtree(tmp_path / "b" / "dicom")
    with pytest.raises(InputError, match="/b: not DICOM"):
        find(tmp_path)


def test_log_counts_what_is_neither_dicom_nor_a_mask(tmp_path, caplog):
    caplog.set_level("INFO")
    cohort(tmp_path, masks={"a": {GGO: labels()}})
    find(tmp_path)
    assert "left out" not in caplog.text
    (tmp_path / "a" / "notes.txt").write_text("x")
    find(tmp_path)
    assert "/a: left out 1 file that is not DICOM\n" in caplog.text


def test_index_of_a_medium_is_no_image(tmp_path):
    cohort(tmp_path, masks={"a": {GGO: labels()}, "b": {GGO: labels()}})
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert len(find(tmp_path)) == 2


def test_folder_may_be_the_patient(tmp_path):
    for number in range(2):
        write_case(tmp_path / f"{number}", {GGO: labels()}, PatientID="ANON", SeriesInstanceUID=f"1.2.{number}")
    for by_folder, count in ((False, 1), (True, 2)):
        cases = find(tmp_path, patients=PatientRule(by_folder=by_folder))
        assert len({case.patient for case in cases}) == count
    assert all(len(case.patient) == 16 for case in cases)


@pytest.mark.parametrize("name", ["dicom/0002.dcm", GGO])
def test_case_knows_that_a_file_of_it_changed(tmp_path, name):
    write_case(tmp_path, {GGO: labels()})
    for number, path in enumerate(sorted((tmp_path / "dicom").iterdir())):
        path.rename(path.with_name(f"{number:04d}.dcm"))
    before = find(tmp_path)[0].fingerprint
    assert find(tmp_path)[0].fingerprint == before
    os.utime(tmp_path / name, ns=(1, 1))
    assert find(tmp_path)[0].fingerprint != before


def test_suffix_of_a_mask_may_be_in_capitals(tmp_path):
    folder = write_case(tmp_path, {GGO: labels((1, 2, 2, 1))})
    (folder / GGO).rename(folder / "ground_glass_opacity.NII.GZ")
    assert found(load(folder))[1] == [("ground_glass_opacity", 1)]


def test_case_without_a_series_is_refused(tmp_path):
    write_case(tmp_path / "good", {GGO: labels()})
    (tmp_path / "case").mkdir()
    (tmp_path / "good" / GGO).rename(tmp_path / "case" / GGO)
    with pytest.raises(InputError, match="case"):
        find(tmp_path / "case")


def test_two_series_in_a_case_are_refused(tmp_path):
    folder = write_case(tmp_path, {GGO: labels()})
    write_series(folder / "other", count=3, SeriesInstanceUID="1.2.3.4")
    with pytest.raises(SeriesChoiceError, match="2 CT series; expected one in each case"):
        find(folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="none: no such folder"):
        find(tmp_path / "none")


def test_cases_are_folders_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate("bac"):
        uids = {"PatientID": f"p{number}", "SeriesInstanceUID": f"1.2.{number}"}
        write_case(tmp_path / name, {GGO: labels()}, **uids)
    cases = find(tmp_path)
    assert [case.name for case in cases] == ["a", "b", "c"]
    assert len({case.patient for case in cases}) == len({case.series for case in cases}) == 3


def test_two_series_of_a_patient_have_one_patient(tmp_path):
    for number in range(2):
        write_case(tmp_path / f"{number}", {GGO: labels()}, SeriesInstanceUID=f"1.2.{number}")
    cases = find(tmp_path)
    assert len({case.patient for case in cases}) == 1
    assert len({case.series for case in cases}) == 2


def test_case_holds_nothing_of_the_patient(tmp_path):
    (case,) = find(write_case(tmp_path / "case", {GGO: labels()}))
    assert not any(word in repr((case.name, case.patient, case.series)) for word in PLANTED)
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in (case.patient, case.series))


def test_frames_with_rescales_of_their_own_are_imported_in_hu(tmp_path):
    stored = [np.full((6, 5), 500 + 100 * index, np.uint16) for index in range(3)]
    frames = make_enhanced(stored, (0.0, 2.0, 4.0), [(1, -1024), (1, -1124), (1, -1224)])
    write(frames, tmp_path / "dicom" / "frames.dcm")
    write_nifti(labels((1, 1, 1, 1)), read_volume(tmp_path / "dicom").affine_lps, tmp_path / GGO)
    slices = load(tmp_path)
    assert [int(item.plane[0, 0]) for item in slices] == [-524, -524, -524]
    assert found(slices) == [[], [("ground_glass_opacity", 1)], []]


@pytest.mark.parametrize("name", ["ground_glass_opacity.nrrd", "ground_glass_opacity.mha"])
def test_mask_may_be_of_any_volume_format(tmp_path, name):
    folder = write_case(tmp_path, {})
    write_volume(labels((1, 2, 3, 1)), read_volume(folder / "dicom").affine_lps, folder / name)
    assert np.argwhere(load(folder)[1].instances[0][1]).tolist() == [[2, 3]]
