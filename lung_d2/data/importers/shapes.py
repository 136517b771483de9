"""What annotation tools draw on pictures, as masks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.data.importers.pixel_origin import CORNER, FIRST_CENTRE
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError
from lung_d2.masks import Mask, check_coordinates, check_ring, fill_polygon

logger = logging.getLogger(__name__)


def refuse_shape(kind: str, where: str | Path) -> DatasetError:
    """Return the error of a shape that gives no mask."""
    return DatasetError(
        where,
        found=f"a shape of kind {kind!r}",
        expected="an outline or a mask of the lesion",
        remedy="draw it as a polygon or a mask, or give --skip-shapes to leave such shapes out",
    )


def warn_of_skipped(kinds: Counter[str], source: Path) -> None:
    """Say how many shapes of which kinds were left out, if any."""
    if kinds.total():
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        logger.warning("%s: left out shapes that give no mask: %s", source, shown)


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
            DatasetError: It is no contour, or lies outside the picture altogether.
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
            DatasetError: Its radius is not above 0, a number is not finite or too large, or it lies outside.
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
        """Put a mask of a part into the whole picture; what lies outside is cut off.

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
    """Let shapes labelled ``background`` cut holes: labelme and CVAT have no other way to draw one as a polygon.

    Args:
        regions: Label and region of each shape, the lowest first. A shape of another label that is mapped to
            background, as an outline of the lung, cuts nothing.
    """
    result: list[Region] = []
    for label, region in regions:
        if region.meaning is Label.BACKGROUND and label.strip("_ ").lower() == Label.BACKGROUND.value:
            result = [replace(one, mask=one.mask & ~region.mask) for one in result]
        result.append(region)
    return result
