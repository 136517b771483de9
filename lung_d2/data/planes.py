"""Slices on disk: lossless PNG, 16 bits for HU, 8 bits where the source has no HU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError

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
    """Read one slice that :func:`write_plane` wrote, or a grey picture of a user.

    Returns:
        ``(H, W)``, int16 in HU from 16-bit PNG, uint8 from 8-bit.

    Raises:
        DatasetError: The file is missing, broken, or has colours that differ.
    """
    if not Path(path).is_file():
        raise DatasetError(path, found="no such file", remedy="prepare the data set again")
    stored: npt.NDArray[Any] | None = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or _is_truncated_jpeg(Path(path)):
        raise DatasetError(path, found="not a readable picture", expected="a PNG or JPEG", remedy="write it again")
    if stored.ndim == 3:
        stored = _drop_equal_channels(stored, path)
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype == np.uint16:
        return (stored.astype(np.int32) - HU_OFFSET).astype(np.int16)
    raise DatasetError(path, found=f"pixels of {stored.dtype}", expected="8 or 16 bits", remedy="convert it")


def _is_truncated_jpeg(path: Path) -> bool:
    # OpenCV fills the rest of a JPEG that breaks off with grey; of PNG it reads the whole or nothing.
    return path.suffix.lower() in {".jpg", ".jpeg"} and b"\xff\xd9" not in path.read_bytes()[-4096:]


def _drop_equal_channels(stored: npt.NDArray[np.generic], path: str | Path) -> npt.NDArray[np.generic]:
    colors = stored[..., :3]
    if not (np.array_equal(colors[..., 0], colors[..., 1]) and np.array_equal(colors[..., 0], colors[..., 2])):
        raise DatasetError(
            path, found="a colour picture", expected="grey levels of a CT slice", remedy="give it in grey"
        )
    return np.ascontiguousarray(colors[..., 0])
