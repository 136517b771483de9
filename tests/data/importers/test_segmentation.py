from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian

from ct.dicom_files import PLANTED, write
from data.importers.dicom_seg_files import item, make_frame, make_seg, make_segment
from lung_d2.data.importers.dicom_objects import ImageReference
from lung_d2.data.importers.segmentation import FRACTIONAL, read_segmentation, read_segments
from lung_d2.errors import GeometryError, InputError

MASKS = np.zeros((2, 6, 5), bool)
FRAMES = [make_frame(position=(1.0, 2.0, 3.0), image="1.2.9", frame=4), make_frame(position=None)]


def refused(dataset, path, kind=InputError):
    write(dataset, path)
    with pytest.raises(kind) as caught:
        read_segmentation(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "CT images" not in message  # the remedy of the reader of images
    assert not any(word in message for word in PLANTED)
    return message


def test_frames_hold_what_the_file_says(tmp_path):
    path = write(make_seg(MASKS, FRAMES, [make_segment(1, "a"), make_segment(7, "b")]), tmp_path / "x")
    segmentation = read_segmentation(path)
    first, second = segmentation.frames
    assert (first.number, first.segment, first.images) == (1, 1, (ImageReference("1.2.9", 4),))
    assert (first.plane.origin_mm.tolist(), first.plane.shape) == ([1.0, 2.0, 3.0], (6, 5))
    assert first.plane.across_mm.tolist() == [0.75, 0.0, 0.0]
    assert first.plane.down_mm.tolist() == [0.0, 0.5, 0.0]
    assert (second.plane, second.images) == (None, ())
    assert (segmentation.kind, segmentation.bits, segmentation.shape) == ("BINARY", 1, (6, 5))
    assert read_segments(path) == segmentation.segments
    assert segmentation.segments[7][:3] == ("", "b", "7")


def test_what_all_frames_share_is_read(tmp_path):
    dataset = make_seg(MASKS[:1], [item()])
    dataset.SharedFunctionalGroupsSequence[0].update(make_frame(position=(0.0, 0.0, 4.0), image="1.2.9"))
    (frame,) = read_segmentation(write(dataset, tmp_path / "x")).frames
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
        read_segmentation(path)


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
        read_segmentation(tmp_path / "x")


def test_file_that_is_gone_is_refused(tmp_path):
    with pytest.raises(InputError, match="gone: damaged DICOM"):
        read_segmentation(tmp_path / "gone")
