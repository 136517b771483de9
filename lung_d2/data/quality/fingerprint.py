"""Fingerprints: a perceptual hash of a slice, near for copies and far for other slices, mirrored or not.

The hash is the signs of the 48 x 48 lowest cosine coefficients of the slice at 96 x 96 pixels. Signs stay as they are
when a slice is resized, windowed, brightened or compressed; and as mirroring only turns the sign of every odd
coefficient, the distance to a mirrored slice follows without hashing it. ImageHash's ``phash`` compares with the median
instead, which mirroring changes, and takes no HU.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError

_WINDOW_HU = (-1000.0, 200.0)  # lung and soft tissue: what nearly every window of a chest CT shows
_SIDE, _FREQUENCIES = 96, 48

# Coefficients fall into four groups by whether their vertical and horizontal frequencies are odd, of nine words each.
_GROUPS, _WORD_SIDE = 4, 8
WORDS = _FREQUENCIES**2 // _WORD_SIDE**2
"""Words of 64 bits of a fingerprint."""
FINGERPRINT_BITS = 64 * WORDS
GATE_WORD = 3
"""The word that tells most slices apart among those that no mirroring changes."""

# Which groups change sign in the slice as it is, mirrored left to right, top to bottom, and both ways.
_TURNED = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], bool)

# A slice whose contrast, or whose bright share, is less shows no chest: constant, air, or air and a table.
_LEAST_CONTRAST = 16.0  # grey levels of 255
_LEAST_BRIGHT_SHARE = 0.06

Words = npt.NDArray[np.uint64]


def slice_fingerprint(plane: npt.NDArray[np.generic]) -> str:
    """Hash what a slice shows, so that copies of it have near hashes.

    Args:
        plane: ``(H, W)``, int16 in HU, or uint8 grey.

    Returns:
        2,304 bits as 576 hexadecimal digits; empty for a slice without a chest (constant, or nothing but air).

    Raises:
        DatasetError: The array is none of those.
    """
    if plane.ndim != 2 or plane.size == 0 or plane.dtype not in (np.int16, np.uint8):
        raise DatasetError(
            "slice",
            found=f"{plane.dtype} of shape {plane.shape}",
            expected="int16 HU or uint8 grey of two axes",
            remedy="convert it",
        )
    levels = plane.astype(np.float32)
    if plane.dtype == np.int16:
        low, high = _WINDOW_HU
        levels = (np.clip(levels, low, high) - np.float32(low)) * np.float32(255 / (high - low))
    small = cv2.resize(levels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    coefficients = cv2.dct(small)[:_FREQUENCIES, :_FREQUENCIES]
    return "" if _is_blank(small, coefficients) else _pack_signs(coefficients)


def _is_blank(small: npt.NDArray[Any], coefficients: npt.NDArray[Any]) -> bool:
    low, high = np.percentile(small, (1, 99))
    contrast = high - low
    if contrast < _LEAST_CONTRAST or np.mean(small > (low + high) / 2) < _LEAST_BRIGHT_SHARE:
        return True
    # Most coefficients of a bare symmetric shape, such as the circle of the field of view, are 0 and have no sign.
    return bool(np.mean(np.abs(coefficients) > 0.01 * contrast) < 0.5)


def _pack_signs(coefficients: npt.NDArray[Any]) -> str:
    positive = coefficients > 0
    positive[0, 0] = False  # the mean
    words = _FREQUENCIES // (2 * _WORD_SIDE)
    # A frequency is (word, place in the word, parity), by rows and by columns. Parities go first: they are the groups.
    parts = positive.reshape(words, _WORD_SIDE, 2, words, _WORD_SIDE, 2).transpose(2, 5, 0, 3, 1, 4)
    return np.packbits(parts).tobytes().hex()


def unpack_fingerprint(fingerprint: str) -> bytes:
    """Return the bytes of a fingerprint, which numpy reads as :data:`WORDS` words.

    Raises:
        DatasetError: It is none.
    """
    try:
        code = bytes.fromhex(fingerprint)
    except ValueError:
        code = b""
    if len(code) * 8 != FINGERPRINT_BITS:
        raise DatasetError(
            "fingerprint",
            found=f"{len(fingerprint)} characters",
            expected=f"{FINGERPRINT_BITS // 4} hexadecimal digits",
            remedy="prepare the data set again",
        )
    return code


def fingerprint_distances(
    first: Words, second: Words, *, mirrored: bool = True
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Count the bits in which pairs of fingerprints differ.

    Args:
        first: ``(N, WORDS)``.
        second: ``(N, WORDS)``.
        mirrored: Compare with the second mirrored left to right, top to bottom and both ways, too.

    Returns:
        For each pair the least distance in bits, and whether it is that to a mirrored second.
    """
    kept = np.bitwise_count(first ^ second).reshape(-1, _GROUPS, WORDS // _GROUPS).sum(2, dtype=np.int64)
    turned = FINGERPRINT_BITS // _GROUPS - kept
    every = np.where(_TURNED if mirrored else _TURNED[:1], turned[:, None], kept[:, None]).sum(2)
    return every.min(1), every.argmin(1) > 0
