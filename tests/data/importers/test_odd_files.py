"""Every SEG and RTSTRUCT of the odd files lies where another reading says, or is refused with the reason."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from ct.dicom_files import make_slice, write
from data.importers.loading import load_case, refuse_case, union
from lung_d2.ct import read_volume
from lung_d2.ct.headers import is_dicom, read_header
from lung_d2.ct.scan import foreign_kind
from lung_d2.data.importers.dicom import rtstruct
from lung_d2.data.importers.dicom.dicom_seg import find_cases
from lung_d2.data.importers.registry import Request
from lung_d2.data.labels import parse_labels
from lung_d2.errors import DatasetError, GeometryError

load = partial(load_case, find_cases)
refused = partial(refuse_case, find_cases)


def copy_case(data_root, tmp_path, *names, folder="dcmqi_segmentations"):
    """Copy files or folders of the odd files into a tree of their own."""
    for number, name in enumerate(names):
        source, target = data_root / "odd_files" / folder / name, tmp_path / f"{number}" / name.replace("/", "_")
        target.parent.mkdir(parents=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return tmp_path


def voxels_of_nrrd(path, root):
    """Return a label volume on the grid of the CT under ``root``, read by ITK alone, ``[Z, Y, X]``."""
    image = sitk.ReadImage(str(path))
    origin, step = np.array(image.GetOrigin()), np.array(image.GetSpacing())
    assert np.array_equal(np.array(image.GetDirection()), np.eye(3).ravel())
    volume = read_volume(root)
    size = np.array(volume.hu.shape[::-1])
    offset = np.rint((origin - volume.affine_lps[:3, 3]) / step).astype(int)
    values = sitk.GetArrayFromImage(image)
    whole = np.zeros(volume.hu.shape, values.dtype)
    z, y, x = (slice(start, start + count) for start, count in zip(offset[::-1], values.shape, strict=True))
    assert (offset >= 0).all()
    assert (offset + np.array(values.shape[::-1]) <= size).all()
    whole[z, y, x] = values
    return whole > 0


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_dcmqi_binary_is_as_its_nrrd(size, data_root, tmp_path):
    root = copy_case(data_root, tmp_path, f"{size}/image", f"{size}/seg/label.seg")
    expected = voxels_of_nrrd(data_root / "odd_files/dcmqi_segmentations" / size / "nrrd/label.nrrd", root)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(union(load(root, "Liver=ground_glass_opacity")), expected)


@pytest.mark.parametrize("folder", ["dcmqi_segmentations", "pydicom-data_ct"])
def test_liver_of_dcmqi_is_as_its_nrrd(folder, data_root, tmp_path):
    root = copy_case(data_root, tmp_path / "ct", "ct-3slice")
    copy_case(data_root, tmp_path / "seg", "liver.dcm", folder=folder)
    expected = voxels_of_nrrd(data_root / "odd_files/dcmqi_segmentations/liver_seg.nrrd", root)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(union(load(tmp_path, "1=ground_glass_opacity")), expected)


def test_partial_overlaps_of_dcmqi_lie_frame_by_frame_where_they_say(data_root, tmp_path):
    root = copy_case(data_root, tmp_path, "ct-3slice", "partial_overlaps.dcm")
    dataset = pydicom.dcmread(data_root / "odd_files/dcmqi_segmentations/partial_overlaps.dcm")
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little").reshape(7, 512, 512)
    for number, count in ((1, 1), (3, 3), (5, 1)):
        expected, frames = np.zeros((3, 512, 512), bool), 0
        for frame, group in zip(bits, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
                z = group.PlanePositionSequence[0].ImagePositionPatient[2]
                expected[round(z + 128.690002)] |= frame.astype(bool)
                frames += 1
        assert frames == count
        assert np.array_equal(union(load(root, f"{number}=bronchiectasis", "*=background")), expected)


def test_sparse_label_map_of_dcmqi_leaves_the_slice_between_empty(data_root, tmp_path):
    root = copy_case(data_root, tmp_path, "24x38x3/image", "sparse-labelmap-noppv.dcm")
    dataset = pydicom.dcmread(data_root / "odd_files/dcmqi_segmentations/sparse-labelmap-noppv.dcm")
    values = np.frombuffer(dataset.PixelData, np.uint8).reshape(2, 38, 24)
    slices = union(load(root, "Liver=ground_glass_opacity"))
    assert slices[1].sum() == 0
    assert np.array_equal(slices[[0, 2]], values == 1)
    assert slices.sum() > 0


def test_multi_frame_copy_of_the_series_is_another_series(data_root, tmp_path):
    root = copy_case(
        data_root, tmp_path, *(f"24x38x3/{name}" for name in ("image", "seg/label.seg", "multiframe/mf.dcm"))
    )
    assert "no SEG over it, as 1 of 2 CT series" in refused(root, DatasetError, "*=background")
    cases = find_cases(Request(root, parse_labels(["*=background"]), allow_unannotated=True))
    assert len(cases) == 2


def write_images_of(path, folder, positions):
    """Write the CT that a SEG of highdicom's tests names: the images at these positions, as their own files lack."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0].ImagePositionPatient
        if round(position[2], 2) in positions:
            image = make_slice(
                np.full((16, 16), 500, np.uint16),
                SOPInstanceUID=group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID,
                SeriesInstanceUID=dataset.ReferencedSeriesSequence[0].SeriesInstanceUID,
                ImagePositionPatient=position,
                ImageOrientationPatient=shared.PlaneOrientationSequence[0].ImageOrientationPatient,
                PixelSpacing=shared.PixelMeasuresSequence[0].PixelSpacing,
            )
            write(image, folder / f"{position[2]}.dcm")


@pytest.mark.parametrize(
    ("name", "pixels_of"),
    [
        ("seg_image_ct_binary.dcm", lambda data: np.unpackbits(data, bitorder="little") > 0),
        ("seg_image_ct_binary_fractional.dcm", lambda data: data >= 127.5),
        ("seg_image_ct_true_fractional.dcm", lambda data: data >= 127.5),
    ],
)
def test_frames_of_highdicom_lie_where_they_say(name, pixels_of, data_root, tmp_path):
    path = data_root / "odd_files/highdicom_test_files" / name
    write_images_of(path, tmp_path / "ct", (103.02, 104.27, 105.52))
    shutil.copy(path, tmp_path)
    expected = pixels_of(np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8)).reshape(3, 16, 16)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(union(load(tmp_path, "first segment=ground_glass_opacity")), expected)


def test_overlap_of_highdicom_needs_its_whole_series(data_root, tmp_path):
    path = data_root / "odd_files/highdicom_test_files/seg_image_ct_binary_overlap.dcm"
    shutil.copy(path, tmp_path)
    write_images_of(path, tmp_path / "ct", (103.02, 104.27, 105.52))
    message = refused(tmp_path, GeometryError, "*=ground_glass_opacity")
    assert "frame 1: 16 of 16 marked pixels outside the CT" in message
    write_images_of(path, tmp_path / "ct", (-99.48,))
    assert "gap of 202.50 mm" in refused(tmp_path, GeometryError, "*=ground_glass_opacity")


def test_single_frame_of_highdicom_lies_on_its_image(data_root, tmp_path):
    names = ("ct_image.dcm", "seg_image_ct_binary_single_frame.dcm")
    root = copy_case(data_root, tmp_path, *names, folder="highdicom_test_files")
    data = pydicom.dcmread(data_root / "odd_files/highdicom_test_files" / names[1]).PixelData
    expected = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(1, 128, 128) > 0
    assert np.array_equal(union(load(root, "*=bronchiectasis")), expected)


@pytest.mark.parametrize("name", ["binary", "binary_fractional", "binary_overlap", "true_fractional"])
def test_seg_of_highdicom_without_its_series_is_refused_by_uid(name, data_root, tmp_path):
    root = copy_case(data_root, tmp_path, "ct_image.dcm", f"seg_image_ct_{name}.dcm", folder="highdicom_test_files")
    message = refused(root, DatasetError, "*=background")
    assert "an annotation of series 1.3.6.1.4.1.5962.1.1.0.0.0.1196530851.28319.0.2, not here" in message


def inside(points, shape):
    """Tell by counting crossings to the right of each pixel's centre what a polygon ``(N, 2)`` surrounds."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
            mask ^= crossed & (x0 + (rows - y0) * (x1 - x0) / (y1 - y0) > columns)
    return mask


def test_structures_of_rt_utils_lie_where_they_say_with_their_hole(data_root, tmp_path):
    folder = data_root / "odd_files/rt-utils_mock_data"
    names = ("ct_1.dcm", "ct_2.dcm", "rt.dcm")
    root = copy_case(data_root, tmp_path, *names, folder="rt-utils_mock_data")
    image = pydicom.dcmread(folder / "ct_1.dcm", stop_before_pixels=True)
    expected = np.zeros((2, 512, 512), bool)
    for contour in pydicom.dcmread(folder / "rt.dcm").ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert (points[:, 2] == image.ImagePositionPatient[2]).all()
        expected[0] ^= inside((points[:, :2] - image.ImagePositionPatient[:2]) / image.PixelSpacing, (512, 512))
    slices = load_case(rtstruct.find_cases, root, "ROI-1=ground_glass_opacity")
    assert expected.sum() > 1000
    assert np.array_equal(union(slices), expected)


@pytest.mark.parametrize("name", ["invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"])
def test_structures_that_name_images_that_are_not_there_are_refused(name, data_root, tmp_path):
    root = copy_case(data_root, tmp_path, "ct_1.dcm", "ct_2.dcm", name, folder="rt-utils_mock_data")
    message = refuse_case(rtstruct.find_cases, root, GeometryError, "*=ground_glass_opacity")
    assert f"{name} ROI 1 contour 1: names image 2.16.840.1.114362.1.11940992.23790159890.563423471.995.90" in message
    assert "which is not in the series" in message


def test_odd_files_hold_no_other_annotations(data_root):
    kinds = {}
    for path in (data_root / "odd_files").rglob("*"):
        if path.is_file() and is_dicom(path):
            kind = foreign_kind(read_header(path))
            kinds.setdefault(kind, set()).add(path.name)
    assert kinds["RTSTRUCT"] == {"rt.dcm", "invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"}
    segs = {"label.seg", "liver.dcm", "partial_overlaps.dcm", "sparse-labelmap-noppv.dcm"}
    names = ("binary", "binary_fractional", "binary_overlap", "binary_single_frame", "true_fractional")
    assert kinds["SEG"] == segs | {f"seg_image_ct_{name}.dcm" for name in names}
