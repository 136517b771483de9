"""Size and density of a lesion: extent, centroid, long and short axis, attenuation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from lung_d2.ct.geometry import normal_of
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions.lesion import Lesion, Mask, slice_bounds_mm, slice_origins_lps, voxel_volumes_ml

Vector = tuple[float, float, float]

# The middles of a pixel's edges: an outline through them is one pixel wider than one through the centres of pixels, and
# does not overestimate oblique diameters as one through the corners does. Columns x, y.
_EDGES = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


@dataclass(frozen=True)
class Density:
    """HU over the voxels of a lesion, all weighted alike.

    Attributes:
        mean_hu: Mean.
        sd_hu: Standard deviation, as of a population.
        p5_hu: 5th percentile, interpolated between neighbours in rank (numpy's ``linear``).
        median_hu: 50th percentile.
        p95_hu: 95th percentile.
    """

    mean_hu: float
    sd_hu: float
    p5_hu: float
    median_hu: float
    p95_hu: float


def measure_density(lesion: Lesion, volume: CTVolume) -> Density:
    """Measure the HU of a lesion."""
    hu = volume.hu[lesion.box][lesion.mask].astype(np.float64)
    low, middle, high = np.percentile(hu, (5, 50, 95)).tolist()
    return Density(float(hu.mean()), float(hu.std()), low, middle, high)


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
    # No axis is longer than the diagonal of its box: try the longest diagonals first, and stop when none can be longer.
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


def measure_extent(lesion: Lesion, volume: CTVolume) -> Vector:
    """Measure the box around the corners of all voxels along the axes of the patient, mm.

    A voxel is a block as thick as the tissue that its slice represents.
    """
    columns, rows, normal = volume.affine_lps[:3, 0], volume.affine_lps[:3, 1], normal_of(volume.affine_lps)
    origins, bounds, positions = slice_origins_lps(volume), slice_bounds_mm(volume), volume.slice_positions_mm
    half_pixel = (np.abs(columns) + np.abs(rows)) / 2
    _, top, left = lesion.offset_zyx
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index, plane in lesion.planes():
        y, x = np.nonzero(plane)
        points = origins[index] + (x + left)[:, None] * columns + (y + top)[:, None] * rows
        faces = (bounds[index : index + 2] - positions[index])[:, None] * normal
        low = np.minimum(low, points.min(axis=0) + faces.min(axis=0) - half_pixel)
        high = np.maximum(high, points.max(axis=0) + faces.max(axis=0) + half_pixel)
    x_mm, y_mm, z_mm = (high - low).tolist()
    return x_mm, y_mm, z_mm


def measure_centroid(lesion: Lesion, volume: CTVolume) -> Vector:
    """Return the centre of volume, LPS, mm."""
    affine, origins, voxel_ml = volume.affine_lps, slice_origins_lps(volume), voxel_volumes_ml(volume)
    _, top, left = lesion.offset_zyx
    total, weight = np.zeros(3), 0.0
    for index, plane in lesion.planes():
        y, x = np.nonzero(plane)
        ml = len(y) * float(voxel_ml[index])
        total += ml * (origins[index] + (x.mean() + left) * affine[:3, 0] + (y.mean() + top) * affine[:3, 1])
        weight += ml
    x_mm, y_mm, z_mm = (total / weight).tolist()
    return x_mm, y_mm, z_mm
