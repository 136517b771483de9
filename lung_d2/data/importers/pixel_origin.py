"""What (0, 0) is in the contours of a source: told by the user, or by the contours themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

CORNER, CENTRE, AUTO = "corner", "centre", "auto"
FIRST_CENTRE = {CORNER: 0.5, CENTRE: 0.0}
"""Where the centre of the first pixel is, in x and in y."""


def choose_origin(origin: str, rings: Iterable[Any], where: Path) -> str:
    """Return the pixel origin: what the user says, or for ``"auto"`` what the contours of a source look like.

    A hand draws between pixels, and a contour along the borders of pixels has no slanted edge: both are as tools mean
    them, from the picture's corner. Whole numbers all over with slanted edges are the indices of pixels, which a script
    took from a mask, as ``cv2.findContours`` gives them: those are centres.

    Args:
        origin: ``"corner"``, ``"centre"`` or ``"auto"``.
        rings: The points ``(N, 2)`` of every contour, x and y; what is no such thing is passed over.
        where: What the log calls the source.
    """
    if origin != AUTO:
        return origin
    slanted = False
    for ring in rings:
        try:
            points = np.asarray(ring, np.float64)
        except (TypeError, ValueError, OverflowError):
            continue  # it is refused with its place when it is filled
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            continue
        if not (points == np.rint(points)).all():
            return CORNER
        slanted = slanted or bool((points != np.roll(points, 1, axis=0)).all(axis=1).any())
    if slanted:
        logger.info("%s: contours through the centres of pixels, as cv2.findContours gives them", where)
    return CENTRE if slanted else CORNER
