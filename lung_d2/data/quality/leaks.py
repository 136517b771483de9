"""Leaks: no patient, and no identical or near-identical slice, may be in two splits."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lung_d2.data.quality.fingerprint import (
    FINGERPRINT_BITS,
    GATE_WORD,
    WORDS,
    Words,
    fingerprint_distances,
    unpack_fingerprint,
)
from lung_d2.errors import DatasetError

logger = logging.getLogger(__name__)

MAX_DISTANCE = 360
"""Most bits of 2,304 in which two slices differ and still count as copies.

Measured nearest slices of different patients, as they are and mirrored::

    1,282 slices of 14 patients, 8 bits (Zenodo 3757476)     867     906
    402 slices of 3 patients, HU (COVID-CT-MD)              1015     936
    1,800 slices of 90 phantoms of the preset quick          619     670
    1,280 slices of all 40 phantoms of benchmark             612     656

Of the phantoms' 2.4 million pairs 65 are below 680 and 4 below 620: none is to be expected near 360.

Measured copies, median and largest distance of 450 slices, and what is found::

    JPEG of quality 50, of quality 20                     33 and  67,  55 and 116    all
    noise of 20 HU or 4 grey levels                       14 and  58                 all
    half the size, twice the size                         14 and 109,   4 and  30    all
    8 bits of -1350 to 150 HU, of -1000 to 400 HU         27 and  55,  67 and 164    all
    gamma 0.7, 15 % brighter and 15 grey levels           55 and  98, 175 and 346    all
    8 bits from minimum to maximum, equalised by CLAHE   115 and 352, 240 and 430    all, 96 %
    turned by 1 degree                                   212 and 342                 all
    moved by 1 pixel of 512, by 2                        175 and 230, 345 and 413    all, 75 %
    moved by 1 % of the width, borders cut by 1 %        640 and 709, 528 and 738    none, 5 %
    8 bits of -160 to 240 HU, which blackens the lungs   600 and 783                 none

The next slice of a scan of 1 or 2 mm is 110 to 400 away.
"""

# All pairs are compared by one word of 64 bits, and only those that it does not tell apart by all of them.
_MAX_GATE_DISTANCE = 16
_BLOCK = (64, 4096)  # pairs whose words stay in a core's cache

_PARTNER_BITS = 40
_NOBODY = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Slice:
    """A slice of a split.

    Attributes:
        split: Name of its split.
        patient: Hashed patient.
        name: What messages call it.
        fingerprint: Of :func:`~lung_d2.data.quality.fingerprint.slice_fingerprint`; empty for a slice that is not
            compared.
    """

    split: str
    patient: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Leak:
    """What is in two splits.

    Attributes:
        first: Name of a slice.
        second: Name of a slice of another split.
        distance: Bits of 2,304 in which the two differ; 0 for a patient.
        kind: They are of the same patient, or of different ones and copies of each other.
        splits: Split of the first and of the second.
    """

    first: str
    second: str
    distance: int
    kind: Literal["patient", "copy", "mirrored copy"]
    splits: tuple[str, str]


def check_leaks(slices: Iterable[Slice], *, allow: bool = False, shown: Callable[[str], str] = str) -> list[Leak]:
    """Refuse splits that share a patient or a slice.

    Args:
        slices: All slices of all splits.
        allow: Only warn.
        shown: Says what messages call a slice, by its name.

    Returns:
        What was found and allowed, see :func:`find_leaks`.

    Raises:
        DatasetError: Something was found, and is not allowed.
    """
    leaks = find_leaks(slices)
    if not leaks:
        return []
    error = _leak_error(leaks, shown)
    if not allow:
        raise error
    logger.warning("%s: %s; kept, as allowed", error.where, error.found)
    return leaks


def _leak_error(leaks: list[Leak], shown: Callable[[str], str]) -> DatasetError:
    leak = leaks[0]
    first, second = shown(leak.first), f"{shown(leak.second)} ({leak.splits[1]})"
    what = (
        f"of the same patient as {second}"
        if leak.kind == "patient"
        else f"a {leak.kind} of {second}, which differs in {leak.distance} of {FINGERPRINT_BITS} bits"
    )
    more = f", and {len(leaks) - 1} more such pair(s)" if len(leaks) > 1 else ""
    return DatasetError(
        f"{first} ({leak.splits[0]})",
        found=what + more,
        expected="no patient and no slice in two splits",
        remedy="put both cases into one split or remove one, or give --allow-duplicates",
    )


def find_leaks(slices: Iterable[Slice], *, mirrored: bool = True) -> list[Leak]:
    """Find patients in two splits, and slices of different patients in two splits that are copies of each other.

    Slices are copies where they differ in at most :data:`MAX_DISTANCE` bits. Of the many copies that a slice may have
    in another split, the nearest is named; equal slices of one patient in one split count as one.

    100,000 slices against 20,000 take 10 to 30 s on one core, and about 1 KB of memory a slice.

    Args:
        slices: All slices of all splits, in any order.
        mirrored: Find copies that are mirrored left to right, top to bottom or both ways, too.

    Returns:
        Patients first, then copies, the nearest first.

    Raises:
        DatasetError: A fingerprint is none.
    """
    members, leaks = _group(slices)
    for first, second in itertools.combinations(sorted(members), 2):
        leaks += _find_copies(members[first], members[second], (first, second), mirrored)
    return sorted(leaks, key=lambda leak: (leak.kind != "patient", leak.distance, leak.first, leak.second))


@dataclass(frozen=True)
class _Members:
    """The slices of a split that can be compared: names, numbers of patients ``(N,)``, and ``(N, WORDS)``."""

    names: list[str]
    patients: npt.NDArray[np.int64]
    words: Words


def _group(slices: Iterable[Slice]) -> tuple[dict[str, _Members], list[Leak]]:
    """Group slices by split, and find the patients in two of them."""
    numbers: dict[str, int] = {}
    names: dict[str, dict[tuple[int, bytes], str]] = defaultdict(dict)
    seen: dict[str, dict[str, str]] = defaultdict(dict)  # the first slice of each patient in each split
    for one in slices:
        seen[one.patient].setdefault(one.split, one.name)
        if one.fingerprint:
            number = numbers.setdefault(one.patient, len(numbers))
            names[one.split].setdefault((number, _unpack(one)), one.name)
    members = {
        split: _Members(
            list(of.values()),
            np.array([number for number, _ in of], np.int64),
            np.frombuffer(b"".join(code for _, code in of), np.uint64).reshape(-1, WORDS),
        )
        for split, of in names.items()
    }
    leaks = [
        Leak(of[first], of[second], 0, "patient", (first, second))
        for of in seen.values()
        for first, second in itertools.pairwise(sorted(of))
    ]
    return members, leaks


def _unpack(one: Slice) -> bytes:
    try:
        return unpack_fingerprint(one.fingerprint)
    except DatasetError as error:
        raise error.at(one.name) from error


def _find_copies(first: _Members, second: _Members, splits: tuple[str, str], mirrored: bool) -> list[Leak]:
    """Find the nearest copy of each slice of either split in the other."""
    # For each slice distance, mirrored or not, and partner in one number: the least is the nearest copy.
    of_first, of_second = np.full(len(first.names), _NOBODY), np.full(len(second.names), _NOBODY)
    for rows, columns in _candidates(first, second):
        distance, is_mirrored = fingerprint_distances(first.words[rows], second.words[columns], mirrored=mirrored)
        near = distance <= MAX_DISTANCE
        key = (distance[near] * 2 + is_mirrored[near]) << _PARTNER_BITS
        np.minimum.at(of_first, rows[near], key + columns[near])
        np.minimum.at(of_second, columns[near], key + rows[near])
    pairs = {
        (row, *divmod(key, 1 << _PARTNER_BITS)[::-1]) for row, key in enumerate(of_first.tolist()) if key < _NOBODY
    }
    for column, key in enumerate(of_second.tolist()):
        if key < _NOBODY:
            value, row = divmod(key, 1 << _PARTNER_BITS)
            pairs.add((row, column, value))
    return [
        Leak(first.names[row], second.names[column], value // 2, "mirrored copy" if value % 2 else "copy", splits)
        for row, column, value in pairs
    ]


def _candidates(first: _Members, second: _Members) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yield the pairs of different patients that one word does not tell apart, as numbers in the first and second."""
    rows, columns = np.ascontiguousarray(first.words[:, GATE_WORD]), np.ascontiguousarray(second.words[:, GATE_WORD])
    for top, left in itertools.product(range(0, len(rows), _BLOCK[0]), range(0, len(columns), _BLOCK[1])):
        differing = np.bitwise_count(rows[top : top + _BLOCK[0], None] ^ columns[None, left : left + _BLOCK[1]])
        row, column = np.nonzero(differing <= _MAX_GATE_DISTANCE)
        row, column = row + top, column + left
        differ = first.patients[row] != second.patients[column]
        if differ.any():
            yield row[differ], column[differ]
