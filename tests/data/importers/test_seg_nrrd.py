from __future__ import annotations

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from data.importers.seg_files import Keys, write_segmentation
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import CTVolume
from lung_d2.data.importers.seg_nrrd import is_segmentation, read_segments_on
from lung_d2.data.labels import Label, parse_labels
from lung_d2.errors import DatasetError, GeometryError, InputError

AFFINE = np.diag([0.75, 0.5, 2.0, 1.0])
SHAPE = (3, 6, 5)
GGO, BRO = GROUND_GLASS_OPACITY, BRONCHIECTASIS


@pytest.fixture
def volume():
    hu = np.full(SHAPE, -1000, np.int16)
    return CTVolume(hu, (2.0, 0.5, 0.75), np.arange(3) * 2.0, AFFINE.copy(), "", "", ("",) * 3, (None,) * 3, "p", "s")


def mask(*voxels):
    values = np.zeros(SHAPE, bool)
    for z, y, x in voxels:
        values[z, y, x] = True
    return values


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
