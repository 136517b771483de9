from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from ct.dicom_files import PLANTED, write_series
from data.importers.seg_files import Keys, write_segmentation
from data.importers.truth import GEOMETRIES, compare, make_truth, write_ct
from data.importers.volume_files import make_overlap, write_volume
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import CTVolume, read_volume
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.importers.volumes.slicer import find_cases, is_segmentation, read_segments_on
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import Label, parse_labels
from lung_d2.errors import DatasetError, GeometryError, InputError, SeriesChoiceError

AFFINE = np.diag([0.75, 0.5, 2.0, 1.0])
HU = (np.arange(90).reshape(3, 6, 5) * 20 - 1000).astype(np.int16)
GGO_KEYS = Keys("GGO")
PERFECT = {"ground_glass_opacity": 1.0, "bronchiectasis": 1.0}


def mask(*voxels):
    values = np.zeros(HU.shape, bool)
    for z, y, x in voxels:
        values[z, y, x] = True
    return values


def find(root, table=(), kind="components", patients=None, allow_unannotated=False):
    rule, patients = InstanceRule(kind), patients or PatientRule()
    return find_cases(Request(root, parse_labels(table), rule, patients, allow_unannotated))


def found(case):
    return [[(category.coco_id, int(mask.sum())) for category, mask in item.instances] for item in case.load()]


def lay(root, *names, affine=AFFINE):
    """Write CT volumes and segmentations of one GGO of two voxels, by their names."""
    for name in names:
        if name.endswith(".seg.nrrd"):
            write_segmentation(root / name, {GGO_KEYS: mask((1, 2, 3), (1, 2, 4))}, affine)
        else:
            write_volume(HU, affine, root / name)
    return root


ONE_GGO = [[], [(1, 2)], []]


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_round_trip_of_overlapping_segments(tmp_path, geometry, crop):
    truth = make_overlap(make_truth(geometry))
    image = write_volume(truth.hu, truth.affine_lps, tmp_path / "a/ct.nrrd")
    segments = {Keys(category.name): truth.mask(category) for category in truth.instances}
    layers = write_segmentation(
        tmp_path / "a/Segmentation.seg.nrrd", segments, truth.affine_lps, crop=crop, layers=True
    )
    assert layers == 2
    (case,) = find(tmp_path)
    assert compare(case.load(), truth, image) == PERFECT


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_round_trip_over_dicom(tmp_path, geometry):
    truth = make_truth(geometry)
    write_ct(truth, tmp_path / "a/dicom")
    segments = {
        Keys(f"{category.name} {value}", category.code): truth.instances[category] == value
        for category in truth.instances
        for value in range(1, truth.instances[category].max() + 1)
    }
    write_segmentation(tmp_path / "a/lesions.seg.nrrd", segments, truth.affine_lps, crop=True, layers=True)
    (case,) = find(tmp_path, kind="values")
    slices = list(case.load())
    assert compare(slices, truth, tmp_path / "a/dicom") == PERFECT
    assert len(slices[4].instances) == sum(len(np.unique(truth.instances[one][4])) - 1 for one in truth.instances)


@pytest.mark.parametrize(
    "names",
    [
        ["a/ct.nrrd", "a/Segmentation.seg.nrrd"],
        ["a/ct.nii.gz", "a/x/y.SEG.nrrd"],
        ["ct.mha", "Segmentation.seg.nrrd"],
        ["ct/a.nrrd", "seg/a.seg.nrrd"],
        ["1.nrrd", "10.nrrd", "1.seg.nrrd", "10.seg.nrrd"],
        ["CT 1.nrrd", "CT 12.nrrd", "CT 1-segmentation.seg.nrrd", "CT 12 Segmentation_1.seg.nrrd"],
        ["a.nrrd", "a_b.nrrd", "a.seg.nrrd", "a_b.seg.nrrd"],
        ["a/ct.nrrd", "a/1.seg.nrrd", "a/2.seg.nrrd", "b/ct.nrrd", "b/1.seg.nrrd", "b/._1.seg.nrrd"],
    ],
)
def test_segmentations_lie_over_their_ct(tmp_path, names):
    cases = find(lay(tmp_path, *[name.replace("SEG", "seg") for name in names]))
    expected = [name for name in names if "seg" not in name.lower()]
    assert [case.name for case in cases] == sorted(name.split(".")[0] for name in expected)
    assert all(found(case) == ONE_GGO for case in cases)
    assert len({case.patient for case in cases}) == len({case.series for case in cases}) == len(expected)


def test_dicom_series_keeps_its_identity(tmp_path):
    for name in "ab":
        write_series(tmp_path / name / "dicom", count=3, SeriesInstanceUID=f"1.2.{ord(name)}")
        affine = read_volume(tmp_path / name).affine_lps
        lay(tmp_path, f"{name}/x.seg.nrrd", affine=affine)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")  # the index of a medium
    first, second = find(tmp_path)
    assert (first.name, first.patient) == ("a", second.patient)
    assert not any(word in repr((first.name, first.patient, first.series)) for word in PLANTED)
    assert found(first) == ONE_GGO
    assert len({case.patient for case in find(tmp_path, patients=PatientRule(by_folder=True))}) == 2


def test_case_goes_to_a_worker(tmp_path):
    (case,) = find(lay(tmp_path, "a/ct.nrrd", "a/b.seg.nrrd"))
    assert found(pickle.loads(pickle.dumps(case))) == ONE_GGO
    assert repr(case.load) == repr(find(tmp_path)[0].load)


def test_ct_without_a_segmentation_is_refused_or_normal(tmp_path):
    lay(tmp_path, "a/ct.nrrd", "a/b.seg.nrrd", "b/ct.nrrd")
    with pytest.raises(DatasetError, match=r"b/ct\.nrrd: no \.seg\.nrrd; expected .*--allow-unannotated"):
        find(tmp_path)
    assert [found(case) for case in find(tmp_path, allow_unannotated=True)] == [ONE_GGO, [[], [], []]]


def test_segmentation_of_no_ct_is_refused(tmp_path):
    lay(tmp_path, "a/ct.nrrd", "a/b.seg.nrrd", "b/b.seg.nrrd")
    with pytest.raises(InputError, match=r"/b: .*expected a CT series"):
        find(tmp_path)


@pytest.mark.parametrize(("name", "count"), [("Segmentation", 0), ("CT 11", 0), ("x", 0)])
def test_segmentation_whose_name_is_no_ct_of_several_is_refused(tmp_path, name, count):
    lay(tmp_path, "CT 1.nrrd", "CT 2.nrrd", f"{name}.seg.nrrd")
    with pytest.raises(DatasetError, match=rf"{name}\.seg\.nrrd: {count} of 2 CT volumes by its name"):
        find(tmp_path)


def test_several_series_of_a_case_are_refused(tmp_path):
    for number in range(2):
        write_series(tmp_path / f"a/{number}", count=3, SeriesInstanceUID=f"1.2.{number}")
    lay(tmp_path, "a/b.seg.nrrd")
    with pytest.raises(SeriesChoiceError, match="a: 2 CT series; expected one in each case"):
        find(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="none: no such folder"):
        find(tmp_path / "none")


def slicer_samples():
    slicerio = pytest.importorskip("slicerio")
    return Path(slicerio.__file__).parent / "data"


@pytest.mark.parametrize("name", ["Segmentation.seg.nrrd", "SegmentationOverlapping.seg.nrrd"])
def test_what_slicer_itself_wrote_lies_over_its_ct(tmp_path, name):
    for file in ("CTChest4.nrrd", name):
        shutil.copy(slicer_samples() / file, tmp_path / file)
    table = ("right lung=ground_glass_opacity", "left lung=bronchiectasis", "*=background")
    (case,) = find(tmp_path, table)
    slices = list(case.load())
    lungs = {1: [], 2: []}
    for item in slices:
        for category, inside in item.instances:
            lungs[category.coco_id].append((np.median(item.plane[inside]), np.argwhere(inside)[:, 1].mean()))
    assert all(-950 < np.median([hu for hu, _ in lungs[one]]) < -600 for one in lungs)
    right, left = (np.mean([column for _, column in lungs[one]]) for one in (1, 2))
    assert right < left  # columns run to the patient's left


SHAPE = (3, 6, 5)
GGO, BRO = GROUND_GLASS_OPACITY, BRONCHIECTASIS


@pytest.fixture
def volume():
    hu = np.full(SHAPE, -1000, np.int16)
    return CTVolume(hu, (2.0, 0.5, 0.75), np.arange(3) * 2.0, AFFINE.copy(), "", "", ("",) * 3, (None,) * 3, "p", "s")


def read(path, volume, *table, index=1):
    """Return meaning, voxels and lesion of each region of a slice."""
    regions = read_segments_on(path, parse_labels(table), volume)(index)
    return [(each.meaning, np.argwhere(each.mask).tolist(), each.lesion) for each in regions]


def edit(path, old, new):
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new))


HERE, THERE = mask((1, 2, 3)), mask((1, 4, 1), (1, 2, 3))


@pytest.mark.parametrize(
    ("keys", "table", "meaning"),
    [
        (Keys("ggo"), (), GGO),
        (Keys("Ground-glass opacity"), (), GGO),
        (Keys("Segment_1"), ("segment 1=bronchiectasis",), BRO),
        (Keys("Segment_1", BRO.code), (), BRO),
        (Keys("Segment_1", ("19325002", "SCT", "Traction bronchiectasis")), (), BRO),
        (Keys("Segment_1", ("1", "99X", "Bronchiectasis")), (), BRO),
        (Keys("Segment_1", ("4147007", "SCT", "Mass")), ("4147007=ground_glass_opacity",), GGO),
        (Keys("ggo"), ("ggo=background",), Label.BACKGROUND),
        (Keys("lobe"), ("*=ignore",), Label.IGNORE),
    ],
)
def test_segment_means_what_its_name_or_code_says(tmp_path, volume, keys, table, meaning):
    write_segmentation(tmp_path / "a.seg.nrrd", {keys: HERE}, AFFINE)
    assert read(tmp_path / "a.seg.nrrd", volume, *table) == [(meaning, [[2, 3]], f"Segment_{keys.name}")]


@pytest.mark.parametrize("layers", [True, False])
def test_overlap_needs_layers(tmp_path, volume, layers):
    write_segmentation(
        tmp_path / "a.seg.nrrd", {Keys("ggo"): THERE, Keys("bronchiectasis"): HERE}, AFFINE, layers=layers
    )
    ggo = [[2, 3], [4, 1]] if layers else [[4, 1]]
    expected = [(GGO, ggo, "Segment_ggo"), (BRO, [[2, 3]], "Segment_bronchiectasis")]
    assert read(tmp_path / "a.seg.nrrd", volume) == expected


def test_layers_that_itk_wrote_again_are_the_same(tmp_path, volume):
    segments = {Keys("ggo"): THERE, Keys("bronchiectasis"): HERE}
    write_segmentation(tmp_path / "a.seg.nrrd", segments, AFFINE, layers=True)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.seg.nrrd")), str(tmp_path / "b.seg.nrrd"))
    assert nrrd.read_header(str(tmp_path / "b.seg.nrrd"))["kinds"][0] == "vector"
    assert read(tmp_path / "b.seg.nrrd", volume) == read(tmp_path / "a.seg.nrrd", volume)


def test_each_segment_is_a_lesion(tmp_path, volume):
    write_segmentation(tmp_path / "a.seg.nrrd", {Keys("ggo 1"): HERE, Keys("ggo 2"): mask((1, 2, 4))}, AFFINE)
    found = read(tmp_path / "a.seg.nrrd", volume, "ggo 1=ground_glass_opacity", "ggo 2=ground_glass_opacity")
    assert [lesion for _, _, lesion in found] == ["Segment_ggo 1", "Segment_ggo 2"]


def test_segments_without_a_meaning_are_listed(tmp_path, volume):
    segments = {Keys("lobe"): HERE, Keys("heart"): mask((0, 0, 0)), Keys("empty"): mask()}
    write_segmentation(tmp_path / "a.seg.nrrd", segments, AFFINE)
    with pytest.raises(
        DatasetError, match=r"a\.seg\.nrrd: 2 label\(s\) without a category: 'lobe', 'heart'.*--label 'lobe="
    ):
        read(tmp_path / "a.seg.nrrd", volume)


def test_value_without_a_segment_goes_by_its_number(tmp_path, volume):
    header = {"space": "left-posterior-superior", "space directions": AFFINE[:3, :3], "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "a.seg.nrrd"), (HERE * np.uint8(7)).transpose(2, 1, 0), header)
    assert read(tmp_path / "a.seg.nrrd", volume, "7=bronchiectasis")[0][:2] == (BRO, [[2, 3]])
    with pytest.raises(DatasetError, match="without a category: '7'"):
        read(tmp_path / "a.seg.nrrd", volume)


def test_files_of_old_versions_have_a_layer_for_each_segment(tmp_path, volume):
    segments = {Keys("ggo"): THERE, Keys("bronchiectasis"): HERE}
    path = tmp_path / "a.seg.nrrd"
    write_segmentation(path, segments, AFFINE, layers=True)
    voxels, header = nrrd.read(str(path))
    kept = {key: value for key, value in header.items() if not key.endswith(("_Layer", "_LabelValue"))}
    nrrd.write(str(path), voxels, kept)
    assert [(meaning, where) for meaning, where, _ in read(path, volume)] == [(GGO, [[2, 3], [4, 1]]), (BRO, [[2, 3]])]


def test_other_space_is_brought_to_that_of_the_ct(tmp_path, volume):
    write_segmentation(tmp_path / "a.seg.nrrd", {Keys("ggo"): HERE}, np.diag([-1.0, -1, 1, 1]) @ AFFINE)
    edit(tmp_path / "a.seg.nrrd", b"left-posterior-superior", b"right-anterior-superior")
    assert read(tmp_path / "a.seg.nrrd", volume) == [(GGO, [[2, 3]], "Segment_ggo")]


def test_one_voxel_stands_for_no_segment_wherever_it_lies(tmp_path, volume):
    header = {"space": "left-posterior-superior", "space directions": np.eye(3) * 77, "space origin": [9, 9, 9]}
    nrrd.write(str(tmp_path / "a.seg.nrrd"), np.zeros((1, 1, 1), np.uint8), header)
    assert read(tmp_path / "a.seg.nrrd", volume) == []


def test_empty_segments_mark_nothing(tmp_path, volume):
    write_segmentation(tmp_path / "a.seg.nrrd", {Keys("Segment_1"): mask()}, AFFINE)
    assert read(tmp_path / "a.seg.nrrd", volume) == []


@pytest.mark.parametrize(("name", "expected"), [("a.seg.nrrd", True), ("A.SEG.NRRD", True), ("seg.nrrd", False)])
def test_segmentation_is_told_by_its_name(tmp_path, name, expected):
    assert is_segmentation(tmp_path / name) is expected


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (np.diag([1, 1, 1.2, 1]), r"a grid of 3 x 6 x 5 .* expected that of the CT"),
        (np.eye(4) + np.outer([1, 0, 0, 0], [0, 0, 0, 0.4]), "a grid of"),
        (np.eye(4) + np.outer([0, 0, 1, 0], [0, 0, 0, 9]), "labels beyond the CT"),
    ],
)
def test_other_grid_is_refused_by_name(tmp_path, volume, change, finding):
    write_segmentation(tmp_path / "a.seg.nrrd", {Keys("ggo"): HERE}, AFFINE @ change, crop=False)
    with pytest.raises(GeometryError, match=rf"a\.seg\.nrrd: {finding}"):
        read(tmp_path / "a.seg.nrrd", volume)


SPOILS = {
    "fractional": (b"Segmentation_MasterRepresentation:=Binary", b"Segmentation_MasterRepresentation:=Fractional"),
    "two of one value": (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=1"),
    "no number": (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=x"),
    "tag without a value": (b"Segmentation.Status:inprogress", b"Segmentation.Status-inprogress"),
    "short terminology": (b"~SCT^85756007^Tissue~^^", b""),
    "elsewhere": (b"encoding: gzip", b"encoding: gzip\ndata file: /etc/passwd"),
    "huge": (b"sizes: 1 1 1", b"sizes: 8000 8000 8000"),
    "NaN": (b"(0.75,0,0)", b"(nan,0,0)"),
    "two axes": (b"dimension: 3", b"dimension: 2"),
    "no space": (b"space: left-posterior-superior", b"space: scanner-xyz"),
    "no header": (b"NRRD0005", b"JUNK0005"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_spoilt_file_is_refused_by_name(tmp_path, volume, spoil):
    path = tmp_path / "a.seg.nrrd"
    write_segmentation(path, {Keys("ggo"): HERE, Keys("bronchiectasis"): mask((1, 2, 3))}, AFFINE, layers=False)
    edit(path, *SPOILS[spoil])
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: ") as error:
        read(path, volume)
    assert "\n" not in str(error.value)
    assert "passwd" not in str(error.value) or spoil == "elsewhere"


@pytest.mark.parametrize("length", [20, 400, -9, -1])
def test_truncated_file_is_refused(tmp_path, volume, length):
    path = tmp_path / "a.seg.nrrd"
    write_segmentation(path, {Keys("ggo"): THERE, Keys("bronchiectasis"): HERE}, AFFINE, layers=True)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: "):
        read(path, volume)


def test_more_voxels_than_a_ct_may_have_are_refused(tmp_path, volume):
    path = tmp_path / "a.seg.nrrd"
    write_segmentation(path, {Keys("ggo"): THERE, Keys("bronchiectasis"): HERE}, AFFINE, layers=True, crop=False)
    edit(path, b"sizes: 2 5 6 3", b"sizes: 4096 512 512 3")
    with pytest.raises(InputError, match=r"a\.seg\.nrrd: 4096 layers of \(512, 512, 3\)"):
        read(path, volume)
