"""Regions of interest in text, as the HUG-ILD database has them.

::

    SpacingX: 0.78                 mm per pixel
    SpacingY: 0.78
    label: ground_glass            holds until the next one
    slice_number: 4                from 1; holds until the next one
    nb_points_on_contour: 57       that many lines "x y" follow
    123.4 210.9                    mm from the upper left corner of the picture

Lines with other keys are passed over. The keys are those that the readers published with the database (A. Depeursinge,
medGIFT) look for; like them, this one goes by no order of the keys and no case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError

MAX_BYTES = 2**26
"""Longest file that is read: 64 MiB are two million points."""
LEAST_POINTS = 3
"""Contours of fewer points have no area: they mark nothing."""

_KEYS = frozenset({"spacingx", "spacingy", "label", "slice_number", "nb_points_on_contour"})
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d{1,3})?")
_WHOLE = re.compile(r"\d{1,9}")


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed contour.

    Attributes:
        label: The tissue inside, as the file spells it.
        slice_number: From 1.
        points_mm: float64 ``(N, 2)``, x and y from the upper left corner of the picture.
        line: Where the file says how many points it has.
    """

    label: str
    slice_number: int
    points_mm: npt.NDArray[np.float64] = field(repr=False)
    line: int


@dataclass(frozen=True, eq=False)
class RoiText:
    """What one file holds.

    Attributes:
        path: The file.
        spacing_mm: Of rows and of columns, ``SpacingY`` and ``SpacingX``.
        contours: Those with an area, in the order of the file; none where it marks nothing.
        skipped: Contours of fewer than 3 points.
    """

    path: Path
    spacing_mm: tuple[float, float]
    contours: tuple[Contour, ...]
    skipped: int

    def place(self, contour: Contour) -> str:
        """Return what messages call a contour."""
        return f"{self.path} line {contour.line}"


def read_roi_text(path: Path) -> RoiText | None:
    """Read the contours of a file.

    Args:
        path: A text file; its lines may end as on any system, its numbers may have decimal commas.

    Returns:
        What it holds; None where no line has one of the keys, so that it is about something else.

    Raises:
        DatasetError: It cannot be read, its numbers are none, or a contour has more or fewer points than it says.
    """
    parser = _Parser(path)
    lines = enumerate(_text_of(path).splitlines(), 1)
    for number, line in lines:
        if line.strip():
            parser.take(number, line, lines)
    return parser.result()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(path, found="cannot be opened", remedy="check its permissions") from error
    if len(data) > MAX_BYTES:
        raise DatasetError(path, found="more than 64 MiB", expected="a text file of regions", remedy="remove it")
    return data.decode("utf-8-sig", "replace")


class _Parser:
    """Collects what the lines of one file say."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, str] = {}
        self._contours: list[Contour] = []
        self._skipped = 0

    def take(self, number: int, line: str, lines: Iterator[tuple[int, str]]) -> None:
        """Take one line, and from ``lines`` the points that it announces."""
        key, colon, value = line.partition(":")
        key, value = key.strip().casefold(), value.strip()
        if not colon:
            if "nb_points_on_contour" in self._values and all(map(_NUMBER.fullmatch, line.split())):
                raise self._wrong(number, "a point beyond the number that its contour declares")
        elif key in _KEYS:
            self._values[key] = value
            if key == "nb_points_on_contour":
                self._add_contour(number, lines)
            elif key == "slice_number":
                self._slice_number(number)

    def result(self) -> RoiText | None:
        """Return what was collected."""
        if not self._values:
            return None
        spacing = (self._spacing("spacingy"), self._spacing("spacingx")) if self._contours else (1.0, 1.0)
        return RoiText(self._path, spacing, tuple(self._contours), self._skipped)

    def _add_contour(self, number: int, lines: Iterator[tuple[int, str]]) -> None:
        declared = self._values["nb_points_on_contour"]
        if not _WHOLE.fullmatch(declared):
            raise self._wrong(number, "a number of points that is none", "a whole number")
        count = int(declared)
        points = [self._read_point(lines, number, index, count) for index in range(count)]
        if count < LEAST_POINTS:
            self._skipped += 1
            return
        label = self._values.get("label")
        if not label:
            raise self._wrong(number, "a contour without a label", "a line 'label: ...' before it")
        self._contours.append(Contour(label, self._slice_number(number), np.array(points), number))

    def _read_point(self, lines: Iterator[tuple[int, str]], start: int, index: int, count: int) -> tuple[float, float]:
        where, line = next(((where, line) for where, line in lines if line.strip()), (start, ""))
        words = line.split()
        if len(words) != 2 or not all(map(_NUMBER.fullmatch, words)):
            finding = f"no point {index + 1} of the {count} that line {start} declares"
            raise self._wrong(where, finding, "two numbers, x and y in mm")
        x, y = (float(word.replace(",", ".")) for word in words)
        return x, y

    def _slice_number(self, number: int) -> int:
        value = self._values.get("slice_number")
        if value is None:
            raise self._wrong(number, "a contour without a slice", "a line 'slice_number: ...' before it")
        if not _WHOLE.fullmatch(value) or int(value) < 1:
            raise self._wrong(number, "a slice number that is none", "a whole number from 1")
        return int(value)

    def _spacing(self, key: str) -> float:
        value = self._values.get(key, "")
        spacing = float(value.replace(",", ".")) if _NUMBER.fullmatch(value) else 0.0
        if not 0 < spacing < np.inf:
            raise DatasetError(
                self._path,
                found=f"no {key} above 0",
                expected="SpacingX and SpacingY in mm, which its coordinates are divided by",
                remedy="export or copy it again",
            )
        return spacing

    def _wrong(self, number: int, finding: str, expected: str = "") -> DatasetError:
        where = f"{self._path} line {number}"
        return DatasetError(where, found=finding, expected=expected, remedy="copy the file again, or correct the line")
