"""DICOM series to volumes in HU: values, order, geometry, and what is refused."""

from __future__ import annotations

import logging
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from ct.dicom_files import (
    PLANTED,
    SERIES_UID,
    expected_hu,
    make_enhanced,
    make_slice,
    stored_slices,
    write,
    write_series,
)
from lung_d2.ct import CTVolume, find_series, load_series, read_volume
from lung_d2.errors import GeometryError, InputError, LungD2Error, SeriesChoiceError


def refused(source: object, kind: type[LungD2Error] = InputError) -> str:
    """Return the message of a refusal, having checked that it names no patient."""
    with pytest.raises(kind) as caught:
        read_volume(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    return message


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


def test_arrays_are_read_only(tmp_path: Path) -> None:
    write_series(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        read_volume(tmp_path).hu[0, 0, 0] = 0


@pytest.mark.parametrize("slope", [0.1, 0.7, 1.0 / 3, 2.5, 1.00048828125])
def test_fractional_slope_is_rounded_once(tmp_path: Path, slope: float) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    text = f"{slope:.12g}"
    write(make_slice(stored, RescaleSlope=text, RescaleIntercept="-1000.3"), tmp_path / "a")
    error = read_volume(tmp_path / "a").hu[0] - (stored * float(text) - 1000.3)
    assert np.abs(error).max() <= 0.5 + 1e-9


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    stored = stored_slices(3)
    rescales = [(1, -1024), (2, -1000), (1, -900)]
    for k, (slope, intercept) in enumerate(rescales):
        tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        write(make_slice(stored[k], z=float(k), **tags), tmp_path / f"{k}")
    expected = [stored[k].astype(int) * slope + intercept for k, (slope, intercept) in enumerate(rescales)]
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_native_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    write_series(tmp_path, transfer_syntax=syntax)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))


def test_big_endian(tmp_path: Path) -> None:
    stored = stored_slices(1)[0]
    dataset = make_slice(stored, PixelData=stored.astype(">u2").tobytes(), transfer_syntax="1.2.840.10008.1.2.2")
    write(dataset, tmp_path / "a")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(1))


def test_rle_lossless(tmp_path: Path) -> None:
    dataset = make_slice(stored_slices(1)[0])
    dataset.compress("1.2.840.10008.1.2.5")
    write(dataset, tmp_path / "a")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(1))


def test_file_without_preamble(tmp_path: Path) -> None:
    dataset = make_slice(stored_slices(1)[0], transfer_syntax=ImplicitVRLittleEndian)
    del dataset.file_meta
    dataset.save_as(tmp_path / "a", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(1))


def test_signed_12_bit_cells_that_are_not_sign_extended(tmp_path: Path) -> None:
    hu = np.array([[-1000, -1], [0, 2047]])
    cells = (hu & 0xFFF).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "RescaleIntercept": 0}
    write(make_slice(cells, **tags), tmp_path / "a")
    np.testing.assert_array_equal(read_volume(tmp_path).hu[0], hu)


def test_more_bits_than_stored_are_refused(tmp_path: Path) -> None:
    write(make_slice(np.full((4, 4), 5000, np.uint16), BitsStored=12, HighBit=11), tmp_path / "a")
    assert "more than the 12 bits" in refused(tmp_path)


@pytest.mark.parametrize(("value", "signed"), [(-2000, True), (63536, True), (63536, False), (-2000, False)])
def test_padding_is_air_whatever_its_sign(tmp_path: Path, value: int, signed: bool) -> None:
    cells = np.array([[63536, 24], [1024, 0]], np.uint16)
    dataset = make_slice(cells, PixelRepresentation=int(signed))
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    write(dataset, tmp_path / "a")
    np.testing.assert_array_equal(read_volume(tmp_path).hu[0], [[-1000, -1000], [0, -1024]])


def test_padding_range(tmp_path: Path) -> None:
    cells = np.array([[-2000, -1999], [-1500, -1499]], np.int16)
    dataset = make_slice(cells, RescaleIntercept=0)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1500)
    write(dataset, tmp_path / "a")
    np.testing.assert_array_equal(read_volume(tmp_path).hu[0], [[-1000, -1000], [-1000, -1499]])


def test_names_and_order_do_not_matter(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", count=8, names=["z", "b.txt", "03", "x.dcm", "k.ima", "IM", "_", "9"])
    random.Random(0).shuffle(files)
    np.testing.assert_array_equal(read_volume(files).hu, expected_hu(8))
    np.testing.assert_array_equal(read_volume(str(tmp_path)).hu, expected_hu(8))


def test_series_listed_from_the_top(tmp_path: Path) -> None:
    write_series(tmp_path, step_mm=-2.0)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(4)[::-1])
    assert volume.slice_positions_mm[0] == -6.0


def test_oblique_stack(tmp_path: Path) -> None:
    angle = np.deg2rad(30)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)
    for k, stored in enumerate(stored_slices(4)):
        position = np.array([10.0, 20, 30]) + 3 * k * normal
        tags = {"ImagePositionPatient": [f"{value:.8f}" for value in position]}
        tags["ImageOrientationPatient"] = [f"{value:.8f}" for value in (*row, *column)]
        write(make_slice(stored, **tags), tmp_path / str(9 - k))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(4))
    assert volume.spacing_mm[0] == pytest.approx(3.0, abs=1e-6)
    np.testing.assert_allclose(volume.affine_lps[:3, 2], 3 * normal, atol=1e-6)


def test_tilted_gantry_keeps_its_shear(tmp_path: Path) -> None:
    tilt = np.deg2rad(12)
    column = np.array([0, np.cos(tilt), -np.sin(tilt)])
    for k, stored in enumerate(stored_slices(5)):
        tags = {"ImagePositionPatient": [0, 0, 4.0 * k], "ImageOrientationPatient": [1, 0, 0, *column.round(9)]}
        write(make_slice(stored, **tags), tmp_path / str(k))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(5))
    assert volume.spacing_mm[0] == pytest.approx(4 * np.cos(tilt), abs=1e-6)
    np.testing.assert_allclose(volume.affine_lps[:3, 2], [0, 0, 4])


def test_positions_rounded_to_a_tenth(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_slices(9)):
        write(make_slice(stored, z=round(0.625 * k, 1)), tmp_path / str(k))
    assert read_volume(tmp_path).spacing_mm[0] == pytest.approx(0.625)


@pytest.mark.parametrize(("count", "missing"), [(4, 1), (6, 3), (10, 8)])
def test_missing_slice_is_named(tmp_path: Path, count: int, missing: int) -> None:
    write_series(tmp_path, count=count)[missing].unlink()
    message = refused(tmp_path, GeometryError)
    assert f"gap of 4.00 mm after slice {missing - 1}" in message
    assert "usual spacing of 2.00 mm" in message


def test_uneven_spacing(tmp_path: Path) -> None:
    for k, (z, stored) in enumerate(zip([0, 2, 4, 5.3, 7.3], stored_slices(5), strict=True)):
        write(make_slice(stored, z=z), tmp_path / str(k))
    assert "1.30 mm where 2.00 mm is usual, at slice 2" in refused(tmp_path, GeometryError)


def test_copy_names_both_files(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    (tmp_path / "copy").write_bytes(files[1].read_bytes())
    message = refused(tmp_path, GeometryError)
    assert "same image twice" in message
    assert str(files[1]) in message
    assert str(tmp_path / "copy") in message


def test_two_images_at_one_position(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=2.0), tmp_path / "other")
    assert "lie at the same position" in refused(tmp_path, GeometryError)


def test_two_phases_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b")
    assert "8 images at 4 positions" in refused(tmp_path, GeometryError)


def test_slices_shifted_in_their_plane(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], ImagePositionPatient=[5, 0, 8]), tmp_path / "b")
    write(make_slice(stored_slices(1)[0], z=10), tmp_path / "c")
    assert "shifted by" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelSpacing": [0.5, 0.8]}, "pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9950042, 0.0998334]}, "orientations"),
    ],
)
def test_mixed_geometry(tmp_path: Path, tags: dict[str, object], words: str) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=8.0, **tags), tmp_path / "b")
    assert words in refused(tmp_path, GeometryError)


def test_mixed_sizes(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(np.zeros((3, 3), np.uint16), z=8.0), tmp_path / "b")
    assert "3 x 3 and 6 x 5" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize("says_so", [True, False])
def test_localizer_is_left_out(tmp_path: Path, says_so: bool, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path)
    tags = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    if says_so:
        tags |= {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "PixelSpacing": None}
    write(make_slice(np.zeros((9, 9), np.uint16), **tags), tmp_path / "scout")
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "left out 1" in caplog.text


def test_localizer_in_a_series_of_its_own(tmp_path: Path) -> None:
    write_series(tmp_path)
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": SERIES_UID + ".9"}
    scout = write(make_slice(stored_slices(1)[0], **tags), tmp_path / "scout")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "only localizer" in refused(scout)


def test_several_series_are_listed_and_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", count=3, SeriesInstanceUID=SERIES_UID + ".7")
    message = refused(tmp_path, SeriesChoiceError)
    assert f"{SERIES_UID} (4 slices, 6 x 5 pixels, 2 x 0.5 x 0.75 mm)" in message
    assert f"{SERIES_UID}.7 (3 slices" in message
    assert read_volume(tmp_path, series_uid=SERIES_UID + ".7").hu.shape == (3, 6, 5)
    with pytest.raises(SeriesChoiceError, match=r"no series 1\.2\.3; there are"):
        read_volume(tmp_path, series_uid="1.2.3")


def test_a_broken_series_does_not_stop_the_other(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", PixelSpacing=None, SeriesInstanceUID=SERIES_UID + ".7")
    assert "unreadable: no PixelSpacing" in refused(tmp_path, SeriesChoiceError)
    assert read_volume(tmp_path, series_uid=SERIES_UID).hu.shape == (4, 6, 5)


def test_patients_with_one_series_uid_are_kept_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", PatientID="PLANTED-OTHER")
    assert "the UID does not tell them apart" in refused(tmp_path, SeriesChoiceError)


def test_empty_uids(tmp_path: Path) -> None:
    write_series(tmp_path, SOPInstanceUID="", SeriesInstanceUID="")
    volume = read_volume(tmp_path)
    assert volume.sop_instance_uids == ("",) * 4
    assert volume.series_instance_uid == ""
    assert len(volume.series_hash) == 16


def test_same_sop_uid_everywhere_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, SOPInstanceUID="1.2.3")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "share a SOPInstanceUID" in caplog.text


@pytest.mark.parametrize("tags", [{"Modality": None}, {"Modality": None, "SOPClassUID": ""}, {"Modality": "ct"}])
def test_missing_modality(tmp_path: Path, tags: dict[str, object]) -> None:
    write_series(tmp_path, **tags)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))


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


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 500, b"\0" * 128 + b"DICM", b"\x08\0" * 300])
def test_files_that_are_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    assert str(tmp_path / "a.dcm") in refused(tmp_path / "a.dcm")


def test_sources_without_files(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent")
    assert "no files" in refused(tmp_path)
    assert "no files" in refused([])


def test_enhanced_frames_have_their_own_intercept(tmp_path: Path) -> None:
    stored, rescales = stored_slices(3), [(1.0, -1024.0), (1.0, -924.0), (0.5, -1000.0)]
    write(make_enhanced(stored, [4.0, 0.0, 2.0], rescales), tmp_path / "a")
    volume = read_volume(tmp_path)
    for index, frame in enumerate([1, 2, 0]):
        slope, intercept = rescales[frame]
        np.testing.assert_array_equal(volume.hu[index], np.rint(stored[frame] * slope + intercept))
    assert volume.frame_numbers == (2, 3, 1)
    assert volume.spacing_mm == (2.0, 0.5, 0.75)


def test_compressed_enhanced_frames_have_their_own_intercept(tmp_path: Path) -> None:
    stored = stored_slices(2)
    dataset = make_enhanced(stored, [0.0, 2.0], [(1.0, -1024.0), (1.0, -900.0)])
    dataset.compress("1.2.840.10008.1.2.5")
    write(dataset, tmp_path / "a")
    expected = [stored[0].astype(int) - 1024, stored[1].astype(int) - 900]
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected)


def test_enhanced_in_time_is_refused(tmp_path: Path) -> None:
    write(make_enhanced(stored_slices(4), [0.0, 2.0, 0.0, 2.0], [(1.0, -1024.0)] * 4), tmp_path / "a")
    assert "(4-D)" in refused(tmp_path, GeometryError)


def test_enhanced_with_too_few_groups(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(2), [0.0, 2.0], [(1.0, -1024.0)] * 2)
    dataset.NumberOfFrames = 900
    assert "900 frames declared but 2" in refused(write(dataset, tmp_path / "a"))


def test_rescale_in_some_slices_only(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=8.0, RescaleIntercept=None), tmp_path / "b")
    assert "as 1 of the 5 slices" in refused(tmp_path)


def test_enhanced_with_rescale_at_top_level(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(4), [0.0, 2, 4, 6], [(1, 0)] * 4, RescaleSlope=1, RescaleIntercept=-1024)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence
    np.testing.assert_array_equal(read_volume(write(dataset, tmp_path / "a")).hu, expected_hu(4))


def test_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    write(make_slice(stored_slices(1)[0], SliceThickness=3.5), tmp_path / "a")
    assert read_volume(tmp_path).spacing_mm[0] == 3.5


def test_identity_leaves_as_hash_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        write_series(tmp_path / "a", PatientName="PLANTED" * 30)
        write_series(tmp_path / "b", SeriesInstanceUID="1.2.3.7")
        found = find_series(tmp_path)
        volumes = [load_series(series) for series in found]
    assert not any(word in text for word in PLANTED for text in (caplog.text, repr(found), repr(volumes)))
    assert volumes[0].patient_hash == volumes[1].patient_hash
    assert volumes[0].series_hash != volumes[1].series_hash
    assert len(volumes[0].patient_hash) == 16


def test_patient_falls_back_to_the_study(tmp_path: Path) -> None:
    write_series(tmp_path / "a", PatientID="")
    write_series(tmp_path / "b", PatientID="", StudyInstanceUID="1.2.3")
    first, second = (read_volume(tmp_path / name).patient_hash for name in "ab")
    assert first != second


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
