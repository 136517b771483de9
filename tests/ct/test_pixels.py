"""Stored values to HU: rescale, padding, bits, codings."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import encapsulate, generate_frames

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
from lung_d2.errors import InputError


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


HU_OF_A_CHEST = np.random.default_rng(3).integers(-1024, 1500, (48, 40)).cumsum(axis=1) % 2500 - 1024

JPEG_2000 = {"codecformat": "J2K", "bitspersample": 12}
CODINGS = {  # transfer syntax: encoder, its options, how far the decoded values may be from the encoded ones
    "1.2.840.10008.1.2.4.50": (imagecodecs.jpeg8_encode, {"level": 95}, 30),
    "1.2.840.10008.1.2.4.51": (imagecodecs.jpeg8_encode, {"level": 98, "bitspersample": 12}, 120),
    "1.2.840.10008.1.2.4.57": (imagecodecs.jpeg8_encode, {"lossless": True, "predictor": 6, "bitspersample": 12}, 0),
    "1.2.840.10008.1.2.4.70": (imagecodecs.jpeg8_encode, {"lossless": True, "predictor": 1, "bitspersample": 12}, 0),
    "1.2.840.10008.1.2.4.80": (imagecodecs.jpegls_encode, {}, 0),
    "1.2.840.10008.1.2.4.81": (imagecodecs.jpegls_encode, {"level": 3}, 3),
    "1.2.840.10008.1.2.4.90": (imagecodecs.jpeg2k_encode, {**JPEG_2000, "reversible": True}, 0),
    "1.2.840.10008.1.2.4.91": (imagecodecs.jpeg2k_encode, {**JPEG_2000, "level": 70, "reversible": False}, 12),
    "1.2.840.10008.1.2.4.201": (imagecodecs.htj2k_encode, {"reversible": True}, 0),
    "1.2.840.10008.1.2.4.203": (imagecodecs.htj2k_encode, {"level": 0.001, "reversible": False}, 25),
}
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203")  # GDCM does not know it, OpenJPH does


def write_compressed(path: Path, syntax: str, *, signed: bool) -> np.ndarray:
    """Write HU_OF_A_CHEST in 12 bits (8 for JPEG Baseline) and return what was encoded, without sign."""
    encode, options, _ = CODINGS[syntax]
    bits = 8 if syntax.endswith(".50") else 12
    values = HU_OF_A_CHEST // (1 if bits == 12 else 32)
    cells = (values % (1 << bits) if signed else values - values.min()).astype(f"u{(bits + 7) // 8}")
    tags = {"BitsAllocated": 8 * cells.itemsize, "BitsStored": bits, "HighBit": bits - 1}
    stream = encode(np.ascontiguousarray(cells), **options)
    dataset = make_slice(cells, **tags, PixelRepresentation=int(signed), transfer_syntax=syntax, RescaleIntercept=0)
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    write(dataset, path)
    return cells.astype(int)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", CODINGS)
def test_compressed_transfer_syntaxes_equal_a_second_decoder(tmp_path: Path, syntax: str, signed: bool) -> None:
    cells = write_compressed(tmp_path / "a.dcm", syntax, signed=signed)
    if syntax in HTJ2K:
        stream = next(generate_frames(pydicom.dcmread(tmp_path / "a.dcm").PixelData, number_of_frames=1))
        second = imagecodecs.htj2k_decode(stream).astype(int)
    else:
        second = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.dcm")))[0].astype(int)
    bits = 8 if syntax.endswith(".50") else 12
    found = read_volume(tmp_path / "a.dcm").hu[0].astype(int)
    assert not signed or found.min() < 0
    apart, lossy = np.abs(found % (1 << bits) - second % (1 << bits)), CODINGS[syntax][2] > 0
    assert np.minimum(apart, (1 << bits) - apart).max() <= (2 if lossy else 0)  # transforms may be rounded otherwise
    off = np.abs(found % (1 << bits) - cells)
    assert np.median(np.minimum(off, (1 << bits) - off)) <= CODINGS[syntax][2]


@pytest.mark.parametrize("syntax", CODINGS)
def test_damaged_streams_are_read_or_refused(tmp_path: Path, syntax: str) -> None:
    write_compressed(tmp_path / "a.dcm", syntax, signed=False)
    data, rng = (tmp_path / "a.dcm").read_bytes(), np.random.default_rng(5)
    start = data.index(b"\xfe\xff\x00\xe0", data.index(b"\xe0\x7f\x10\x00") + 12) + 8
    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(start, len(data) - 8, 3):
            broken[at] = rng.integers(256)
        (tmp_path / "a.dcm").write_bytes(broken)
        try:
            assert read_volume(tmp_path / "a.dcm").hu.shape == (1, *HU_OF_A_CHEST.shape)
        except InputError:
            continue


def test_stream_that_ends_other_decoders_is_refused(data_root: Path) -> None:
    path = data_root / "hostile" / "jpeg_lossless_huffman_flip.dcm"
    with pytest.raises(InputError, match="cannot be decoded"):
        read_volume(path)


def test_frame_that_declares_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    stream = bytearray(imagecodecs.jpegls_encode(np.zeros((6, 5), np.uint16)))
    at = stream.index(b"\xff\xf7") + 5
    stream[at : at + 4] = struct.pack(">2H", 60_000, 60_000)
    dataset = make_slice(np.zeros((6, 5), np.uint16), transfer_syntax="1.2.840.10008.1.2.4.80")
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset["PixelData"].is_undefined_length = True
    assert "60000 x 60000" in refused(write(dataset, tmp_path / "a"))


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
