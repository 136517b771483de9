from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ct.dicom_files import PLANTED, write
from data.importers.dicom_seg_files import make_frame, make_seg
from lung_d2.data.importers.seg_pixels import read_frames
from lung_d2.data.importers.segmentation import read_segmentation
from lung_d2.errors import InputError

MASKS = np.random.default_rng(0).random((5, 7, 9)) < 0.5  # 63 bits a frame: none but the first begins with a byte
FRAMES = [make_frame(position=(0.0, 0.0, 2.0 * k)) for k in range(5)]
VALUES = np.random.default_rng(0).integers(0, 2, (5, 64, 64), np.uint8)


def read(path, wanted=range(1, 6)):
    return {frame.number: values for frame, values in read_frames(read_segmentation(path), set(wanted))}


def refused(path):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    return message


@pytest.mark.parametrize("wanted", [(1, 2, 3, 4, 5), (4,), (2, 5), ()])
def test_wanted_frames_are_read_bit_by_bit(wanted, tmp_path):
    frames = read(write(make_seg(MASKS, FRAMES), tmp_path / "x"), wanted)
    assert list(frames) == list(wanted)
    assert all(np.array_equal(frames[number], MASKS[number - 1]) for number in wanted)


def test_pixels_that_follow_a_long_header_are_found(tmp_path):
    """Frames of more than 1 KiB stay in the file; here they begin after 100 kB of header."""
    masks = np.random.default_rng(1).random((600, 64, 32)) < 0.5
    frames = [make_frame(position=(0.0, 0.0, 2.0 * k), image=f"1.2.{k}") for k in range(600)]
    path = write(make_seg(masks, frames), tmp_path / "x")
    assert path.stat().st_size > masks.size // 8 + 100_000
    assert np.array_equal(read(path, [600])[600], masks[-1])


def jpeg_2000(values):
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("extended", [False, True])
def test_compressed_frames_are_read(syntax, extended, tmp_path):
    dataset = make_seg(VALUES, FRAMES)
    path = write(dataset, tmp_path / "x")
    if syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([jpeg_2000(values) for values in VALUES], has_bot=extended)
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, encapsulate_ext=extended)
    dataset.save_as(path)
    frames = read(path, [2, 5])
    assert list(frames) == [2, 5]
    assert np.array_equal(frames[5], VALUES[4])
    assert np.array_equal(frames[2], VALUES[1])


@pytest.mark.parametrize("missing", [2, 20])
def test_fewer_pixels_than_declared_are_refused(missing, tmp_path):
    dataset = make_seg(MASKS, FRAMES)
    dataset.PixelData = dataset.PixelData[:-missing]
    message = refused(write(dataset, tmp_path / "x"))
    assert f"x: {40 - missing} bytes of pixels; expected 40, for 5 frames of 7 x 9" in message


@pytest.mark.parametrize("cut", [1, 1000, 20_000])
def test_file_that_ends_within_its_pixels_is_refused(cut, tmp_path):
    path = write(make_seg(VALUES, FRAMES), tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-cut])
    assert f"x: {VALUES.size - cut} bytes of pixels" in refused(path)


def test_file_without_pixels_is_refused(tmp_path):
    assert "x: no PixelData" in refused(write(make_seg(MASKS, FRAMES, PixelData=None), tmp_path / "x"))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"PLANTED." * 9] * 5, "x frame 1: pixels that cannot be decoded (RLE Lossless)"),
        ([b"\0\0"] * 5, "x"),
        ([b"PLANTED." * 9] * 3, "x"),
    ],
)
def test_damaged_compressed_frames_are_refused(frames, words, tmp_path):
    dataset = make_seg(VALUES, FRAMES)
    dataset.PixelData = encapsulate(frames, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    assert words in refused(write(dataset, tmp_path / "x"))


def test_unknown_coding_is_refused_without_its_name(tmp_path):
    path = write(make_seg(VALUES, FRAMES), tmp_path / "x")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2, which holds no SEG
    dataset.PixelData = encapsulate([b"x" * 8] * 5)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert "x frame 1: pixels that cannot be decoded (MPEG2 Main Profile / Main Level)" in refused(path)
