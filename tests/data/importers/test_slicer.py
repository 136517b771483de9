from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ct.dicom_files import PLANTED, write_series
from data.importers.seg_files import Keys, write_segmentation
from data.importers.truth import GEOMETRIES, compare, make_truth, write_ct
from data.importers.volume_files import make_overlap, write_volume
from lung_d2.ct import read_volume
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.importers.slicer import find_cases
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import parse_labels
from lung_d2.errors import DatasetError, InputError, SeriesChoiceError

AFFINE = np.diag([0.75, 0.5, 2.0, 1.0])
HU = (np.arange(90).reshape(3, 6, 5) * 20 - 1000).astype(np.int16)
GGO = Keys("GGO")
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
            write_segmentation(root / name, {GGO: mask((1, 2, 3), (1, 2, 4))}, affine)
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
