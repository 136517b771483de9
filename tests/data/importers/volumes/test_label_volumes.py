from __future__ import annotations

import pickle

import numpy as np
import pytest

from data.importers.truth import GEOMETRIES, compare, make_truth
from data.importers.volume_files import make_overlap, write_volume
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.importers.volumes.label_volumes import find_cases
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import parse_labels
from lung_d2.errors import ConfigError, DatasetError, GeometryError, InputError

AFFINE = np.diag([0.75, 0.5, 2.0, 1.0])
HU = (np.arange(90).reshape(3, 6, 5) * 20 - 1000).astype(np.int16)
GGO = ("1=ground_glass_opacity",)
BOTH = ("1=ground_glass_opacity", "2=bronchiectasis")


def labels(*voxels):
    """Return a label map of the tiny CT with ``(z, y, x, value)`` set."""
    values = np.zeros(HU.shape, np.uint8)
    for z, y, x, value in voxels:
        values[z, y, x] = value
    return values


def lay(root, images, masks=(), *, hu=HU, mask=labels((1, 2, 3, 1))):  # noqa: B008 - it is not changed
    for name in images:
        write_volume(hu, AFFINE, root / name)
    for name in masks:
        write_volume(mask, AFFINE, root / name)
    return root


def find(root, table=GGO, kind="components", patients=None, allow_unannotated=False, **options):
    rule, patients = InstanceRule(kind), patients or PatientRule()
    return find_cases(Request(root, parse_labels(table), rule, patients, allow_unannotated), **options)


def found(case):
    """Return category and pixels of every lesion, slice by slice."""
    return [
        [(category.coco_id, np.argwhere(mask).tolist()) for category, mask in item.instances] for item in case.load()
    ]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_round_trip(tmp_path, geometry, suffix):
    truth = make_truth(geometry)
    image = write_volume(truth.hu, truth.affine_lps, tmp_path / f"images/p{suffix}")
    write_volume(truth.label_map(), truth.affine_lps, tmp_path / f"labels/p{suffix}")
    (case,) = find(tmp_path, BOTH)
    assert compare(case.load(), truth, image) == {"ground_glass_opacity": 1.0, "bronchiectasis": 1.0}


def test_round_trip_of_masks_that_overlap(tmp_path):
    truth = make_overlap(make_truth("oblique"))
    image = write_volume(truth.hu, truth.affine_lps, tmp_path / "images/p.mha")
    for category, values in truth.instances.items():
        write_volume(values, truth.affine_lps, tmp_path / f"{category.name}/p.nii.gz")
    (case,) = find(tmp_path, (), labels=[f"{category.name}={category.name}" for category in truth.instances])
    assert compare(case.load(), truth, image) == {"ground_glass_opacity": 1.0, "bronchiectasis": 1.0}


def test_label_map_of_other_axes_lies_in_the_same_place(tmp_path):
    lay(tmp_path, ["images/a.nii.gz"])
    turned = AFFINE[:, [2, 0, 1, 3]] @ np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] = AFFINE[:3, 2] * 2
    values = labels((2, 4, 1, 1)).transpose(1, 2, 0)[:, :, ::-1]
    write_volume(values, turned, tmp_path / "labels/a.nrrd")
    assert found(find(tmp_path)[0]) == [[], [], [(1, [[4, 1]])]]


def test_each_folder_brings_a_category(tmp_path):
    lay(tmp_path, ["ct/a.mha"], ["m/ggo/a.mha"], mask=labels((0, 0, 0, 1), (0, 0, 1, 7)))
    lay(tmp_path, [], ["m/bro/a_mask.nii"], mask=labels((2, 5, 4, 255)))
    masks = ["m/ggo=ground_glass_opacity", "m/bro=bronchiectasis"]
    (case,) = find(tmp_path, (), images="ct", labels=masks)
    assert found(case) == [[(1, [[0, 0], [0, 1]])], [], [(2, [[5, 4]])]]
    (case,) = find(tmp_path, (), "values", images="ct", labels=masks)
    assert found(case) == [[(1, [[0, 0]]), (1, [[0, 1]])], [], [(2, [[5, 4]])]]


def test_masks_may_be_named_as_labels_are(tmp_path):
    lay(tmp_path, ["images/a.mha"], ["m/a.mha"])
    lay(tmp_path, [], ["n/a.mha"], mask=labels((2, 5, 4, 1)))
    (case,) = find(tmp_path, (), labels=["m=ggo", "n=ignore"])
    assert found(case) == [[], [(1, [[2, 3]])], []]
    assert [None if item.undecided is None else int(item.undecided.sum()) for item in case.load()] == [None, None, 1]


def test_case_is_anonymous_and_goes_to_a_worker(tmp_path):
    (case,) = find(lay(tmp_path, ["images/sub/a.nii"], ["labels/a.nii"]))
    again = pickle.loads(pickle.dumps(case))
    assert (again.name, len(again.patient), len(again.series)) == ("images/sub/a", 16, 16)
    assert found(again) == [[], [(1, [[2, 3]])], []]
    assert repr(case.load) == repr(find(tmp_path)[0].load)


def test_each_volume_is_a_patient_unless_the_user_says_so(tmp_path):
    lay(tmp_path, ["images/p1_a.nii", "images/p1_b.nii"], ["labels/p1_a.nii", "labels/p1_b.nii"])
    assert len({case.patient for case in find(tmp_path)}) == 2
    assert len({case.patient for case in find(tmp_path, patients=PatientRule(r"(p\d)_"))}) == 1
    assert len({case.series for case in find(tmp_path)}) == 2


@pytest.mark.parametrize("images", ["images", "images/*/*.nii", "images/p*"])
def test_folder_of_a_patient_lies_in_that_of_the_images(tmp_path, images):
    names = ["p1/a.nii", "p1/b.nii", "p2/c.nii"]
    lay(tmp_path, [f"images/{name}" for name in names], [f"labels/{name}" for name in names])
    lay(tmp_path, ["normal/p2/d.nii"])
    cases = find(tmp_path, images=images, lesion_free="normal", patients=PatientRule(by_folder=True))
    patients = {case.name: case.patient for case in cases}
    assert len(patients) == 4
    assert patients["images/p1/a"] == patients["images/p1/b"] != patients["images/p2/c"] == patients["normal/p2/d"]


def test_image_in_no_folder_of_a_patient_is_refused_where_folders_count(tmp_path):
    lay(tmp_path, ["images/a.nii", "images/b.nii"], ["labels/a.nii", "labels/b.nii"])
    (tmp_path / "pairs.csv").write_text("image,label\nimages/a.nii,labels/a.nii\nimages/b.nii,labels/b.nii\n")
    for options in ({}, {"pairs": tmp_path / "pairs.csv"}, {"unrelated_slices": True}):
        with pytest.raises(DatasetError, match=r"a\.nii: a file outside the patients' folders.*--patients REGEX"):
            find(tmp_path, patients=PatientRule(by_folder=True), **options)


def test_table_pairs_files_and_names_patients(tmp_path):
    lay(tmp_path / "data", ["x.nii", "y.nii"], ["m.nii", "n.nii"])
    (tmp_path / "data/pairs.csv").write_text("image,label,patient\nx.nii,m.nii,7\ny.nii,n.nii,7\n")
    cases = find(tmp_path, pairs=tmp_path / "data/pairs.csv")
    assert [case.name for case in cases] == ["x", "y"]
    assert len({case.patient for case in cases}) == 1
    assert found(cases[0]) == [[], [(1, [[2, 3]])], []]


def test_image_without_a_label_is_refused_with_the_options(tmp_path):
    lay(tmp_path, ["images/1.nii", "images/2.nii", "images/3.nii"], ["labels/2.nii"])
    with pytest.raises(DatasetError, match=r"1\.nii: it has no label, as 2 of 3 images.*--only-annotated"):
        find(tmp_path)


def test_image_without_a_label_may_be_left_out_or_normal(tmp_path):
    lay(tmp_path, ["images/1.nii", "images/2.nii"], ["labels/2.nii"])
    assert [case.name for case in find(tmp_path, only_annotated=True)] == ["images/2"]
    normal, marked = find(tmp_path, allow_unannotated=True)
    assert (found(normal), found(marked)) == ([[], [], []], [[], [(1, [[2, 3]])], []])


def test_image_needs_a_label_of_each_kind(tmp_path):
    lay(tmp_path, ["images/1.nii", "images/2.nii"], ["a/1.nii", "a/2.nii", "b/2.nii"])
    masks = ["a=ground_glass_opacity", "b=bronchiectasis"]
    with pytest.raises(DatasetError, match=r"1\.nii: it has no label, as 1 of 2 images; expected 2 for each image"):
        find(tmp_path, labels=masks)
    assert [case.name for case in find(tmp_path, labels=masks, only_annotated=True)] == ["images/2"]


@pytest.mark.parametrize("images", ["ct/sick", "ct"])
def test_images_known_to_be_normal_need_no_label(tmp_path, images):
    lay(tmp_path, ["ct/sick/1.nii", "ct/sick/2.nii", "ct/normal/3.nii"], ["labels/1.nii"])
    cases = find(tmp_path, images=images, only_annotated=True, lesion_free="ct/normal")
    assert [case.name for case in cases] == ["ct/normal/3", "ct/sick/1"]
    assert found(cases[0]) == [[], [], []]


def test_normal_image_with_a_label_is_refused(tmp_path):
    lay(tmp_path, ["images/1.nii"], ["labels/1.nii"])
    with pytest.raises(DatasetError, match=r"1\.nii: a label; expected none, as an image of --lesion-free"):
        find(tmp_path, lesion_free="images")


@pytest.mark.parametrize(
    ("images", "masks", "options", "finding"),
    [
        (["images/1.nii"], ["labels/2.nii"], {}, r"2\.nii: a label without an image"),
        (["images/1.nii", "images/1.nrrd"], ["labels/1.nii"], {}, r"1\.nrrd: paired as"),
        (["images/1.nii"], ["labels/1.nii", "labels/1.mha"], {}, r"1\.nii: 2 labels, 1\.mha and 1\.nii; expected one"),
        (["all/1_ct.nii"], ["all/1_seg.nii"], {"images": "all", "labels": ["all/*_seg.nii"]}, "an image and a label"),
        (["images/1.nii"], [], {}, "labels: no volume"),
        (["images/1.nii"], ["labels/2.nii"], {"label_key": r"(\d)x"}, "no match .* correct --label-key"),
        (["images/1.nii"], ["m/1.nii"], {"labels": ["m=tumour"]}, "category 'tumour': unknown"),
        (["images/1.nii"], ["labels/1.nii"], {"images": "../images"}, "a relative one"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path, images, masks, options, finding):
    with pytest.raises(DatasetError, match=finding):
        find(lay(tmp_path, images, masks), **options)


def test_source_must_be_a_folder(tmp_path):
    with pytest.raises(DatasetError, match="none: no such folder"):
        find(tmp_path / "none")


def moved(path, **header):
    """Move a label file by 5 mm."""
    affine = AFFINE.copy()
    affine[0, 3] = 5
    write_volume(labels((0, 0, 0, 1)), affine, path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-60])


def claim_much(path):
    path.write_bytes(path.read_bytes().replace(b"DimSize = 5 6 3", b"DimSize = 5000 6000 3000"))


def break_spacing(path):
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 0.75 0.5 2", b"ElementSpacing = nan 0.5 2"))


def add_axis(path):
    text = path.read_bytes().replace(b"NDims = 3", b"NDims = 4").replace(b"DimSize = 5 6 3", b"DimSize = 5 6 3 2")
    path.write_bytes(text)


@pytest.mark.parametrize("spoil", [moved, cut, claim_much, break_spacing, add_axis])
def test_spoilt_label_is_refused_by_name(tmp_path, spoil):
    (case,) = find(lay(tmp_path, ["images/a.nii"], ["labels/a.mha"]))
    path = tmp_path / "labels/a.mha"
    before = path.read_bytes()
    spoil(path)
    assert path.read_bytes() != before
    expected = GeometryError if spoil is moved else InputError
    with pytest.raises(expected, match=r"labels/a\.mha: ") as error:
        list(case.load())
    assert "\n" not in str(error.value)


def test_value_without_a_category_is_refused_with_the_option(tmp_path):
    (case,) = find(lay(tmp_path, ["images/a.nii"], ["labels/a.nii"], mask=labels((0, 0, 0, 3))))
    with pytest.raises(DatasetError, match=r"labels/a\.nii: 1 label\(s\) without a category: '3'.*--label '3="):
        list(case.load())


GREY = np.linspace(0, 255, 90).round().astype(np.uint8).reshape(HU.shape)


def test_grey_levels_are_refused_as_hu(tmp_path):
    wide = np.diag([10.0, 10.0, 2.0, 1.0])
    write_volume(GREY, wide, tmp_path / "images/a.nii")
    write_volume(labels((1, 2, 3, 1)), wide, tmp_path / "labels/a.nii")
    with pytest.raises(InputError, match=r"a\.nii: values from 0 to 255: nothing below 0"):
        list(find(tmp_path)[0].load())


def test_grey_levels_become_the_hu_that_they_stand_for(tmp_path):
    (case,) = find(lay(tmp_path, ["images/a.nii"], ["labels/a.nii"], hu=GREY), hu_range=[-1250, 250])
    planes = np.stack([item.plane for item in case.load()])
    assert (planes.dtype, planes.min(), planes.max()) == (np.int16, -1250, 250)
    assert np.abs(planes - (GREY.astype(float) * 1500 / 255 - 1250)).max() <= 0.5


def test_hu_stay_hu_beside_grey_levels(tmp_path):
    (case,) = find(lay(tmp_path, ["images/a.nii"], ["labels/a.nii"]), hu_range=[-1250, 250])
    assert np.array_equal(np.stack([item.plane for item in case.load()]), HU)


@pytest.mark.parametrize("hu_range", [[250, -1250], [0, 0], [float("nan"), 1], [-1e3, float("inf")]])
def test_range_that_is_none_is_refused(tmp_path, hu_range):
    lay(tmp_path, ["images/a.nii"], ["labels/a.nii"])
    with pytest.raises(ConfigError, match=r"--hu-range: .*expected LOW below HIGH"):
        find(tmp_path, hu_range=hu_range)


def test_unrelated_slices_are_cases_without_neighbours(tmp_path):
    lay(tmp_path, ["tr_im.nii.gz"], ["tr_mask.nii.gz"])
    cases = find(tmp_path, images="tr_im.nii.gz", labels=["tr_mask.nii.gz"], unrelated_slices=True)
    assert [case.name for case in cases] == ["tr_im/0000", "tr_im/0001", "tr_im/0002"]
    assert len({case.patient for case in cases}) == len({case.series for case in cases}) == 3
    assert not any(case.contiguous for case in cases)
    items = [item for case in cases for item in case.load()]
    assert np.array_equal(np.stack([item.plane for item in items]), HU)
    assert [item.slice_index for item in items] == [0, 1, 2]
    assert {(item.pixel_spacing_mm, item.slice_position_mm) for item in items} == {(None, None)}
    assert [len(item.instances) for item in items] == [0, 1, 0]
    assert [item.name for item in items] == [f"tr_im.nii.gz slice {index}" for index in range(3)]


def test_unrelated_slices_may_have_patients(tmp_path):
    lay(tmp_path, ["tr_im.nii"], ["tr_mask.nii"])
    listed = PatientRule(listed={"tr_im.nii/0000": "p", "tr_im.nii/0001": "p"})
    cases = find(tmp_path, patients=listed, images="tr_im.nii", labels=["tr_mask.nii"], unrelated_slices=True)
    assert cases[0].patient == cases[1].patient != cases[2].patient


def test_changed_stack_is_read_again(tmp_path):
    options = {"images": "tr_im.nii", "labels": ["tr_mask.nii"], "unrelated_slices": True}
    before = [found(case) for case in find(lay(tmp_path, ["tr_im.nii"], ["tr_mask.nii"]), **options)]
    lay(tmp_path, [], ["tr_mask.nii"], mask=labels((0, 0, 0, 1), (2, 0, 0, 1)))
    assert [found(case) for case in find(tmp_path, **options)] != before


PUBLIC = {
    "Zenodo 3757476": (
        ["ct/coronacases_001.nii.gz", "ct/radiopaedia_10_85902_1.nii.gz", "ct/radiopaedia_10_85902_3.nii.gz"],
        ["inf/coronacases_001.nii.gz", "inf/radiopaedia_10_85902_1.nii.gz", "inf/radiopaedia_10_85902_3.nii.gz"],
        {"images": "ct", "labels": ["inf"], "patients": PatientRule(r"(coronacases_\d+|radiopaedia_\d+_\d+)")},
        2,
    ),
    "Kaggle copy of it": (
        [
            *("ct_scans/coronacases_org_001.nii", "ct_scans/coronacases_org_case007.nii", "ct_scans/case009.nii"),
            "ct_scans/radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm.nii/"
            "radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm.nii",
        ],
        [
            *("infection_mask/coronacases_001.nii", "infection_mask/coronacases_007.nii"),
            *("infection_mask/coronacases_009.nii", "infection_mask/radiopaedia_7_85703_0.nii"),
        ],
        {"images": "ct_scans", "labels": ["infection_mask"], "image_key": r"(\d+_\d+_\d+|\d+)\D*$"},
        4,
    ),
    "MosMedData": (
        ["studies/CT-0/study_0001.nii.gz", "studies/CT-1/study_0255.nii.gz", "studies/CT-1/study_0305.nii.gz"],
        ["masks/study_0255_mask.nii.gz"],
        {"images": "studies/CT-1", "labels": ["masks"], "only_annotated": True, "lesion_free": "studies/CT-0"},
        2,
    ),
    "COVID-19-20": (
        [
            *("Train/volume-covid19-A-0003_ct.nii.gz", "Train/volume-covid19-A-0047_1_ct.nii.gz"),
            *("Train/volume-covid19-A-0047_ct.nii.gz", "Train/._volume-covid19-A-0003_ct.nii.gz"),
        ],
        [
            *("Train/volume-covid19-A-0003_seg.nii.gz", "Train/volume-covid19-A-0047_1_seg.nii.gz"),
            "Train/volume-covid19-A-0047_seg.nii.gz",
        ],
        {
            "images": "Train/*_ct.nii.gz",
            "labels": ["Train/*_seg.nii.gz"],
            "patients": PatientRule(r"covid19-A-(\d{4})"),
        },
        2,
    ),
    "MedSeg volumes": (
        ["rp_im/1.nii.gz", "rp_im/2.nii.gz"],
        ["rp_msk/1.nii.gz", "rp_msk/2.nii.gz"],
        {"images": "rp_im", "labels": ["rp_msk"], "hu_range": [-1250, 250]},
        2,
    ),
    "MedSeg slices": (
        ["tr_im.nii.gz", "val_im.nii.gz"],
        ["tr_mask.nii.gz"],
        {"images": "tr_im.nii.gz", "labels": ["tr_mask.nii.gz"], "unrelated_slices": True},
        3,
    ),
    "nnU-Net": (
        ["imagesTr/lung_001_0000.nii.gz", "imagesTr/lung_002_0000.nii.gz"],
        ["labelsTr/lung_001.nii.gz", "labelsTr/lung_002.nii.gz"],
        {"images": "imagesTr", "labels": ["labelsTr"]},
        2,
    ),
    "folders": (
        ["P1/ct.nrrd", "P2/ct.nrrd"],
        ["P1/seg.nrrd", "P2/seg.nrrd"],
        {"images": "*/ct.nrrd", "labels": ["*/seg.nrrd"]},
        2,
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_layouts(tmp_path, name):
    images, masks, options, patients = PUBLIC[name]
    cases = find(lay(tmp_path, images, masks), **options)
    assert len({case.patient for case in cases}) == patients
    lesions = sum(len(item.instances) for case in cases for item in case.load())
    assert lesions == len(masks)


def test_a_category_can_be_defined_with_a_label_or_with_a_folder(tmp_path):
    lay(tmp_path, ["images/a.nii.gz"], ["labels/a.nii.gz"], mask=labels((1, 2, 3, 1), (0, 0, 0, 3)))
    lay(tmp_path, [], ["airways/a.nii.gz", "more/a.nii.gz"])
    table = (*GGO, "3=consolidation,code=95436008|SCT|Lung consolidation,short=CON")
    (case,) = find(tmp_path, table, labels=["labels", "airways=airway,color=#009E73", "more=consolidation"])
    assert case.categories.names == ["ground_glass_opacity", "bronchiectasis", "consolidation", "airway"]
    assert found(case) == [[(3, [[0, 0]])], [(1, [[2, 3]]), (3, [[2, 3]]), (4, [[2, 3]])], []]
