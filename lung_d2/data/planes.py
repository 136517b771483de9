"""Slices on disk: lossless PNG, 16 bits for HU, 8 bits where the source has no HU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError, InputError, LungD2Error

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Suffixes of the pictures that users may give."""
_JPEG = frozenset({".jpg", ".jpeg"})
# PNG holds unsigned numbers only: a stored value is HU + 32768, so that every int16 has its place.
HU_OFFSET = 32768


def write_plane(plane: npt.NDArray[np.generic], path: Path) -> None:
    """Write one slice as PNG.

    Args:
        plane: ``(H, W)``, int16 in HU (16-bit PNG of HU + 32768) or uint8 grey (8-bit PNG).
        path: Ends in ``.png``.
    """
    is_grey = plane.dtype == np.uint8
    stored: npt.NDArray[Any] = plane if is_grey else (plane.astype(np.int32) + HU_OFFSET).astype(np.uint16)
    if not cv2.imwrite(str(path), np.asarray(stored, stored.dtype)):
        raise DatasetError(path, found="cannot be written", remedy="check the disk space and the permissions")


def read_plane(path: str | Path) -> npt.NDArray[np.generic]:
    """Read one slice that :func:`write_plane` wrote.

    Returns:
        ``(H, W)``, int16 in HU from 16-bit PNG, uint8 from 8-bit.

    Raises:
        DatasetError: The file is missing, broken, or has colours that differ.
    """
    try:
        stored = _read_grey(Path(path))
    except _UnreadableError as error:
        raise DatasetError(path, found=error.found, expected="a slice", remedy="prepare the data set again") from error
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype == np.uint16:
        return (stored.astype(np.int32) - HU_OFFSET).astype(np.int16)
    raise DatasetError(path, found=f"pixels of {stored.dtype}", expected="8 or 16 bits", remedy="prepare it again")


def read_picture(path: str | Path, expected: str = "8-bit grey levels of a CT slice") -> npt.NDArray[np.uint8]:
    """Read a picture that a user gives.

    Args:
        path: PNG, JPEG, BMP or TIFF.
        expected: What messages say that it should be.

    Returns:
        uint8 ``(H, W)``.

    Raises:
        InputError: The file is missing, broken, has colours that differ, or other than 8 bits.
    """
    try:
        data = _read_bytes(Path(path))
    except _UnreadableError as error:
        raise InputError(path, found=error.found, expected=expected, remedy=error.remedy) from error
    return decode_picture(data, path, expected)


def decode_picture(
    data: bytes, where: str | Path, expected: str = "8-bit grey levels of a CT slice"
) -> npt.NDArray[np.uint8]:
    """Decode a picture that a user gives inside another file.

    Args:
        data: Bytes of a PNG, JPEG, BMP or TIFF.
        where: What messages call it.
        expected: What messages say that it should be.

    Returns:
        uint8 ``(H, W)``.

    Raises:
        InputError: It is broken, has colours that differ, or other than 8 bits.
    """
    try:
        stored = _decode_grey(data, where)
    except _UnreadableError as error:
        raise InputError(where, found=error.found, expected=expected, remedy=error.remedy) from error
    if stored.dtype != np.uint8:
        bits = "16-bit pixels" if stored.dtype == np.uint16 else f"pixels of {stored.dtype}"
        raise InputError(where, found=bits, expected=expected, remedy="convert it; CT in HU is given as DICOM or NIfTI")
    return np.asarray(stored, np.uint8)


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures that lie in a folder, by name; hidden files do not count."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")
    )


def is_jpeg(path: Path) -> bool:
    """Tell a JPEG, whose pixels are not quite what was written, by its suffix."""
    return path.suffix.lower() in _JPEG


class _UnreadableError(LungD2Error):
    """A picture that cannot be read; whose it is decides what the user is told."""


def _read_grey(path: Path) -> npt.NDArray[Any]:
    return _decode_grey(_read_bytes(path), path)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise _UnreadableError(path, found="no such file", remedy="check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _UnreadableError(path, found="cannot be opened", remedy="check its permissions") from error


def _decode_grey(data: bytes, where: str | Path) -> npt.NDArray[Any]:
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if stored is None or _is_truncated_jpeg(data):
        raise _UnreadableError(where, found="not a readable picture", remedy="write it again")
    return _drop_equal_channels(stored, where) if stored.ndim == 3 else stored


def _is_truncated_jpeg(data: bytes) -> bool:
    # OpenCV fills the rest of a JPEG that breaks off with grey; of PNG it reads the whole or nothing.
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-4096:]


def _drop_equal_channels(stored: npt.NDArray[Any], where: str | Path) -> npt.NDArray[Any]:
    colors = stored[..., :3]
    if not (np.array_equal(colors[..., 0], colors[..., 1]) and np.array_equal(colors[..., 0], colors[..., 2])):
        raise _UnreadableError(where, found="a colour picture", remedy="give it in grey")
    return np.ascontiguousarray(colors[..., 0])
