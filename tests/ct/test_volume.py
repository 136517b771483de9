"""Volumes from DICOM and from volume files."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from ct.dicom_files import (
    SERIES_UID,
    expected_hu,
    make_enhanced,
    make_slice,
    refused,
    stored_slices,
    write,
    write_series,
)
from ct.volume_samples import FLIP_XY, ITK_SUFFIXES, ct_array, make_affine, save, write_itk
from lung_d2.ct import CTVolume, read_label_volume, read_volume, write_nifti
from lung_d2.ct.headers import VOLUME_SUFFIXES, volume_suffix
from lung_d2.errors import GeometryError, InputError


def test_whole_slope_is_exact(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(4))
    assert volume.hu.dtype == np.int16
    assert volume.spacing_mm == (2.0, 0.5, 0.75)
    np.testing.assert_array_equal(volume.slice_positions_mm, [0, 2, 4, 6])
    np.testing.assert_array_equal(volume.affine_lps, np.diag([0.75, 0.5, 2.0, 1.0]))
    assert volume.series_instance_uid == SERIES_UID
    assert volume.frame_numbers == (None,) * 4
    assert len(set(volume.sop_instance_uids)) == 4


def test_source_files_follow_the_slices(tmp_path: Path) -> None:
    files = write_series(tmp_path, names=["d", "b", "c", "a"])
    assert read_volume(tmp_path).source_files == tuple(files)


def test_arrays_are_read_only(tmp_path: Path) -> None:
    write_series(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        read_volume(tmp_path).hu[0, 0, 0] = 0


def test_file_without_preamble(tmp_path: Path) -> None:
    dataset = make_slice(stored_slices(1)[0], transfer_syntax=ImplicitVRLittleEndian)
    del dataset.file_meta
    dataset.save_as(tmp_path / "a", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(1))


def test_names_and_order_do_not_matter(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", count=8, names=["z", "b.txt", "03", "x.dcm", "k.ima", "IM", "_", "9"])
    random.Random(0).shuffle(files)
    np.testing.assert_array_equal(read_volume(files).hu, expected_hu(8))
    np.testing.assert_array_equal(read_volume(str(tmp_path)).hu, expected_hu(8))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Modality": "MR"}, "this is an MR; expected CT"),
        ({"Modality": "SEG"}, "give it as annotation"),
        ({"Modality": None, "SOPClassUID": MRImageStorage}, "MR Image Storage"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "RescaleIntercept": None}, "secondary capture"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "RGB"),
        ({"Rows": 8193}, "8193 x 5"),
        ({"Rows": None}, "no Rows"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing 0 x 0"),
        ({"PixelSpacing": [-1, 1]}, "PixelSpacing -1 x 1"),
        ({"PixelSpacing": 0.5}, "PixelSpacing with 1 values"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"ImageOrientationPatient": ["NaN", 0, 0, 0, 1, 0]}, "NaN"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not orthonormal"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not orthonormal"),
        ({"ImagePositionPatient": [0, 0, "1e300"]}, "beyond 100 m"),
        ({"RescaleSlope": 0}, "rescale slope 0"),
        ({"RescaleType": "MGML"}, "RescaleType MGML"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "EFF_ATOMIC_NUM"]}, "EFF_ATOMIC_NUM"),
        ({"NumberOfFrames": 2}, "without per-frame functional groups"),
        ({"PixelData": b"\0" * 58}, "shorter than declared"),
        ({"PixelData": None}, "pixel data"),
        ({"BitsAllocated": 12}, "12 bits allocated"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "longer than declared"),
    ],
)
def test_refusals(tmp_path: Path, tags: dict[str, object], words: str) -> None:
    path = write(make_slice(stored_slices(1)[0], **tags), tmp_path / "file.dcm")
    message = refused(path)
    assert words in message
    assert str(path) in message


def test_malformed_number(tmp_path: Path) -> None:
    path = write(make_slice(stored_slices(1)[0], PixelSpacing=["11111", "22222"]), tmp_path / "a")
    path.write_bytes(path.read_bytes().replace(b"11111", b"1,5,x"))
    assert "PixelSpacing" in refused(path)


def test_enhanced_in_time_is_refused(tmp_path: Path) -> None:
    write(make_enhanced(stored_slices(4), [0.0, 2.0, 0.0, 2.0], [(1.0, -1024.0)] * 4), tmp_path / "a")
    assert "(4-D)" in refused(tmp_path, GeometryError)


def test_enhanced_with_too_few_groups(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(2), [0.0, 2.0], [(1.0, -1024.0)] * 2)
    dataset.NumberOfFrames = 900
    assert "900 frames declared but 2" in refused(write(dataset, tmp_path / "a"))


def test_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    write(make_slice(stored_slices(1)[0], SliceThickness=3.5), tmp_path / "a")
    assert read_volume(tmp_path).spacing_mm[0] == 3.5


def test_volume_checks_its_parts() -> None:
    with pytest.raises(GeometryError, match="slice_positions_mm, frame_numbers"):
        CTVolume(
            hu=np.zeros((2, 3, 3), np.int16),
            spacing_mm=(1.0, 1.0, 1.0),
            slice_positions_mm=np.array([1.0, 0.0]),
            affine_lps=np.eye(4),
            series_instance_uid="",
            study_instance_uid="",
            sop_instance_uids=("", ""),
            frame_numbers=(None,),
            patient_hash="",
            series_hash="",
        )


def test_real_series_in_jpeg_lossless(data_root: Path) -> None:
    volume = read_volume(data_root / "ct_series" / "ggo_case")
    assert volume.hu.shape == (148, 512, 512)
    assert volume.spacing_mm == pytest.approx((2.0, 0.748046875, 0.748046875))
    assert np.diff(volume.slice_positions_mm) == pytest.approx(2.0)
    # SmallestImagePixelValue and LargestImagePixelValue of IM0000.dcm, at z = -52.1: 0 and 2514, less 1024.
    first = volume.hu[int(np.argmin(np.abs(volume.slice_positions_mm + 52.1)))]
    assert (first.min(), first.max()) == (-1024, 2514 - 1024)


def reorder(array: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]) -> tuple:
    """Give ``[x, y, z]`` of an array ``[Z, Y, X]`` with its axes in another order and direction, and its affine."""
    xyz = array.transpose(2, 1, 0)
    orientation = np.array([[order[axis], flips[axis]] for axis in range(3)])
    moved = nibabel.orientations.apply_orientation(xyz, orientation)
    return moved, affine @ nibabel.orientations.inv_ornt_aff(orientation, xyz.shape)


def oblique() -> np.ndarray:
    """Give a grid turned by 20 degrees about z, then by 10 about x, with three different spacings."""
    z, x = np.deg2rad(20), np.deg2rad(10)
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    affine = make_affine()
    affine[:3, :3] = about_x @ about_z @ affine[:3, :3]
    return affine


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize("affine", [make_affine(), oblique()], ids=["straight", "oblique"])
def test_any_format_and_order_of_axes_gives_the_same_volume(tmp_path: Path, suffix: str, affine: np.ndarray) -> None:
    labels = (ct_array() % 7).astype(np.uint8)
    for order, flips in itertools.product(itertools.permutations(range(3)), [(1, 1, 1), (-1, 1, -1), (1, -1, -1)]):
        volume = read_volume(save(tmp_path / f"ct{suffix}", *reorder(ct_array(), affine, order, flips)))
        np.testing.assert_array_equal(volume.hu, ct_array())
        np.testing.assert_allclose(volume.affine_lps, affine, atol=1e-4)
        assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.75), abs=1e-5)
        read = read_label_volume(save(tmp_path / f"labels{suffix}", *reorder(labels, affine, order, flips)))
        np.testing.assert_array_equal(read.labels, labels)
        np.testing.assert_allclose(read.affine_lps, affine, atol=1e-4)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_any_type_of_numbers_is_read_and_fractions_are_rounded(tmp_path: Path, suffix: str, dtype: type) -> None:
    values = ct_array().transpose(2, 1, 0).astype(dtype)
    fraction = 0.3 if np.dtype(dtype).kind == "f" else 0
    path = tmp_path / f"a{suffix}"
    if suffix in ITK_SUFFIXES:
        write_itk(path, values + dtype(fraction), make_affine())
    else:
        nibabel.save(nibabel.Nifti1Image(values + dtype(fraction), FLIP_XY @ make_affine(), dtype=dtype), path)
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
@pytest.mark.parametrize("name", ["plain", "with blank and ä"])
def test_compressed_files_and_capital_letters(tmp_path: Path, suffix: str, name: str) -> None:
    path = write_itk(tmp_path / f"{name}{suffix}", ct_array().transpose(2, 1, 0), make_affine(), compress=True)
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())
    upper = path.rename(path.with_suffix(suffix.upper()))
    np.testing.assert_array_equal(read_volume(str(upper)).hu, ct_array())


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((64, 64, 3), np.nan, np.float32), "NaN or infinity"),
        (np.full((64, 64, 3), 2000, np.int16), "air at about -1000"),
        (np.arange(64 * 64 * 3, dtype=np.int16).reshape(64, 64, 3) % 3, "too narrow a range"),
        (np.arange(27, dtype=np.uint8).reshape(3, 3, 3) % 3, "too narrow a range"),
        (np.zeros((8193, 1, 1), np.int8), "8193"),
    ],
    ids=["nan", "not rescaled", "labels", "few labels", "too long"],
)
def test_values_that_are_no_ct(tmp_path: Path, suffix: str, array: np.ndarray, words: str) -> None:
    path = save(tmp_path / f"a{suffix}", array, make_affine())
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_skewed_rows_are_refused_or_kept_but_never_straightened(tmp_path: Path, suffix: str) -> None:
    skewed = make_affine()
    skewed[0, 1] = 0.2  # 22 degrees between row and column
    with pytest.raises(GeometryError, match="skewed"):
        read_volume(save(tmp_path / f"a{suffix}", ct_array().transpose(2, 1, 0), skewed))
    tilted = make_affine()
    tilted[1, 2] = 0.4  # slices that slide along y, as a tilted gantry gives
    volume = read_volume(save(tmp_path / f"b{suffix}", ct_array().transpose(2, 1, 0), tilted))
    np.testing.assert_allclose(volume.affine_lps, tilted, atol=1e-5)
    assert volume.spacing_mm[0] == pytest.approx(2.0)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_file_that_is_not_there_or_no_file(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    for name in (f"absent{suffix}", f"pipe{suffix}", f"nul\0{suffix}"):
        with pytest.raises(InputError, match="no such file"):
            read_label_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"NRRD", b"text\nand = more\n"])
def test_file_of_another_kind(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="damaged or no "):
        read_volume(tmp_path / f"a{suffix}")


def test_file_of_another_format_than_its_name_says(tmp_path: Path) -> None:
    write_itk(tmp_path / "a.mha", ct_array(), make_affine())
    (tmp_path / "a.mha").rename(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="damaged or no NRRD file"):
        read_volume(tmp_path / "a.nrrd")


def test_suffixes_in_letters_of_any_case() -> None:
    names = ["a.nii", "a.NII.gz", "a.Nrrd", "a.seg.nrrd", "a.nhdr", "a.mha", "a.MHD", "a.dcm", "nrrd", ""]
    assert [volume_suffix(name) for name in names] == [
        *(".nii", ".nii.gz", ".nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", "", "", "")
    ]


def test_labels_in_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"another suffix; expected \.nii, \.nii\.gz, \.nrrd, \.nhdr, \.mha, \.mhd"):
        read_label_volume(tmp_path / "a.png")


def test_volume_is_given_alone(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.mhd", ct_array(), make_affine())
    with pytest.raises(InputError, match="one of 2 paths; expected one volume file; give it alone"):
        read_volume([path, tmp_path / "a.raw"])
    with pytest.raises(InputError, match=r"\.mhd has no series UID"):
        read_volume(path, series_uid="1.2.3")


def test_folder_with_a_volume_file_says_how_to_read_it(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.mhd", ct_array(), make_affine())
    with pytest.raises(InputError, match=r"none of them DICOM.* give the volume file itself") as caught:
        read_volume(tmp_path)
    assert str(path) in str(caught.value)


def test_same_contents_have_the_same_hash_in_every_format(tmp_path: Path) -> None:
    write_nifti(ct_array(), make_affine(), tmp_path / "a.nii")
    write_itk(tmp_path / "a.mha", ct_array().transpose(2, 1, 0), make_affine())
    hashes = {read_volume(tmp_path / name).series_hash for name in ("a.nii", "a.mha")}
    assert len(hashes) == 1
