"""Fingerprints of slices and thumbnails of series, by which copies, mirrored copies and turned series are found.

The fingerprint is the signs of the 48 x 48 lowest cosine coefficients of the slice at 96 x 96 pixels. Signs do not
change when a slice is resized, windowed, brightened or compressed; and as mirroring flips the sign of every odd
coefficient, the distance to a mirrored slice follows without hashing it. ImageHash's ``phash`` compares with the median
instead, which mirroring changes, and does not take HU.

A flipped volume still looks like a chest; only the other series reveal it. The mean thumbnails of the series are
compared in the eight ways in which a square can be laid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError

Thumbnail = npt.NDArray[Any]

# Each second one is the one before it, mirrored left to right.
_TURNS: dict[str, Callable[[Thumbnail], Thumbnail]] = {
    "as it is": lambda image: image,
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "turned by 180 degrees": lambda image: np.rot90(image, 2),
    "transposed": np.transpose,
    "turned by 270 degrees": lambda image: np.rot90(image, 3),
    "transposed and turned by 180 degrees": lambda image: np.rot90(image, 2).T,
    "turned by 90 degrees": lambda image: np.rot90(image, 1),
}
_TURN_NAMES = tuple(_TURNS)
_ROUNDS = 5  # of aligning all to their mean; two or three settle
_MOST_PAIRED = 256  # series that the first reference is chosen from
_LEAST_SERIES = 3
# Measured on 15 volumes of a public set, 7 of them mirrored: those gained 0.035 to 0.31 when mirrored back, the
# others lost 0.17 or more.
_LEAST_GAIN = 0.02
# A chest is nearly the same mirrored left to right: what differs (heart, liver) is judged alone, and among enough
# others. Of 18 patients, none came below +0.1.
_LEAST_SERIES_FOR_SIDES = 6
_MOST_LIKENESS_OF_SIDES = -0.25


@dataclass(frozen=True)
class Turned:
    """A series that looks more like the others when it is laid otherwise.

    Attributes:
        series: Its id.
        turn: What makes it like the others, e.g. ``"mirrored top to bottom"``.
    """

    series: str
    turn: str


def find_turned(thumbnails: Mapping[str, Thumbnail]) -> list[Turned]:
    """Find the series that lie otherwise than most.

    Args:
        thumbnails: Mean thumbnail of each series, all square and of one size.

    Returns:
        The series that a turn brings clearly nearer to the mean of the others. None of fewer than three series, where
        there is no most; none mirrored left to right of fewer than six.
    """
    if len(thumbnails) < _LEAST_SERIES:
        return []
    turned = np.array([[_normalise(turn(image)) for turn in _TURNS.values()] for image in thumbnails.values()])
    aligned = turned[np.arange(len(turned)), _align(turned)]
    others = aligned.sum(axis=0) - aligned
    scores = np.einsum("stp,sp->st", turned, others) / np.maximum(np.linalg.norm(others, axis=1), 1e-9)[:, None]
    found = []
    for series, score, image, mean in zip(thumbnails, scores, turned, others, strict=True):
        best = int(score.argmax())
        if best > 1 and score[best] - score[:2].max() >= _LEAST_GAIN:
            found.append(Turned(series, _TURN_NAMES[best]))
        elif len(thumbnails) >= _LEAST_SERIES_FOR_SIDES and _likeness_of_sides(image, mean) <= _MOST_LIKENESS_OF_SIDES:
            found.append(Turned(series, _TURN_NAMES[1]))
    return found


def _normalise(image: Thumbnail) -> npt.NDArray[np.float64]:
    """Return the image as a vector of mean 0 and length 1, whose products are correlations; 0 where it is flat."""
    centred = np.ravel(image).astype(np.float64) - np.mean(image)
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else centred


def _align(turned: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the turn of each series that makes all alike and leaves most as they are.

    Args:
        turned: ``(series, 8, pixels)``, each series in all turns.
    """
    sample = turned[:_MOST_PAIRED]
    likeness = np.einsum("stp,up->ust", sample, sample[:, 0]).max(axis=2)
    pose = _settle(turned, sample[likeness.sum(axis=1).argmax(), 0])
    # The first reference may be one that lies otherwise itself: what most do is as it should be.
    groups = pose // 2
    most = groups == np.bincount(groups).argmax()
    return _settle(turned, turned[most, 0].sum(axis=0))


def _settle(turned: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    for _ in range(_ROUNDS):
        pose = (turned @ reference).argmax(axis=1)
        reference = turned[np.arange(len(turned)), pose].sum(axis=0)
    return pose


def _likeness_of_sides(turned: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> float:
    """Correlate what differs between left and right, in a series ``(8, pixels)`` as it is and in a mean ``(pixels,)``.

    Returns:
        1 where the same side is denser everywhere, -1 where it is the other, 0 where either is symmetric.
    """
    side = round(mean.size**0.5)
    ours = turned[0] - turned[1]
    theirs = mean - np.fliplr(mean.reshape(side, side)).ravel()
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / lengths if lengths > 0 else 0.0


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
    # Most coefficients of a plain symmetric shape, such as the circle of the field of view, are 0 and have no sign.
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
