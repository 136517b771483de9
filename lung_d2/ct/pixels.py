"""Stored values of the planes of a file, and HU from them, each plane with its own slope and intercept.

Compressed frames are decoded from memory: RLE by pydicom, all others by ``imagecodecs``, which refuses streams that end
the process inside other decoders. No decoder sees the rescale of a file, or its patient.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from lung_d2.ct.headers import KEPT_OF_PATIENT, NEEDED_OF_PATIENT, READ_ERRORS, Header, text_of
from lung_d2.ct.hounsfield import AIR_HU, hu_from_stored
from lung_d2.ct.planes import Plane, whole_number
from lung_d2.errors import InputError

logger = logging.getLogger(__name__)

NATIVE_SYNTAXES = frozenset(
    {"", "1.2.840.10008.1.2", ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}
)
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

IntArray = npt.NDArray[Any]
"""Integers of whatever width the file has."""

_DECODERS: dict[str, Callable[[bytes], IntArray]] = {
    **dict.fromkeys(JPEGTransferSyntaxes, imagecodecs.jpeg8_decode),
    **dict.fromkeys(JPEGLSTransferSyntaxes, imagecodecs.jpegls_decode),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), imagecodecs.jpeg2k_decode),
    **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), imagecodecs.jpeg2k_decode),
}
COMPRESSED_SYNTAXES = frozenset({*_DECODERS, RLELossless})
"""Transfer syntaxes of compressed pixels that are decoded."""

JPEG_START, JPEG_2000_START, JP2_START = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP"
END_OF_IMAGE = b"\xff\xd9"
"""Last marker of JPEG, JPEG-LS and JPEG 2000 streams alike."""
JPEG_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that open a JPEG or JPEG-LS frame (ITU-T T.81 table B.1, T.87)."""


def check_file(header: Header, frames: int) -> None:
    """Refuse a file whose pixels cannot be read, before anything is allocated for them.

    Args:
        header: Its header.
        frames: How many frames it declares.

    Raises:
        InputError: Unknown bit depth, or a native file shorter than its pixels.
    """
    path, dataset = header.path, header.dataset
    allocated = whole_number(dataset, "BitsAllocated", path)
    stored = whole_number(dataset, "BitsStored", path, default=allocated)
    high = whole_number(dataset, "HighBit", path, default=stored - 1)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise InputError(
            path,
            found=f"{allocated} bits allocated, {stored} stored, high bit {high}",
            expected="8, 16 or 32 bits that hold those stored",
            remedy="export the file again",
        )
    if whole_number(dataset, "PixelRepresentation", path, default=0) not in (0, 1):
        raise InputError(path, found="unknown PixelRepresentation", expected="0 or 1", remedy="export the file again")
    if header.transfer_syntax in NATIVE_SYNTAXES - {DeflatedExplicitVRLittleEndian}:
        needed = frames * int(dataset.Rows) * int(dataset.Columns) * allocated // 8
        _check_length(path, path.stat().st_size, needed)


def read_hu(planes: Sequence[Plane]) -> tuple[list[npt.NDArray[np.int16]], Dataset]:
    """Read the HU of planes of one file, all with the same header.

    Args:
        planes: Planes of the same file, in any order.

    Returns:
        For each plane, HU int16 ``[Y, X]``: slope x stored + intercept, rounded once; padding is air. And what the
        file says of patient and study, so that it need not be opened again for DICOM objects over it.

    Raises:
        InputError: The pixels are missing, too few, damaged, or of a coding that is not supported.
    """
    header = planes[0].header
    try:
        dataset = _read_dataset(header.path)
        frames = _stored_frames(header, dataset, [plane.frame_number or 1 for plane in planes])
        for tag in PIXEL_TAGS:
            dataset.pop(tag, None)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(header.path, found="damaged pixel data", remedy="copy or export the file again") from error
    pictures = []
    for plane, (cells, stored) in zip(planes, frames, strict=True):
        _check_sign(stored, header.dataset, header.path)
        hu = hu_from_stored(stored, plane.rescale_slope, plane.rescale_intercept)
        padding = _padding_mask(cells, header.dataset, plane.name)
        if padding is not None:
            hu[padding] = AIR_HU
        pictures.append(hu)
    return pictures, dataset


def _read_dataset(path: Path) -> Dataset:
    overlays = [(group, 0x0102) for group in OVERLAY_GROUPS]
    tags: list[Any] = ["SpecificCharacterSet", *NEEDED_OF_PATIENT, *KEPT_OF_PATIENT, *PIXEL_TAGS, *overlays]
    return pydicom.dcmread(path, force=True, specific_tags=tags)


def _stored_frames(header: Header, dataset: Dataset, numbers: Sequence[int]) -> list[tuple[IntArray, IntArray]]:
    """Return, for each 1-based frame, its cells as they are and the stored values in them."""
    path = header.path
    if "PixelData" not in dataset:
        kind = "pixels in floating point" if any(tag in dataset for tag in PIXEL_TAGS) else "no pixel data"
        raise InputError(path, found=kind, expected="integer pixel data", remedy="export the file again")
    data = dataset["PixelData"].value
    if not isinstance(data, bytes) or not data:
        raise InputError(path, found="empty pixel data", expected="an image", remedy="export the file again")
    if header.transfer_syntax in NATIVE_SYNTAXES:
        cells = _native_cells(header, data)
        values = [_stored_values(cells[number - 1], header.dataset, _has_overlay(dataset), path) for number in numbers]
        return [(cells[number - 1], value) for number, value in zip(numbers, values, strict=True)]
    count = whole_number(header.dataset, "NumberOfFrames", path, default=1)
    streams = list(generate_frames(data, number_of_frames=count))
    if len(streams) < count:
        raise InputError(path, found=f"{len(streams)} of {count} frames", remedy="copy or export the file again")
    decoded = [
        decode_frame(streams[number - 1], header.dataset, header.transfer_syntax, str(path)) for number in numbers
    ]
    return [(frame, frame) for frame in decoded]


def _check_length(path: Path, length: int, needed: int) -> None:
    if length < needed:
        raise InputError(
            path,
            found=f"pixel data shorter than declared ({length} of {needed} bytes)",
            expected="a whole file",
            remedy="copy or export it again",
        )


def _native_cells(header: Header, data: bytes) -> IntArray:
    """View native pixel data as cells ``[frame, Y, X]`` of the declared width and sign."""
    dataset, path = header.dataset, header.path
    frames = whole_number(dataset, "NumberOfFrames", path, default=1)
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    needed = frames * rows * columns * bits // 8
    _check_length(path, len(data), needed)
    if len(data) - needed >= max(needed // frames // 2, 2):
        raise InputError(
            path,
            found=f"pixel data longer than declared ({len(data)} for {needed} bytes)",
            expected="as many frames, rows, columns and bits as it holds",
            remedy="export the file again",
        )
    kind = np.dtype(f"{'<' if header.little_endian else '>'}u{bits // 8}")
    cells = np.frombuffer(data, dtype=kind, count=needed * 8 // bits).astype(kind.newbyteorder("="), copy=False)
    return cells.reshape(frames, rows, columns)


def _check_sign(stored: IntArray, dataset: Dataset, path: Path) -> None:
    """Refuse values whose sign matters in a file that does not state it."""
    bits = whole_number(dataset, "BitsStored", path, default=int(dataset.BitsAllocated))
    if text_of(dataset, "PixelRepresentation") == "" and stored.max(initial=0) >= 1 << (bits - 1):
        raise InputError(path, found="no PixelRepresentation", expected="0 or 1", remedy="export the file again")


def _has_overlay(dataset: Dataset) -> bool:
    """Tell whether overlays may lie in the unused bits of the cells (PS3.3 C.9.2, retired)."""
    return any(int(dataset[group, 0x0102].value or 0) for group in OVERLAY_GROUPS if (group, 0x0102) in dataset)


def _stored_values(cells: IntArray, header: Dataset, overlay: bool, where: str | Path) -> IntArray:
    """Take the stored bits out of unsigned cells, with their sign.

    Raises:
        InputError: Bits are set above those stored and no overlay explains them.
    """
    allocated = cells.dtype.itemsize * 8
    stored = whole_number(header, "BitsStored", where, default=allocated)
    high = whole_number(header, "HighBit", where, default=stored - 1)
    signed = whole_number(header, "PixelRepresentation", where, default=0) == 1
    unused = allocated - 1 - high
    left: IntArray = cells << unused
    values: IntArray = (left.view(left.dtype.str.replace("u", "i")) if signed else left) >> (allocated - stored)
    if unused and not overlay:
        above = cells >> (high + 1)
        full = (1 << unused) - 1
        padding = _padding_mask(cells, header, str(where))
        strange = (above != 0) & ~((above == full) & (values < 0)) if signed else above != 0
        if padding is not None:
            strange &= ~padding
        if strange.any():
            raise InputError(
                where,
                found=f"values that need more than the {stored} bits stored",
                expected="BitsStored and PixelRepresentation that fit the pixels",
                remedy="export the file again",
            )
    return values


def _padding_mask(cells: IntArray, dataset: Dataset, where: str) -> npt.NDArray[np.bool_] | None:
    """Mark the cells that are padding (PS3.3 C.7.5.1.1.2): outside the field of view; None where there are none.

    Values are compared modulo the cell width, since writers disagree on the sign of PixelPaddingValue.
    """
    limits = [text_of(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not limits[0]:
        return None
    bits = cells.dtype.itemsize * 8
    signed = str(dataset.get("PixelRepresentation") or 0) == "1"
    try:
        numbers = [_wrap(int(text), bits, signed) for text in limits if text]
    except ValueError as error:
        raise InputError(where, found="PixelPaddingValue is not an integer", remedy="correct or remove it") from error
    name = cells.dtype.str
    values = cells.view(name.replace("u", "i") if signed else name.replace("i", "u"))
    mask: npt.NDArray[np.bool_] = (values >= min(numbers)) & (values <= max(numbers))
    return mask if mask.any() else None


def _wrap(value: int, bits: int, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def decode_frame(data: bytes, dataset: Dataset, transfer_syntax: str, where: str) -> IntArray:
    """Decode one compressed frame.

    Args:
        data: The code stream.
        dataset: Header of the file, for rows, columns and bits.
        transfer_syntax: Its UID.
        where: What messages call the frame.

    Returns:
        Stored values ``[Y, X]`` of an integer type.

    Raises:
        InputError: The stream is damaged, of another size than the header says, or its coding is not supported.
    """
    size = (int(dataset.Rows), int(dataset.Columns))
    coded = (*size, 1) if transfer_syntax == RLELossless else _coded_size(data)
    if coded != (*size, 1):  # checked first, because a decoder allocates what its stream declares
        found = f"of {coded[0]} x {coded[1]} with {coded[2]} components" if coded else "of unknown coding"
        raise InputError(
            where,
            found=f"compressed frame {found}",
            expected=f"{size[0]} x {size[1]} with 1, as its header says",
            remedy="export the file again",
        )
    if transfer_syntax != RLELossless and not data.rstrip(b"\0").endswith(END_OF_IMAGE):
        raise InputError(
            where, found="a compressed frame without its end", expected="a whole file", remedy="copy or export it again"
        )
    try:
        if transfer_syntax == RLELossless:
            return _stored_values(_decode_rle(data, dataset), dataset, True, where)
        cells = _DECODERS[transfer_syntax](data)
    except (*READ_ERRORS, KeyError, RuntimeError) as error:
        raise InputError(
            where,
            found=f"pixels that cannot be decoded ({UID(transfer_syntax).name})",
            expected="a whole file of a supported coding",
            remedy="export it again, uncompressed or as JPEG Lossless",
        ) from error
    if cells.shape != size or cells.dtype.kind not in "iu":
        raise InputError(where, found=f"decoded to {cells.shape}", expected=f"{size}", remedy="export the file again")
    # The sign of a stream is that of its bits, whatever the decoder makes of them: JPEG has none, JPEG 2000 its own.
    narrow = cells.astype(f"u{int(dataset.BitsAllocated) // 8}")
    if narrow.itemsize < cells.itemsize and (narrow != cells).any():
        found, expected = f"values of up to {cells.max()}", f"{dataset.BitsAllocated} bits, as its header says"
        raise InputError(where, found=found, expected=expected, remedy="export the file again")
    return _stored_values(narrow, dataset, True, where)


def _decode_rle(data: bytes, dataset: Dataset) -> IntArray:
    described: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsAllocated),
        "pixel_representation": 0,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    return get_decoder(RLELossless).as_array(encapsulate([data], has_bot=False), **described)[0]


def _coded_size(data: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and components from the head of a JPEG, JPEG-LS or JPEG 2000 stream; None where unknown."""
    if data.startswith(JP2_START):
        data = data[max(data.find(JPEG_2000_START), 0) :]
    try:
        if data.startswith(JPEG_2000_START):
            right, bottom, left, top = struct.unpack_from(">4I", data, 8)
            return bottom - top, right - left, struct.unpack_from(">H", data, 40)[0]
        if data.startswith(JPEG_START):
            return _jpeg_size(data)
    except struct.error:
        return None
    return None


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    offset = 2
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            return None
        marker = data[offset + 1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker in JPEG_FRAME_HEADERS:
            rows, columns, components = struct.unpack_from(">HHB", data, offset + 5)
            return rows, columns, components
        offset += 2 + int(struct.unpack_from(">H", data, offset + 2)[0])
    return None
