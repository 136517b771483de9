"""A DICOM SEG file: its segments, where its frames lie, and its pixels, one frame at a time.

highdicom's decoder reads the pixels, but its ``Segmentation`` is not used: it refuses frames without a position or
dimension indices, makes no volume of a tilted stack, and takes three times as long.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lung_d2.categories import Category
from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom, show_code, text_of
from lung_d2.ct.planes import MAX_SIDE, read_geometry, whole_number
from lung_d2.data.importers.dicom.annotation_objects import (
    REMEDY,
    AnnotationKind,
    ImageReference,
    follow,
    read_references,
    read_tags,
    refuse_damage,
    show_uid_name,
)
from lung_d2.data.importers.dicom.slice_grid import FramePlane
from lung_d2.data.labels import LabelTable
from lung_d2.errors import InputError

SEGMENTATION = AnnotationKind(
    "SEG",
    {
        "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage",
        "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    },
)
BINARY, FRACTIONAL, LABELMAP = "BINARY", "FRACTIONAL", "LABELMAP"
_BITS = {BINARY: (1, 8), FRACTIONAL: (8,), LABELMAP: (8, 16)}
_TAGS = (
    *("SegmentationType", "MaximumFractionalValue", "PixelPaddingValue", "NumberOfFrames", "Rows", "Columns"),
    *("SamplesPerPixel", "BitsAllocated", "BitsStored", "SegmentSequence", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
Values = npt.NDArray[Any]
"""Stored values ``(H, W)`` of an unsigned integer type."""
_DEFERRED_BYTES = 1024  # longer values stay in the file until they are needed


@dataclass(frozen=True)
class SegFrame:
    """One frame.

    Attributes:
        number: 1-based.
        segment: Number of its segment; None in a label map, whose pixels say it.
        plane: Where it lies; None where the file does not say.
        images: The images it was drawn on, where the file says.
    """

    number: int
    segment: int | None
    plane: FramePlane | None
    images: tuple[ImageReference, ...]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A SEG file without its pixels.

    Attributes:
        path: The file.
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        maximum: Value that stands for 1 in a fractional one.
        background: Pixel value of a label map that is not a segment; -1: there is no such value.
        shape: Rows and columns of a frame.
        bits: Of a pixel.
        transfer_syntax: Its UID.
        segments: What each segment is called, by its number; see :func:`read_segments`.
        frames: In the order of the file.
        offsets: Extended offset table of compressed frames, where there is one.
    """

    path: Path
    kind: str
    maximum: int
    background: int
    shape: tuple[int, int]
    bits: int
    transfer_syntax: str
    segments: Mapping[int, tuple[str, ...]]
    frames: tuple[SegFrame, ...] = field(repr=False)
    offsets: tuple[bytes, bytes] | None = field(repr=False)

    def where(self, frame: SegFrame) -> str:
        """Return what messages call a frame."""
        return f"{self.path} frame {frame.number}"


def read_segments(path: Path, labels: LabelTable) -> dict[int, tuple[str, ...]]:
    """Read what the segments of a file are called, without its frames.

    Args:
        path: The file.
        labels: The categories in play.

    Returns:
        The names of each segment by its number: the category of its property type, its label, its number, and its
        description if that names a category. All but the number may be empty; the first that is not is shown in
        messages.

    Raises:
        InputError: The file is damaged, or has no segments.
    """
    dataset = read_tags(path, ["SegmentSequence"])
    with refuse_damage(path):
        return _segments(dataset, path, labels)


def read_segmentation(path: Path, labels: LabelTable) -> Segmentation:
    """Read everything in a file except its pixels.

    Args:
        path: The file.
        labels: The categories in play.

    Raises:
        GeometryError: The position of a frame is impossible.
        InputError: The file is damaged, or not a segmentation of a known kind.
    """
    dataset = read_tags(path, _TAGS)
    with refuse_damage(path):
        return _read(dataset, path, labels)


def _read(dataset: Dataset, path: Path, labels: LabelTable) -> Segmentation:
    kind = text_of(dataset, "SegmentationType").upper()
    bits, samples = (whole_number(dataset, name, path) for name in ("BitsAllocated", "SamplesPerPixel"))
    if bits not in _BITS.get(kind, ()) or samples != 1:
        raise InputError(
            path,
            found=f"SegmentationType {show_code(kind, _BITS)} of {bits} bits",
            expected="BINARY of 1, FRACTIONAL of 8, LABELMAP of 8 or 16",
            remedy=REMEDY,
        )
    rows, columns = (whole_number(dataset, name, path) for name in ("Rows", "Columns"))
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise InputError(path, found=f"{rows} x {columns} pixels", expected=f"1 to {MAX_SIDE}", remedy=REMEDY)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
    if syntax == ExplicitVRBigEndian:
        raise InputError(path, found="big-endian pixels", expected="little endian", remedy=REMEDY)
    maximum = whole_number(dataset, "MaximumFractionalValue", path) if kind == FRACTIONAL else 1
    if not 1 <= maximum <= 255:
        raise InputError(path, found=f"MaximumFractionalValue {maximum}", expected="1 to 255", remedy=REMEDY)
    segments = _segments(dataset, path, labels)
    # Without PixelPaddingValue, 0 is background, unless it is declared as a segment, which is often named background.
    padding = whole_number(dataset, "PixelPaddingValue", path, default=-1 if 0 in segments else 0)
    offsets = [dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    return Segmentation(
        path=path,
        kind=kind,
        maximum=maximum,
        background=padding if kind == LABELMAP else -1,
        shape=(rows, columns),
        bits=bits,
        transfer_syntax=syntax,
        segments=segments,
        frames=_frames(dataset, kind, (rows, columns), segments, path),
        offsets=(offsets[0], offsets[1]) if all(offsets) else None,
    )


def _segments(dataset: Dataset, path: Path, labels: LabelTable) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for item in follow(dataset, "SegmentSequence"):
        number = whole_number(item, "SegmentNumber", path)
        if number in found:
            raise InputError(path, found=f"segment {number} twice", expected="each once", remedy=REMEDY)
        found[number] = _names(item, number, LabelTable(categories=labels.categories))
    if not found:
        raise InputError(path, found="no segment", expected="one or more", remedy=REMEDY)
    return found


def _names(item: Dataset, number: int, known: LabelTable) -> tuple[str, ...]:
    codes = follow(item, "SegmentedPropertyTypeCodeSequence") or [Dataset()]
    value, scheme, meaning = (
        text_of(codes[0], name) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    )
    label, description = (text_of(item, name) for name in ("SegmentLabel", "SegmentDescription"))
    # The entries of the table are for labels: meaning and description count only where they name a category.
    meaning, description = (text if isinstance(known.find(text), Category) else "" for text in (meaning, description))
    return known.name_of_code(value, scheme) or meaning, label, str(number), description


def _frames(
    dataset: Dataset, kind: str, shape: tuple[int, int], segments: Collection[int], path: Path
) -> tuple[SegFrame, ...]:
    count = whole_number(dataset, "NumberOfFrames", path, default=1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != count:
        raise InputError(
            path,
            found=f"{count} frames declared but {len(groups)} functional groups",
            expected="one for each",
            remedy=REMEDY,
        )
    shared = follow(dataset, "SharedFunctionalGroupsSequence")[:1]
    frames = []
    for number, group in enumerate(groups, start=1):
        frame = _frame(number, [group, *shared], kind, shape, path)
        if frame.segment is not None and frame.segment not in segments:
            raise InputError(
                f"{path} frame {number}",
                found=f"segment {frame.segment}, which is not declared",
                expected=f"one of {len(segments)} segments",
                remedy=REMEDY,
            )
        frames.append(frame)
    return tuple(frames)


def _frame(number: int, places: list[Dataset], kind: str, shape: tuple[int, int], path: Path) -> SegFrame:
    """Read one frame; ``places`` are the datasets that may hold its values, the first of which counts."""
    where = Path(f"{path} frame {number}")
    plane, segment = None, None
    if any(follow(place, "PlanePositionSequence") for place in places):
        position, cosines, (down, across) = read_geometry(places, where)
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        plane = FramePlane(np.array(position), row * across, column * down, shape)
    if kind != LABELMAP:
        identities = [item for place in places for item in follow(place, "SegmentIdentificationSequence")]
        segment = whole_number((identities or [Dataset()])[0], "ReferencedSegmentNumber", where)
    images = [item for place in places for item in follow(place, "DerivationImageSequence", "SourceImageSequence")]
    return SegFrame(number, segment, plane, read_references(images))


def read_frames(segmentation: Segmentation, wanted: Collection[int]) -> Iterator[tuple[SegFrame, Values]]:
    """Read the pixels of some frames, one after the other.

    Args:
        segmentation: What :func:`read_segmentation` returned.
        wanted: Numbers of the frames.

    Yields:
        Each wanted frame and its stored values, in the order of the file.

    Raises:
        InputError: The pixels are fewer than the header says, or cannot be decoded.
    """
    path = segmentation.path
    try:
        with _open_pixels(segmentation) as (file, length):
            _check_length(segmentation, length)
            raw = _raw_frames(segmentation, file, wanted)
            for frame in segmentation.frames:
                data = next(raw, None)
                if frame.number not in wanted:
                    continue
                if data is None:
                    raise InputError(segmentation.where(frame), found="no pixels", remedy=REMEDY)
                yield frame, _decode(segmentation, frame, data)
    except READ_ERRORS as error:
        raise InputError(path, found="pixels that cannot be read", remedy=REMEDY) from error


@contextmanager
def _open_pixels(segmentation: Segmentation) -> Iterator[tuple[BinaryIO, int]]:
    """Open the pixel data: a file that stands at its start, and its length in bytes (-1: compressed, unknown)."""
    path = segmentation.path
    inflated = segmentation.transfer_syntax == DeflatedExplicitVRLittleEndian
    with quiet_pydicom():
        defer = None if inflated else _DEFERRED_BYTES
        dataset = pydicom.dcmread(path, force=True, specific_tags=["PixelData"], defer_size=defer)
    if "PixelData" not in dataset:
        raise InputError(path, found="no PixelData", expected="its frames", remedy=REMEDY)
    raw: Any = dataset.get_item("PixelData", keep_deferred=True)
    compressed = UID(segmentation.transfer_syntax).is_encapsulated
    if raw.value is not None:
        yield BytesIO(raw.value), -1 if compressed else len(raw.value)
        return
    with open(path, "rb") as file:
        file.seek(raw.value_tell)
        yield file, -1 if compressed else min(raw.length, path.stat().st_size - raw.value_tell)


def _check_length(segmentation: Segmentation, length: int) -> None:
    rows, columns = segmentation.shape
    needed = -(-len(segmentation.frames) * rows * columns * segmentation.bits // 8)
    if 0 <= length < needed:
        raise InputError(
            segmentation.path,
            found=f"{length} bytes of pixels",
            expected=f"{needed}, for {len(segmentation.frames)} frames of {rows} x {columns}",
            remedy=REMEDY,
        )


def _raw_frames(segmentation: Segmentation, file: BinaryIO, wanted: Collection[int]) -> Iterator[bytes]:
    """Yield the bytes of each frame; native bits of a frame may begin and end within a byte that it shares."""
    if UID(segmentation.transfer_syntax).is_encapsulated:
        count = len(segmentation.frames)
        yield from generate_frames(file, number_of_frames=count, extended_offsets=segmentation.offsets)
        return
    start = file.tell()
    bits = segmentation.shape[0] * segmentation.shape[1] * segmentation.bits
    for frame in segmentation.frames:
        first, last = (frame.number - 1) * bits // 8, -(-frame.number * bits // 8)
        file.seek(start + first)
        yield file.read(last - first) if frame.number in wanted else b""


def _decode(segmentation: Segmentation, frame: SegFrame, data: bytes) -> Values:
    from highdicom.frame import decode_frame  # here: it loads more than the other importers need

    rows, columns = segmentation.shape
    try:
        with quiet_pydicom():
            values: Values = decode_frame(
                data,
                segmentation.transfer_syntax,
                rows=rows,
                columns=columns,
                samples_per_pixel=1,
                bits_allocated=segmentation.bits,
                bits_stored=segmentation.bits,
                photometric_interpretation="MONOCHROME2",
                index=frame.number - 1,
            )
    except (*READ_ERRORS, RuntimeError) as error:
        raise InputError(
            segmentation.where(frame),
            found=f"pixels that cannot be decoded ({show_uid_name(segmentation.transfer_syntax)})",
            expected="a whole file of a supported coding",
            remedy="export it again, uncompressed or as RLE",
        ) from error
    if values.shape != segmentation.shape:
        raise InputError(
            segmentation.where(frame),
            found=f"{values.shape} pixels",
            expected=f"{segmentation.shape}, as its header says",
            remedy=REMEDY,
        )
    return values
