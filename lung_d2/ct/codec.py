"""Compressed frames to stored values, by SimpleITK.

A frame is handed over in a new file that holds its pixel module and nothing else. So SimpleITK has no rescale to apply
(it would apply one intercept to all frames), no broken tags to stumble over and no patient to name.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless, SecondaryCaptureImageStorage, generate_uid

from lung_d2.ct.headers import READ_ERRORS
from lung_d2.errors import InputError

_itk: Any = SimpleITK  # It has no types.

IntArray = npt.NDArray[Any]
"""Integers of whatever width the file has."""

DAMAGE, STDERR = b"Corrupt JPEG data", 2
_stderr_lock = threading.Lock()

JPEG_START, JPEG_2000_START, JP2_START = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP"
END_OF_IMAGE = b"\xff\xd9"
"""Last marker of JPEG, JPEG-LS and JPEG 2000 streams alike."""
JPEG_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that open a JPEG or JPEG-LS frame (ITU-T T.81 table B.1, T.87)."""


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep the warnings of ITK from the terminal; what matters in them is checked here."""
    shown = _itk.ProcessObject.GetGlobalWarningDisplay()
    _itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        _itk.ProcessObject.SetGlobalWarningDisplay(shown)


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
    coded = None if transfer_syntax == RLELossless else _coded_size(data)
    if coded is not None and coded != (*size, 1):
        raise InputError(
            where,
            found=f"compressed frame of {coded[0]} x {coded[1]} with {coded[2]} components",
            expected=f"{size[0]} x {size[1]} with 1, as its header says",
            remedy="export the file again",
        )
    if coded is not None and not data.rstrip(b"\0").endswith(END_OF_IMAGE):
        raise InputError(
            where, found="a compressed frame without its end", expected="a whole file", remedy="copy or export it again"
        )
    with tempfile.TemporaryDirectory(prefix="lung_d2_") as folder:
        path = Path(folder, "frame.dcm")
        try:
            frame = _frame_dataset(data, dataset, transfer_syntax)
            frame.save_as(path, enforce_file_format=True)
            with stderr_in(Path(folder, "stderr")) as said:
                stored = _read_frame(path, frame)
            if DAMAGE in said.read_bytes():
                raise RuntimeError("the decoder guessed at pixels of a damaged stream")
        except (*READ_ERRORS, RuntimeError) as error:
            raise InputError(
                where,
                found=f"pixels that cannot be decoded ({UID(transfer_syntax).name})",
                expected="a whole file of a supported coding",
                remedy="export it again, uncompressed or as JPEG Lossless",
            ) from error
    if stored.shape != size or stored.dtype.kind not in "iu":
        raise InputError(where, found=f"decoded to {stored.shape}", expected=f"{size}", remedy="export the file again")
    return stored


@contextmanager
def stderr_in(path: Path) -> Iterator[Path]:
    """Send file descriptor 2 to a file: libjpeg reports damage there and nowhere else, and decodes on."""
    with _stderr_lock, open(path, "wb") as file:
        try:
            terminal = os.dup(STDERR)
        except OSError:  # A daemon may have closed it.
            yield path
            return
        try:
            os.dup2(file.fileno(), STDERR)
            yield path
        finally:
            os.dup2(terminal, STDERR)
            os.close(terminal)


def _frame_dataset(data: bytes, dataset: Dataset, transfer_syntax: str) -> Dataset:
    frame, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.MediaStorageSOPClassUID = frame.SOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = frame.SOPInstanceUID = generate_uid()
    frame.file_meta = meta
    frame.SamplesPerPixel, frame.PhotometricInterpretation = 1, "MONOCHROME2"
    frame.Rows, frame.Columns = int(dataset.Rows), int(dataset.Columns)
    frame.BitsAllocated = int(dataset.BitsAllocated)
    frame.BitsStored = int(dataset.get("BitsStored") or frame.BitsAllocated)
    frame.HighBit = frame.BitsStored - 1
    frame.PixelRepresentation = int(dataset.get("PixelRepresentation") or 0)
    frame.PixelData = encapsulate([data], has_bot=False)
    frame["PixelData"].VR = "OB"
    frame["PixelData"].is_undefined_length = True
    return frame


def _read_frame(path: Path, frame: Dataset) -> IntArray:
    reader = _itk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        array: IntArray = _itk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        if frame.file_meta.TransferSyntaxUID != RLELossless:
            raise
        # ITK gives up on some small RLE frames; pydicom reads RLE by itself, slowly.
        array = frame.pixel_array
    return array[0] if array.ndim == 3 and array.shape[0] == 1 else array


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
