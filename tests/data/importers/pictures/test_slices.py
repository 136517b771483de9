from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from ct.dicom_files import make_slice, write
from data.importers.drawn import NAMES, compare, make_request, write_pictures
from data.importers.truth import make_truth
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.data.importers.pictures.slices import find_cases
from lung_d2.data.importers.registry import PatientRule
from lung_d2.data.labels import Label
from lung_d2.data.splits import read_split_file
from lung_d2.errors import DatasetError, InputError
from lung_d2.files import hash_identity
from tiny import square

SIZE = 16
LESION = square(SIZE, 2, 3, 4)
PATIENTS = {"a1.png": "a", "a2.png": "a", "b1.png": "b"}
GGO, BRONCHI = "ggo=ground_glass_opacity", "bronchi=bronchiectasis"


def draw(path, values):
    path.parent.mkdir(exist_ok=True, parents=True)
    assert cv2.imwrite(str(path), values)


@pytest.fixture
def source(tmp_path):
    """Give three slices, a1 with a lesion of 16 pixels."""
    for number, name in enumerate(PATIENTS):
        draw(tmp_path / "ct" / name, np.full((SIZE, SIZE), 50 + number, np.uint8))
    draw(tmp_path / "ggo" / "a1.png", LESION.astype(np.uint8) * 255)
    return tmp_path


def find(source, *masks, images="ct", label_map=None, lungs=None, spacing_mm=None, **request):
    options = {"instances": "components", "patients": PatientRule(listed=PATIENTS)} | request
    if not masks and not label_map:
        masks = (GGO,)
    own = {"images": images, "masks": masks, "label_map": label_map, "lungs": lungs, "spacing_mm": spacing_mm}
    return find_cases(make_request(source, **options), **own)


def slices(source, *masks, **options):
    """Return the slices in the order of their grey level, which is that of their files."""
    found = [item for case in find(source, *masks, **options) for item in case.load()]
    return sorted(found, key=lambda item: int(item.plane[0, 0]))


def sizes(source, *masks, **options):
    """Return category id and size of the lesions of slice a1."""
    return [(category.coco_id, int(mask.sum())) for category, mask in slices(source, *masks, **options)[0].instances]


# The truth, as masks of each category and as a label map.


@pytest.mark.parametrize("name", ["{}.png", "{}_mask.png", "seg_{}.png"])
def test_masks_of_lesions_come_back_exactly(tmp_path, name):
    write_pictures(tmp_path / "ct")
    for category in CATEGORIES:
        for index, stem in enumerate(NAMES):
            draw(
                tmp_path / category.name / name.format(stem[:-4]),
                make_truth().instances[category][index].astype(np.uint8),
            )
    request = make_request(tmp_path, instances="values")
    masks = [f"{category.name}={category.name}" for category in CATEGORIES]
    assert set(compare(find_cases(request, images="ct", masks=masks)).values()) == {1.0}


def test_label_map_comes_back_exactly(tmp_path):
    write_pictures(tmp_path / "images")
    for stem, values in zip(NAMES, make_truth().label_map(), strict=True):
        draw(tmp_path / "labels" / stem, values.astype(np.uint16) * 300)
    request = make_request(tmp_path, {"300": GROUND_GLASS_OPACITY, "600": BRONCHIECTASIS}, "components")
    cases = find_cases(request, label_map="labels")
    found = np.array([sum(mask.sum() for _, mask in item.instances) for case in cases for item in case.load()])
    assert found.sum() == (make_truth().label_map() > 0).sum()
    assert {category for case in cases for item in case.load() for category, _ in item.instances} == set(CATEGORIES)


def test_public_slices_come_with_lungs_and_their_split(data_root):
    listed = read_split_file(data_root / "covid_slices" / "split.csv")["patient"]
    request = make_request(data_root / "covid_slices", instances="components", patients=PatientRule(listed=listed))
    cases = find_cases(request, images="ct", masks=["covid=ground_glass_opacity"], lungs="lungs")
    assert len(cases) == 15
    items = [item for _, item in zip(range(5), cases[0].load(), strict=False)]
    assert all(item.plane.shape == (256, 256) and item.instances for item in items)
    assert all((item.lungs & mask).any() for item in items for _, mask in item.instances[:1])


# Patients and pictures.


def test_slices_are_grouped_by_patient(source):
    cases = {case.patient: case for case in find(source)}
    assert set(cases) == {hash_identity("patient", name) for name in "ab"}
    planes = [int(item.plane[0, 0]) for item in cases[hash_identity("patient", "a")].load()]
    assert planes == [50, 51]


def test_pictures_make_no_neighbours_and_have_no_hu(source):
    assert not any(case.contiguous for case in find(source))
    item = slices(source)[0]
    assert (item.plane.dtype, item.pixel_spacing_mm, item.slice_position_mm, item.lungs) == (np.uint8, None, None, None)


def test_spacing_can_be_given(source):
    assert slices(source, spacing_mm="0.8")[0].pixel_spacing_mm == (0.8, 0.8)


def test_dicom_slices_keep_hu_spacing_and_patient(tmp_path):
    stored = (np.arange(SIZE * SIZE, dtype=np.uint16) * 5).reshape(SIZE, SIZE)
    write(make_slice(stored), tmp_path / "ct" / "a1.dcm")
    draw(tmp_path / "ggo" / "a1.png", LESION.astype(np.uint8))
    (case,) = find(tmp_path, patients=PatientRule())
    (item,) = case.load()
    assert np.array_equal(item.plane, stored.astype(np.int16) - 1024)
    assert item.pixel_spacing_mm == (0.5, 0.75)
    assert case.patient == read_volume(tmp_path / "ct" / "a1.dcm").patient_hash


def test_folders_of_patients_go_along(tmp_path):
    for patient in ("p1", "p2"):
        draw(tmp_path / "ct" / patient / "scan" / "7.png", np.full((SIZE, SIZE), int(patient[1]), np.uint8))
    draw(tmp_path / "ggo" / "p2" / "scan" / "7.png", LESION.astype(np.uint8))
    cases = find(tmp_path, patients=PatientRule(by_folder=True))
    assert {case.patient for case in cases} == {hash_identity("patient", name) for name in ("p1", "p2")}
    assert [len(item.instances) for item in slices(tmp_path, patients=PatientRule(by_folder=True))] == [0, 1]


def test_pictures_may_lie_beside_the_folder_of_masks(source):
    for name in PATIENTS:
        (source / "ct" / name).rename(source / name)
    assert sizes(source, images=".") == [(1, 16)]


def test_masks_among_the_pictures_are_refused(source):
    with pytest.raises(DatasetError, match="ct: pictures and masks in one folder"):
        find(source, "ct=bronchiectasis")


def test_pictures_outside_the_patients_folders_are_named(source):
    with pytest.raises(DatasetError, match=r"a1\.png: a file outside the patients' folders"):
        find(source, patients=PatientRule(by_folder=True))


def test_pattern_takes_the_patient_from_the_name(source):
    (source / "ct" / "notes.txt").write_text("no picture")
    cases = find(source, patients=PatientRule(r"^([a-z])\d"))
    assert {case.patient for case in cases} == {hash_identity("patient", name) for name in "ab"}


@pytest.mark.parametrize(
    ("pattern", "finding"),
    [("[a-z]", "no match"), (r"^(a)", r"b1\.png: no match"), ("(", "--patients '\\('")],
    ids=["no group", "no match", "broken"],
)
def test_pattern_that_does_not_fit_is_refused(source, pattern, finding):
    with pytest.raises(DatasetError, match=finding):
        find(source, patients=PatientRule(pattern))


def test_picture_without_a_patient_is_named(source):
    with pytest.raises(DatasetError, match=r"b1\.png: no patient"):
        find(source, patients=PatientRule(listed={"a1.png": "a", "a2.png": "a"}))


@pytest.mark.parametrize("name", ["ct/a2.png", "ggo/a1.png"])
def test_case_knows_that_a_file_of_it_changed(source, name):
    before = {case.patient: case.fingerprint for case in find(source)}
    assert {case.patient: case.fingerprint for case in find(source)} == before
    os.utime(source / name, ns=(1, 1))
    changed = {case.patient for case in find(source) if case.fingerprint != before[case.patient]}
    assert changed == {hash_identity("patient", "a")}


def test_hidden_files_are_no_pictures(source):
    (source / "ct" / "._a1.png").write_bytes(b"of another system")
    assert len(find(source)) == 2


def test_missing_folder_is_named(source):
    with pytest.raises(DatasetError, match="none: no such folder"):
        find(source, "none=bronchiectasis")


def test_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "ct").mkdir()
    draw(tmp_path / "ggo" / "a1.png", LESION.astype(np.uint8))
    with pytest.raises(DatasetError, match="ct: no picture"):
        find(tmp_path)


def test_16_bit_pictures_are_refused(source):
    """PNG of 16 bits holds HU in our own data sets; nobody knows what it holds in others."""
    draw(source / "ct" / "a1.png", np.zeros((SIZE, SIZE), np.uint16))
    with pytest.raises(InputError, match=r"a1\.png: 16-bit pixels"):
        slices(source)


# Masks.


def test_picture_without_a_mask_has_no_lesion(source):
    assert [len(item.instances) for item in slices(source)] == [1, 0, 0]


def test_mask_lies_where_it_was_drawn(source):
    assert np.array_equal(slices(source)[0].instances[0][1], LESION)


@pytest.mark.parametrize("value", [1, 2, 100, 255])
def test_any_value_is_inside(source, value):
    draw(source / "ggo" / "a1.png", LESION.astype(np.uint8) * value)
    assert sizes(source) == [(1, 16)]


def test_labels_of_one_mask_are_all_inside(source):
    draw(source / "ggo" / "a1.png", LESION.astype(np.uint8) * 2 + square(SIZE, 10, 10, 3).astype(np.uint8))
    assert sizes(source) == [(1, 16), (1, 9)]


@pytest.mark.parametrize(("instances", "expected"), [("values", [(1, 8), (1, 8)]), ("components", [(1, 16)])])
def test_values_tell_touching_lesions_apart_on_request(source, instances, expected):
    values = LESION.astype(np.uint8)
    values[:, 5:] *= 2
    draw(source / "ggo" / "a1.png", values)
    assert sizes(source, instances=instances) == expected


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


def test_colour_mask_is_named_as_a_mask(source):
    draw(source / "ggo" / "a1.png", np.dstack([LESION * np.uint8(value) for value in (0, 0, 255)]))
    with pytest.raises(InputError, match=r"a1\.png: a colour picture; expected labels"):
        sizes(source)


def test_each_folder_brings_its_category(source):
    draw(source / "bronchi" / "a1.png", square(SIZE, 10, 10, 3).astype(np.uint8))
    assert sizes(source, GGO, BRONCHI) == [(1, 16), (2, 9)]


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


def test_masks_may_be_named_as_labels_are(source):
    draw(source / "doubt" / "a1.png", square(SIZE, 10, 10, 3).astype(np.uint8) * 255)
    item = slices(source, "ggo=GGO", "doubt=ignore")[0]
    assert [(category, int(mask.sum())) for category, mask in item.instances] == [(GROUND_GLASS_OPACITY, 16)]
    assert item.undecided.sum() == 9


@pytest.mark.parametrize("entry", ["ggo", "=bronchiectasis"])
def test_masks_without_a_folder_or_a_category_are_refused(source, entry):
    with pytest.raises(DatasetError, match=f"--masks {entry}: no folder or no category; expected FOLDER=CATEGORY"):
        find(source, entry)


def test_masks_of_an_unknown_category_are_refused(source):
    with pytest.raises(DatasetError, match="category 'nodule': unknown"):
        find(source, "ggo=nodule")


def test_source_without_masks_is_refused(source):
    with pytest.raises(DatasetError, match="neither --masks nor --label-map"):
        find_cases(make_request(source), images="ct")


# Label maps and lungs.


@pytest.fixture
def mapped(source):
    """Give label maps of all slices: lung 1, ground glass 2, consolidation 3."""
    values = np.ones((SIZE, SIZE), np.uint8)
    values[LESION] = 2
    values[10:12, 10:12] = 3
    for name in PATIENTS:
        draw(source / "maps" / name, values)
    return source


TABLE = {"1": Label.BACKGROUND, "2": GROUND_GLASS_OPACITY, "3": Label.IGNORE}


def test_values_of_a_label_map_have_a_meaning(mapped):
    item = slices(mapped, label_map="maps", table=TABLE)[0]
    assert [(category, int(mask.sum())) for category, mask in item.instances] == [(GROUND_GLASS_OPACITY, 16)]
    assert int(item.undecided.sum()) == 4


def test_value_without_a_meaning_is_named(mapped):
    with pytest.raises(DatasetError, match=r"a1\.png: 2 label\(s\) without a category: '1', '3'"):
        sizes(mapped, label_map="maps", table={"2": GROUND_GLASS_OPACITY})


def test_label_map_and_masks_go_together(mapped):
    draw(mapped / "bronchi" / "a1.png", square(SIZE, 13, 13, 2).astype(np.uint8))
    assert sizes(mapped, BRONCHI, label_map="maps", table=TABLE) == [(1, 16), (2, 4)]


def test_picture_without_a_label_map_is_named_or_taken_without_lesions(mapped):
    (mapped / "maps" / "b1.png").unlink()
    with pytest.raises(DatasetError, match=r"maps: 1 picture\(s\) without a label map, b1\.png first"):
        find(mapped, label_map="maps", table=TABLE)
    items = slices(mapped, label_map="maps", table=TABLE, allow_unannotated=True)
    assert [len(item.instances) for item in items] == [1, 1, 0]


def test_lungs_are_taken_where_they_are(source):
    draw(source / "lungs" / "a1_lung.png", square(SIZE, 1, 1, 9).astype(np.uint8) * 255)
    first, second, _ = slices(source, lungs="lungs")
    assert np.array_equal(first.lungs, square(SIZE, 1, 1, 9))
    assert second.lungs is None


OWN = "consolidation,code=95436008|SCT|Lung consolidation,color=#CC79A7,short=CON"


def test_a_category_defined_with_a_folder_of_masks_is_one_of_the_data_set(source):
    draw(source / "hard" / "a1.png", LESION.astype(np.uint8))
    draw(source / "hard2" / "b1.png", LESION.astype(np.uint8))
    cases = find(source, GGO, f"hard={OWN}", "hard2=consolidation")
    assert {case.categories.names[2:] == ["consolidation"] for case in cases} == {True}
    found = [[category.short_name for category, _ in item.instances] for case in cases for item in case.load()]
    assert found == [["GGO", "CON"], [], ["CON"]]
