"""DICOM sources to volumes: values, parts, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

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
from lung_d2.ct import CTVolume, read_volume
from lung_d2.errors import GeometryError


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
