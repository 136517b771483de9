"""Long and short axis of a lesion in the plane of the slices."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from lung_d2.lesions.lesion import Lesion, Mask

# The middles of a pixel's edges: an outline through them is one pixel wider than one through the middles of pixels, and
# overrates no slanting diameter as one through the corners does. Columns x, y.
_EDGES = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


@dataclass(frozen=True)
class Diameters:
    """Axes of a lesion on the slice where it is longest.

    Attributes:
        slice_index: That slice.
        long_axis_mm: Largest distance of two points of one connected part of the lesion.
        short_axis_mm: Width of that part, perpendicular to the long axis.
    """

    slice_index: int
    long_axis_mm: float
    short_axis_mm: float


def measure_diameters(lesion: Lesion, spacing_mm: tuple[float, float, float]) -> Diameters:
    """Measure the long axis over all slices, and the short axis on that slice, as RECIST 1.1 measures lesions.

    Args:
        lesion: The lesion.
        spacing_mm: (z, y, x) of its volume.

    Returns:
        The largest axes.
    """
    pixel_mm = np.array([spacing_mm[2], spacing_mm[1]])
    outlines = [(index, points) for index, plane in lesion.planes() for points in _outlines(plane, pixel_mm)]
    ranked = sorted(((-_diagonal(points), index, number) for number, (index, points) in enumerate(outlines)))
    best = Diameters(lesion.slice_indices[0], 0.0, 0.0)
    # No axis is longer than the diagonal of its box: those that could be the longest come first, most others never.
    for negative_mm, slice_index, number in ranked:
        if -negative_mm <= best.long_axis_mm:
            break
        long_mm, short_mm = _axes(outlines[number][1])
        if long_mm > best.long_axis_mm:
            best = Diameters(slice_index, long_mm, short_mm)
    return best


def _diagonal(points: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def _outlines(plane: Mask, pixel_mm: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Return points around the convex hull of each connected part, ``(N, 2)``, mm."""
    contours, _ = cv2.findContours(plane.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hulls = [cv2.convexHull(contour)[:, 0].astype(float) for contour in contours]
    return [(hull[:, None] + _EDGES).reshape(-1, 2) * pixel_mm for hull in hulls]


def _axes(outline: npt.NDArray[np.float64]) -> tuple[float, float]:
    distances = cdist(outline, outline)
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    length = float(distances[first, second])
    along = outline[first] - outline[second]
    across = outline @ np.array([-along[1], along[0]]) / length
    return length, float(np.ptp(across))
