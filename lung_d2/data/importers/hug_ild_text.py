"""Regions of interest as text files, in the format of the HUG-ILD database.

::

    SpacingX: 0.78                 mm per pixel
    SpacingY: 0.78
    label: ground_glass            holds until the next one
    slice_number: 4                from 1; holds until the next one
    nb_points_on_contour: 57       that many lines "x y" follow
    123.4 210.9                    mm from the upper left corner of the picture

Lines with other keys are skipped. The keys are those of the readers published with the database (A. Depeursinge,
medGIFT); as there, their order and case do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.errors import DatasetError

MAX_BYTES = 2**26
"""Longest file that is read: 64 MiB are two million points."""
LEAST_POINTS = 3
"""Contours of fewer points have no area."""

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
        contours: Those with an area, in the order of the file; may be empty.
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
        path: A text file, with any line ends; its numbers may have decimal commas.

    Returns:
        What it holds; None if no line has one of the keys, so that it is a text about something else.

    Raises:
        DatasetError: It cannot be read, a number is malformed, or a contour has more or fewer points than declared.
    """
    values: dict[str, str] = {}
    contours: list[Contour] = []
    skipped = 0
    lines = iter([(number, line) for number, line in enumerate(_read_text(path).splitlines(), 1) if line.strip()])
    for number, line in lines:
        where = f"{path} line {number}"
        key, colon, value = (part.strip() for part in line.partition(":"))
        key = key.casefold()
        if not colon and "nb_points_on_contour" in values and all(map(_NUMBER.fullmatch, line.split())):
            raise _wrong(where, "a point beyond the number that its contour declares")
        if not colon or key not in _KEYS:
            continue
        values[key] = value
        if key == "slice_number":
            _slice_number(values, where)
        if key != "nb_points_on_contour":
            continue
        if not _WHOLE.fullmatch(value):
            raise _wrong(where, "a malformed number of points", "a whole number")
        points = [
            _read_point(next(lines, (number, "")), path, f"{index} of the {value} that line {number}")
            for index in range(1, int(value) + 1)
        ]
        if len(points) < LEAST_POINTS:
            skipped += 1
            continue
        if not values.get("label"):
            raise _wrong(where, "a contour without a label", "a line 'label: ...' before it")
        contours.append(Contour(values["label"], _slice_number(values, where), np.array(points), number))
    spacing = (_spacing(values, "spacingy", path), _spacing(values, "spacingx", path)) if contours else (1.0, 1.0)
    return RoiText(path, spacing, tuple(contours), skipped) if values else None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(path, found="cannot be opened", remedy="check its permissions") from error
    if len(data) > MAX_BYTES:
        raise DatasetError(path, found="more than 64 MiB", expected="a text file of regions", remedy="remove it")
    return data.decode("utf-8-sig", "replace")


def _read_point(numbered: tuple[int, str], path: Path, which: str) -> tuple[float, float]:
    number, line = numbered
    words = line.split()
    if len(words) != 2 or not all(map(_NUMBER.fullmatch, words)):
        raise _wrong(f"{path} line {number}", f"no point {which} declares", "two numbers, x and y in mm")
    return _parse_number(words[0]), _parse_number(words[1])


def _slice_number(values: Mapping[str, str], where: str) -> int:
    value = values.get("slice_number")
    if value is None:
        raise _wrong(where, "a contour without a slice", "a line 'slice_number: ...' before it")
    if not _WHOLE.fullmatch(value) or int(value) < 1:
        raise _wrong(where, "a malformed slice number", "a whole number from 1")
    return int(value)


def _spacing(values: Mapping[str, str], key: str, path: Path) -> float:
    value = values.get(key, "")
    spacing = _parse_number(value) if _NUMBER.fullmatch(value) else 0.0
    if not 0 < spacing < np.inf:
        expected = "SpacingX and SpacingY in mm, which its coordinates are divided by"
        raise DatasetError(path, found=f"no {key} above 0", expected=expected, remedy="export or copy it again")
    return spacing


def _parse_number(word: str) -> float:
    return float(word.replace(",", "."))


def _wrong(where: str, found: str, expected: str = "") -> DatasetError:
    return DatasetError(where, found=found, expected=expected, remedy="copy the file again, or correct the line")
