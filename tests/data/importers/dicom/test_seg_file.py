from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from ct.dicom_files import PLANTED, write
from data.importers.dicom_seg_files import item, make_frame, make_seg, make_segment
from lung_d2.data.importers.dicom.annotation_objects import ImageReference
from lung_d2.data.importers.dicom.seg_file import FRACTIONAL, read_frames, read_segmentation, read_segments
from lung_d2.data.labels import LabelTable
from lung_d2.errors import GeometryError, InputError

MASKS = np.zeros((2, 6, 5), bool)
FRAMES = [make_frame(position=(1.0, 2.0, 3.0), image="1.2.9", frame=4), make_frame(position=None)]


def refused(dataset, path, kind=InputError):
    write(dataset, path)
    with pytest.raises(kind) as caught:
        read_segmentation(path, LabelTable())
    message = str(caught.value)
    assert "\n" not in message
    assert "CT images" not in message  # the remedy of the reader of images
    assert not any(word in message for word in PLANTED)
    return message


def test_frames_hold_what_the_file_says(tmp_path):
    path = write(make_seg(MASKS, FRAMES, [make_segment(1, "a"), make_segment(7, "b")]), tmp_path / "x")
    segmentation = read_segmentation(path, LabelTable())
    first, second = segmentation.frames
    assert (first.number, first.segment, first.images) == (1, 1, (ImageReference("1.2.9", 4),))
    assert (first.plane.origin_mm.tolist(), first.plane.shape) == ([1.0, 2.0, 3.0], (6, 5))
    assert first.plane.across_mm.tolist() == [0.75, 0.0, 0.0]
    assert first.plane.down_mm.tolist() == [0.0, 0.5, 0.0]
    assert (second.plane, second.images) == (None, ())
    assert (segmentation.kind, segmentation.bits, segmentation.shape) == ("BINARY", 1, (6, 5))
    assert read_segments(path, LabelTable()) == segmentation.segments
    assert segmentation.segments[7][:3] == ("", "b", "7")


def test_what_all_frames_share_is_read(tmp_path):
    dataset = make_seg(MASKS[:1], [item()])
    dataset.SharedFunctionalGroupsSequence[0].update(make_frame(position=(0.0, 0.0, 4.0), image="1.2.9"))
    (frame,) = read_segmentation(write(dataset, tmp_path / "x"), LabelTable()).frames
    assert (frame.segment, frame.images) == (1, (ImageReference("1.2.9"),))
    assert frame.plane.origin_mm.tolist() == [0.0, 0.0, 4.0]


def turn(**groups):
    """Return functional groups that all frames share, of which some are given."""
    shared = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])],
        "PixelMeasuresSequence": [item(PixelSpacing=[0.5, 0.75])],
    }
    return {"SharedFunctionalGroupsSequence": [item(**(shared | groups))]}


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SegmentationType": None}, "SegmentationType nothing of 1 bits; expected BINARY of 1, FRACTIONAL of 8"),
        ({"SegmentationType": "PLANTED"}, "SegmentationType an unknown code of 1 bits"),
        ({"SegmentationType": "LABELMAP"}, "SegmentationType LABELMAP of 1 bits"),
        ({"BitsAllocated": None}, "no BitsAllocated"),
        ({"SamplesPerPixel": 3}, "SegmentationType BINARY"),
        ({"Rows": None}, "no Rows"),
        ({"Rows": 65535}, "65535 x 5 pixels; expected 1 to 8192"),
        ({"Columns": 0}, "6 x 0 pixels"),
        ({"NumberOfFrames": 7}, "7 frames declared but 2 functional groups"),
        ({"PerFrameFunctionalGroupsSequence": None}, "2 frames declared but 0 functional groups"),
        ({"SegmentSequence": None}, "no segment; expected one or more"),
        ({"SegmentSequence": []}, "no segment; expected one or more"),
        ({"SegmentSequence": [make_segment(1), make_segment(1)]}, "segment 1 twice"),
        (
            {"SegmentSequence": [make_segment(2)]},
            "frame 1: segment 1, which is not declared; expected one of 1 segments",
        ),
        ({"SegmentSequence": [item(SegmentLabel="x")]}, "no SegmentNumber"),
    ],
)
def test_header_that_is_none_is_refused(tags, words, tmp_path):
    assert f"x{' ' if words.startswith('frame') else ': '}{words}" in refused(
        make_seg(MASKS, FRAMES, **tags), tmp_path / "x"
    )


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (turn(PixelMeasuresSequence=None), "no PixelSpacing"),
        (turn(PlaneOrientationSequence=None), "no ImageOrientationPatient"),
        (turn(PixelMeasuresSequence=[item(PixelSpacing=[0.0, 1.0])]), "PixelSpacing 0 x 1 mm"),
        (
            turn(PlaneOrientationSequence=[item(ImageOrientationPatient=[1.0, 0, 0, 0.9, 1, 0])]),
            "ImageOrientationPatient is not orthonormal",
        ),
    ],
)
def test_impossible_place_is_refused_by_frame(tags, words, tmp_path):
    message = refused(make_seg(MASKS, FRAMES, **tags), tmp_path / "x", GeometryError)
    assert f"x frame 1: {words}" in message


def test_position_that_is_no_number_is_refused_by_frame(tmp_path):
    path = write(make_seg(MASKS, FRAMES), tmp_path / "x")
    path.write_bytes(path.read_bytes().replace(b"1.0\\2.0\\3.0", b"nan\\2.0\\3.0"))
    with pytest.raises(GeometryError, match="x frame 1: NaN or infinity in its geometry"):
        read_segmentation(path, LabelTable())


@pytest.mark.parametrize("maximum", [None, 0, 300])
def test_fraction_of_nothing_is_refused(maximum, tmp_path):
    masks = MASKS.astype(np.uint8)
    dataset = make_seg(masks, FRAMES, SegmentationType=FRACTIONAL, MaximumFractionalValue=maximum)
    assert "MaximumFractionalValue" in refused(dataset, tmp_path / "x")


def test_frame_of_no_segment_is_refused(tmp_path):
    dataset = make_seg(MASKS, [make_frame(None), make_frame(None)])
    assert "x frame 1: no ReferencedSegmentNumber" in refused(dataset, tmp_path / "x")


def test_big_endian_is_refused(tmp_path):
    dataset = make_seg(MASKS, FRAMES)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(tmp_path / "x", implicit_vr=False, little_endian=False)
    with pytest.raises(InputError, match="big-endian pixels; expected little endian"):
        read_segmentation(tmp_path / "x", LabelTable())


def test_file_that_is_gone_is_refused(tmp_path):
    with pytest.raises(InputError, match="gone: damaged DICOM"):
        read_segmentation(tmp_path / "gone", LabelTable())


BITS = np.random.default_rng(0).random((5, 7, 9)) < 0.5  # 63 bits a frame: none but the first begins with a byte
FIVE_FRAMES = [make_frame(position=(0.0, 0.0, 2.0 * k)) for k in range(5)]
VALUES = np.random.default_rng(0).integers(0, 2, (5, 64, 64), np.uint8)


def read(path, wanted=range(1, 6)):
    return {frame.number: values for frame, values in read_frames(read_segmentation(path, LabelTable()), set(wanted))}


def refused_pixels(path):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    return message


@pytest.mark.parametrize("wanted", [(1, 2, 3, 4, 5), (4,), (2, 5), ()])
def test_wanted_frames_are_read_bit_by_bit(wanted, tmp_path):
    frames = read(write(make_seg(BITS, FIVE_FRAMES), tmp_path / "x"), wanted)
    assert list(frames) == list(wanted)
    assert all(np.array_equal(frames[number], BITS[number - 1]) for number in wanted)


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
    dataset = make_seg(VALUES, FIVE_FRAMES)
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
    dataset = make_seg(BITS, FIVE_FRAMES)
    dataset.PixelData = dataset.PixelData[:-missing]
    message = refused_pixels(write(dataset, tmp_path / "x"))
    assert f"x: {40 - missing} bytes of pixels; expected 40, for 5 frames of 7 x 9" in message


@pytest.mark.parametrize("cut", [1, 1000, 20_000])
def test_file_that_ends_within_its_pixels_is_refused(cut, tmp_path):
    path = write(make_seg(VALUES, FIVE_FRAMES), tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-cut])
    assert f"x: {VALUES.size - cut} bytes of pixels" in refused_pixels(path)


def test_file_without_pixels_is_refused(tmp_path):
    assert "x: no PixelData" in refused_pixels(write(make_seg(BITS, FIVE_FRAMES, PixelData=None), tmp_path / "x"))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"PLANTED." * 9] * 5, "x frame 1: pixels that cannot be decoded (RLE Lossless)"),
        ([b"\0\0"] * 5, "x"),
        ([b"PLANTED." * 9] * 3, "x"),
    ],
)
def test_damaged_compressed_frames_are_refused(frames, words, tmp_path):
    dataset = make_seg(VALUES, FIVE_FRAMES)
    dataset.PixelData = encapsulate(frames, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    assert words in refused_pixels(write(dataset, tmp_path / "x"))


def test_unknown_coding_is_refused_without_its_name(tmp_path):
    path = write(make_seg(VALUES, FIVE_FRAMES), tmp_path / "x")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2, which holds no SEG
    dataset.PixelData = encapsulate([b"x" * 8] * 5)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert "x frame 1: pixels that cannot be decoded (MPEG2 Main Profile / Main Level)" in refused_pixels(path)
