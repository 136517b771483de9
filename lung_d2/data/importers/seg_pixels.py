"""The pixels of a DICOM SEG file, one frame at a time: thousands of frames take no more memory than one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.data.importers.dicom_objects import REMEDY, show_uid_name
from lung_d2.data.importers.segmentation import SegFrame, Segmentation
from lung_d2.errors import InputError

Values = npt.NDArray[Any]
"""Stored values ``(H, W)`` of an unsigned integer type."""

_DEFERRED_BYTES = 1024  # longer values are left in the file until they are asked for


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
