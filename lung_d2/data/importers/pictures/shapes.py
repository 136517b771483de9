"""Shapes that annotation tools draw on pictures: their place and their masks."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.importers.pictures.picture_cases import Spacing
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label
from lung_d2.errors import ConfigError, DatasetError
from lung_d2.masks import Mask, check_coordinates, check_ring, fill_polygon

_MAX_SPACING_MM = 10.0  # a chest of 512 pixels would be 5 m wide
logger = logging.getLogger(__name__)

CORNER, CENTRE, AUTO = "corner", "centre", "auto"
FIRST_CENTRE = {CORNER: 0.5, CENTRE: 0.0}
"""Where the centre of the first pixel is, in x and in y."""


def add_spacing_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for the pixel spacing, which most pictures do not hold."""
    parser.add_argument(
        "--spacing-mm",
        metavar="ROW,COLUMN",
        help="distance of pixel centres along a column and along a row, or one number for both (default: unknown)",
    )


def parse_spacing(text: str | None) -> Spacing | None:
    """Parse ``--spacing-mm``: ``"0.7"`` or ``"0.7,0.65"`` (row, column).

    Raises:
        ConfigError: It is malformed, not above 0, or too large.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(math.isfinite(value) and 0 < value <= _MAX_SPACING_MM for value in values):
        raise ConfigError(
            f"--spacing-mm {text}", found="not a spacing", expected="mm, as 0.7 or 0.7,0.65", remedy="correct it"
        )
    return values[0], values[-1]


def choose_origin(origin: str, rings: Iterable[Any], where: Path) -> str:
    """Return the pixel origin: the user's choice, or for ``"auto"`` what the contours of a source suggest.

    Contours drawn by hand have fractional coordinates, and contours along pixel borders have no slanted edges: both
    are measured from the picture's corner, as the tools document. Whole numbers throughout, with slanted edges, are
    pixel indices that a script took from a mask, as ``cv2.findContours`` returns them: those are pixel centres.

    Args:
        origin: ``"corner"``, ``"centre"`` or ``"auto"``.
        rings: The points ``(N, 2)`` of every contour, x and y; malformed ones are skipped.
        where: The source, for the log.
    """
    if origin != AUTO:
        return origin
    slanted = False
    for ring in rings:
        try:
            points = np.asarray(ring, np.float64)
        except (TypeError, ValueError, OverflowError):
            continue  # refused with its place when it is filled
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            continue
        if not (points == np.rint(points)).all():
            return CORNER
        slanted = slanted or bool((points != np.roll(points, 1, axis=0)).all(axis=1).any())
    if slanted:
        logger.info("%s: contours through the centres of pixels, as cv2.findContours gives them", where)
    return CENTRE if slanted else CORNER


@dataclass(frozen=True)
class Canvas:
    """A picture on which shapes are drawn.

    Attributes:
        shape: ``(H, W)``.
        origin: ``"corner"``: (0, 0) is the picture's upper left corner; ``"centre"``: the centre of its first pixel.
    """

    shape: tuple[int, int]
    origin: str = CORNER

    def fill(self, points: npt.ArrayLike, where: str | Path) -> Mask:
        """Fill a closed contour; see :func:`lung_d2.masks.fill_polygon`.

        Args:
            points: ``(N, 2)``, x (column) and y (row) in pixels, by the tool's origin.
            where: File and record that messages name.

        Raises:
            DatasetError: It is not a contour, or lies entirely outside the picture.
        """
        try:
            ring = check_ring(points) - FIRST_CENTRE[self.origin]
            mask = fill_polygon(ring, self.shape)
        except DatasetError as error:
            raise error.at(where) from error
        low, high = ring.min(axis=0), ring.max(axis=0)
        height, width = self.shape
        if (high <= -0.5).any() or low[0] >= width - 0.5 or low[1] >= height - 0.5:
            raise self._outside("a polygon", where)
        return mask

    def _outside(self, what: str, where: str | Path) -> DatasetError:
        return DatasetError(
            where,
            found=f"{what} outside the picture",
            expected=f"one inside {self.shape[0]} x {self.shape[1]} pixels (rows x columns)",
            remedy="check that it belongs to this picture",
        )

    def fill_circle(self, centre: npt.ArrayLike, radius: float, where: str | Path) -> Mask:
        """Fill a circle: the pixels whose centres are in it or on it.

        Raises:
            DatasetError: Its radius is not above 0, a number is too large or not finite, or it lies outside.
        """
        x, y = np.asarray(centre, np.float64) - FIRST_CENTRE[self.origin]
        check_coordinates(np.array([x, y, radius]), where)
        if not radius > 0:
            raise DatasetError(where, found="a circle without area", remedy="draw it again")
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        inside: Mask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        if not inside.any() and not (0 <= x < self.shape[1] and 0 <= y < self.shape[0]):
            raise self._outside("a circle", where)
        return inside

    def paste(self, mask: Mask, left: int, top: int, where: str | Path) -> Mask:
        """Paste the mask of a part into the whole picture; what lies outside is cut off.

        Args:
            mask: bool ``(h, w)``.
            left: Column of its first pixel; may be negative.
            top: Row of its first pixel; may be negative.
            where: File and record that messages name.

        Raises:
            DatasetError: Nothing of the part lies in the picture.
        """
        whole = np.zeros(self.shape, bool)
        rows = slice(max(top, 0), max(top + mask.shape[0], 0))
        columns = slice(max(left, 0), max(left + mask.shape[1], 0))
        target = whole[rows, columns]
        if not target.size:
            raise self._outside("a mask", where)
        target |= mask[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
        return whole


def cut_background(regions: Iterable[tuple[str, Region]]) -> list[Region]:
    """Let shapes labelled ``background`` cut holes: labelme and CVAT have no other way to draw a hole as a polygon.

    Args:
        regions: Label and region of each shape, the lowest first. A shape of another label that is mapped to
            background, such as an outline of the lung, cuts nothing.
    """
    result: list[Region] = []
    for label, region in regions:
        if region.meaning is Label.BACKGROUND and label.strip("_ ").lower() == Label.BACKGROUND.value:
            result = [replace(one, mask=one.mask & ~region.mask) for one in result]
        result.append(region)
    return result
