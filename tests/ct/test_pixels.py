"""Stored values to HU: rescale, padding, bits, codings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ct.dicom_files import (
    expected_hu,
    make_enhanced,
    make_slice,
    refused,
    stored_slices,
    write,
    write_series,
)
from lung_d2.ct import read_volume


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


def test_enhanced_with_rescale_at_top_level(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(4), [0.0, 2, 4, 6], [(1, 0)] * 4, RescaleSlope=1, RescaleIntercept=-1024)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence
    np.testing.assert_array_equal(read_volume(write(dataset, tmp_path / "a")).hu, expected_hu(4))
