"""Outlines of masks in the coordinates of DICOM SR."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Outline = npt.NDArray[np.float64]

MAX_POINTS = 8000
"""GraphicData is FL, of which an explicit VR holds 65534 bytes (PS3.5 7.1.2): 8191 points."""


def trace_outlines(mask: npt.NDArray[np.bool_]) -> list[Outline]:
    """Return the outer outline of each connected part of a mask, largest part first.

    It runs along the edges of pixels, and cuts inner corners by half a pixel at most: the pixels whose centre it
    surrounds are those of the part and of its holes, which have no outline.

    Args:
        mask: bool ``[y, x]``.

    Returns:
        float64 ``(N, 2)`` each, x and y in pixels, the first point repeated at the end; (0, 0) is the upper left corner
        of the first pixel, (0.5, 0.5) its centre (PS3.3 C.18.6.1.1).
    """
    height, width = mask.shape
    # Corners, edges and centres of pixels, at half a pixel: a pixel is a block of 3 x 3 that shares its rim.
    grid = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    for row in range(3):
        for column in range(3):
            grid[row : row + 2 * height : 2, column : column + 2 * width : 2] |= mask
    contours, _ = cv2.findContours(grid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest_first = sorted(contours, key=cv2.contourArea, reverse=True)
    return [_to_pixels(np.asarray(contour, np.int32)) for contour in largest_first]


def _to_pixels(contour: npt.NDArray[np.integer]) -> Outline:
    """Close a contour of the grid, ``(N, 1, 2)``; where it has too many points, leave some out.

    They err by half a pixel then, or by as much as it takes.
    """
    tolerance = 1.0
    while len(contour) >= MAX_POINTS:
        contour = np.asarray(cv2.approxPolyDP(contour, tolerance, True), np.int32)
        tolerance *= 2
    points = contour[:, 0].astype(np.float64) / 2
    return np.concatenate([points, points[:1]])
