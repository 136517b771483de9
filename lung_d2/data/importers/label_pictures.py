"""Pictures whose levels are labels, not brightness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lung_d2.data.planes import is_jpeg, read_picture
from lung_d2.errors import DatasetError, InputError

JPEG_INSIDE = 127
"""JPEG blurs masks: what is above this is inside."""
_WHAT = "labels: an 8-bit, 16-bit or indexed picture"
_COLOURS = {"RGB", "RGBA", "LA"}
_GREYS = {"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N"}


def read_labels(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    """Read a label picture.

    The labels of an indexed picture are the indices of its colours; where all of these are greys, as programs write
    that make files smaller, they are the greys.

    Args:
        path: PNG, BMP or TIFF of 8 or 16 bits, or indexed.
        shape: ``(H, W)`` of its picture.

    Returns:
        Labels ``(H, W)``.

    Raises:
        DatasetError: It is JPEG, which blurs labels, or of another size.
        InputError: It is missing, broken, or has colours and no index.
    """
    if is_jpeg(path):
        raise DatasetError(path, found="labels as JPEG, which blurs them", expected="PNG", remedy="write it as PNG")
    try:
        with Image.open(path) as picture:
            values = _values(picture, path)
    except FileNotFoundError as error:
        raise InputError(path, found="no such file", expected=_WHAT, remedy="check the path") from error
    except PermissionError as error:
        raise InputError(path, found="cannot be opened", expected=_WHAT, remedy="check its permissions") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, on damaged bytes
        raise InputError(path, found="not a readable picture", expected=_WHAT, remedy="write it again") from error
    _check_shape(path, values.shape, shape)
    return values


def read_mask(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    """Read the mask of a category: 0 outside, any other label inside; of JPEG, what is above 127.

    Returns:
        Labels ``(H, W)``.

    Raises:
        DatasetError: It is of another size, or JPEG of low levels.
        InputError: It is missing, broken, or has colours and no index.
    """
    if not is_jpeg(path):
        return read_labels(path, shape)
    values = read_picture(path, expected="an 8-bit mask in grey levels")
    _check_shape(path, values.shape, shape)
    if 0 < values.max() <= JPEG_INSIDE:
        raise DatasetError(
            path,
            found=f"a JPEG mask of levels up to {values.max()}",
            expected="0 and 255: JPEG blurs labels away",
            remedy="write it as PNG",
        )
    return (values > JPEG_INSIDE).astype(np.uint8)


def _values(picture: Image.Image, path: Path) -> npt.NDArray[np.integer[Any]]:
    if picture.mode == "P":
        colors = np.array(picture.getpalette("RGB")).reshape(-1, 3)
        indices = np.asarray(picture)
        if (colors == colors[:, :1]).all():
            return np.asarray(picture.convert("L"))
        return indices
    if picture.mode in _GREYS:
        return np.asarray(picture).astype(np.uint8 if picture.mode in ("1", "L") else np.int32)
    if picture.mode in _COLOURS:
        colors = np.asarray(picture)
        colors = colors[..., :1] if picture.mode == "LA" else colors[..., :3]
        if (colors == colors[..., :1]).all():
            return np.ascontiguousarray(colors[..., 0])
        raise InputError(path, found="a colour picture", expected=_WHAT, remedy="give the labels, or an indexed PNG")
    raise InputError(path, found=f"a picture of mode {picture.mode}", expected=_WHAT, remedy="convert it")


def _check_shape(path: Path, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != tuple(shape):
        raise DatasetError(
            path,
            found=f"size {found}",
            expected=f"{tuple(shape)} (rows, columns), its slice's",
            remedy="give the mask of this slice, in its size",
        )
