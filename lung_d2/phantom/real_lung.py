"""A real CT as a place for phantom lesions: where its lungs and vessels are, how sharp and how noisy it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import ndimage
from scipy.special import erfinv

from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError, InputError
from lung_d2.lungs.field import LungFinder, find_lungs
from lung_d2.phantom.lungs import LungMap
from lung_d2.phantom.shapes import Plane
from lung_d2.phantom.tissue import AIR, MUSCLE
from lung_d2.phantom.vessels import VESSEL_HU, Vessels

MOST_SLICES = 24
"""Number of slices that are measured, evenly spread."""
SHARP_SHARE = 0.4
"""An edge oblique to the slice is smeared by its thickness; the sharper part of the outline is upright."""
REACH_MM = 3.0
"""How far to both sides of an edge its two levels are searched."""
PIXEL_SIGMA = 12.0**-0.5
"""Standard deviation of a square of width 1, which averaging over the pixel itself adds to the blur."""
CORE_MM = 1.2
"""Standard deviation of the smoothing before vessels are measured; the middle of a 5 mm vessel keeps its HU."""
RIM_MM = 4.0
"""Closer to the edge of the lungs than this, soft tissue is not blood."""
GRID_MM = 4.0
THICKEST_MM = 5.0
"""Thicker slices have no voxel that a dilated bronchus of 6 to 12 mm fills."""
LEAST_ML = 300.0
"""Less lung than this leaves no room for lesions."""
MOST_BLOOD_HU = 130.0
"""Blood has 30 to 60 HU, anaemic to polycythaemic; with contrast medium 150 and more."""
AXIAL_COSINE = 0.8
"""Cosine of the largest tilt of the slices, about 37 degrees; gantries tilt by 30."""
AERATED_HU = -650.0
"""The median of a lung without disease is below this; deep expiration reaches -700 HU."""


def _some(labels: np.ndarray) -> np.ndarray:
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    return filled[np.unique(np.linspace(0, len(filled) - 1, min(MOST_SLICES, len(filled))).astype(int))]


def _disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _without_rim(labels: np.ndarray, pixel_mm: float) -> np.ndarray:
    return cv2.erode((labels > 0).astype(np.uint8), _disk(round(RIM_MM / pixel_mm)))


def measure_blur_mm(hu: np.ndarray, labels: np.ndarray, pixel_mm: float) -> float:
    """Measure the point spread of a series within its slices, from the edge between lung and chest wall.

    An edge between two levels, blurred by a Gaussian of standard deviation s, has over two pixels of width p a mean
    slope of ``step / (2 p) * erf(p / (s sqrt(2)))``. That is solved for s along the outline of the lungs. A blur of
    less than about 0.6 pixels cannot be told from a sharper one, and is found as about 0.3.

    Args:
        hu: int16 ``[Z, Y, X]``, HU.
        labels: The lung field, uint8 ``[Z, Y, X]``, not all 0.
        pixel_mm: Pixel size, mm.

    Returns:
        Standard deviation of the Gaussian that remains without the averaging over the pixel, mm; 0 or more.
    """
    around = _disk(max(2, round(REACH_MM / pixel_mm)))
    shares = []
    for index in _some(labels):
        plane = np.clip(hu[index], AIR, MUSCLE).astype(np.float32)
        lung = (labels[index] > 0).astype(np.uint8)
        smooth = cv2.medianBlur(plane, 3)
        step = cv2.dilate(smooth, around) - cv2.erode(smooth, around)
        half = np.array([[-0.5, 0.0, 0.5]], np.float32)
        slope = np.hypot(cv2.filter2D(plane, -1, half), cv2.filter2D(plane, -1, half.T))
        steepest = cv2.dilate(slope, np.ones((5, 5), np.uint8))
        edge = (lung - cv2.erode(lung, np.ones((3, 3), np.uint8)) > 0) & (step > 500)
        shares.append(2.0 * steepest[edge] / step[edge])
    joined = np.concatenate(shares) if shares else np.zeros(0)
    if not joined.size:
        return 0.0
    share = float(np.clip(np.quantile(joined, 1.0 - SHARP_SHARE), 0.05, 0.98))
    sigma = pixel_mm / (np.sqrt(2.0) * float(erfinv(share)))
    return float(np.sqrt(max(sigma**2 - (PIXEL_SIGMA * pixel_mm) ** 2, 0.0)))


def measure_noise_hu(hu: np.ndarray, labels: np.ndarray) -> float:
    """Measure the noise of the lungs: a robust standard deviation about a median of 5 x 5 pixels, HU.

    Args:
        hu: int16 ``[Z, Y, X]``, HU.
        labels: The lung field, uint8 ``[Z, Y, X]``, not all 0.
    """
    rests = []
    for index in _some(labels):
        plane = hu[index].astype(np.float32)
        rests.append((plane - cv2.medianBlur(plane, 5))[labels[index] > 0])
    # 1.4826: from the median absolute deviation to the standard deviation of a normal distribution.
    return 1.4826 * float(np.median(np.abs(np.concatenate(rests))))


def measure_blood_hu(hu: np.ndarray, labels: np.ndarray, pixel_mm: float) -> float:
    """Measure the attenuation in the middle of the largest vessels of the lungs: about 40 HU without contrast medium.

    Args:
        hu: int16 ``[Z, Y, X]``, HU.
        labels: The lung field, uint8 ``[Z, Y, X]``, not all 0.
        pixel_mm: Pixel size, mm.

    Returns:
        What one voxel in a thousand, away from the edge of the lungs, exceeds after smoothing, HU.
    """
    cores = []
    for index in _some(labels):
        inner = _without_rim(labels[index], pixel_mm) > 0
        cores.append(cv2.GaussianBlur(hu[index].astype(np.float32), (0, 0), CORE_MM / pixel_mm)[inner])
    joined = np.concatenate(cores)
    return float(np.quantile(joined, 0.999)) if joined.size else AIR


@dataclass(frozen=True, eq=False)
class RealLung:
    """A CT into which lesions can be inserted. Positions: x to the left, y to the back, z to the head, mm.

    For tilted slices, x, y and z run along the volume's own axes, so that shapes are sheared with it.

    Attributes:
        volume: The CT.
        labels: The lung field, uint8 ``[Z, Y, X]``: 0 outside, 1 right, 2 left.
        axes: Coordinates of columns, rows and slices, float64.
        lungs: The lungs on a coarse grid, with the depth under the pleura.
        vessels: The vessels in them.
        lung_hu: Median of the lungs, HU.
        blur_mm: Standard deviation of the scanner's point spread, mm.
        noise_hu: Standard deviation of the noise, HU.
    """

    volume: CTVolume
    labels: np.ndarray = field(repr=False)
    axes: tuple[np.ndarray, np.ndarray, np.ndarray] = field(repr=False)
    lungs: LungMap = field(repr=False)
    vessels: Vessels = field(repr=False)
    lung_hu: float
    blur_mm: float
    noise_hu: float

    @property
    def pixel_mm(self) -> float:
        """The smaller side of a pixel, mm."""
        return min(self.volume.spacing_mm[1:])

    def plane(self, slice_index: int) -> Plane:
        """Return the plane of a slice."""
        x, y, z = self.axes
        return Plane(x.astype(np.float32)[None], y.astype(np.float32)[:, None], float(z[slice_index]), self.pixel_mm)

    def side_of(self, point: tuple[float, float, float]) -> int:
        """Return the label of the lung nearest to a point in its slice, 1 right or 2 left."""
        column, row, index = (round(value) for value in self._index(point))
        labels = self.labels[min(max(index, 0), len(self.labels) - 1)]
        found = np.argwhere(labels)
        return int(labels[tuple(found[np.argmin(((found - (row, column)) ** 2).sum(axis=1))])]) if len(found) else 1

    def to_lps(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return a position in LPS mm, which differs for tilted slices only."""
        x, y, z, _ = self.volume.affine_lps @ np.array([*self._index(point), 1.0])
        return float(x), float(y), float(z)

    def _index(self, point: tuple[float, float, float]) -> list[float]:
        """Return column, row and slice of a position."""
        return [float((at - axis[0]) / (axis[1] - axis[0])) for at, axis in zip(point, self.axes, strict=True)]


def prepare_lung(volume: CTVolume, finder: LungFinder = find_lungs) -> RealLung:
    """Find where lesions can be inserted into a CT.

    Args:
        volume: A chest CT without disease of the lungs; HU.
        finder: Finds its lungs.

    Returns:
        The CT with everything that insertion needs.

    Raises:
        GeometryError: Its slices are too few, too thick or not axial.
        InputError: It shows too little lung or dense lungs, or was taken with contrast medium.
    """
    where = f"series {volume.series_instance_uid or volume.series_hash}"
    axes = _axes(volume, where)
    labels = finder(volume).labels
    lung_hu = _check_lungs(volume, labels, where)
    pixel_mm = min(volume.spacing_mm[1:])
    blood_hu = measure_blood_hu(volume.hu, labels, pixel_mm)
    if blood_hu > MOST_BLOOD_HU:
        found, expected = f"vessels of {blood_hu:.0f} HU, as with contrast medium", f"at most {MOST_BLOOD_HU:.0f} HU"
        raise InputError(where, found=found, expected=expected, remedy="take a CT without contrast medium")
    lungs = _map_lungs(labels, axes, volume.spacing_mm)
    return RealLung(
        volume=volume,
        labels=labels,
        axes=axes,
        lungs=lungs,
        vessels=_find_vessels(volume, labels, axes, lungs),
        lung_hu=lung_hu,
        blur_mm=measure_blur_mm(volume.hu, labels, pixel_mm),
        noise_hu=measure_noise_hu(volume.hu, labels),
    )


def _axes(volume: CTVolume, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(volume.hu) < 2 or volume.spacing_mm[0] > THICKEST_MM:
        found = f"{len(volume.hu)} slice(s), {volume.spacing_mm[0]:.3g} mm apart"
        expected = f"several, at most {THICKEST_MM:g} mm apart"
        raise GeometryError(where, found=found, expected=expected, remedy="take a series of thinner slices")
    matrix = volume.affine_lps[:3, :3]
    along = np.diag(matrix) / np.linalg.norm(matrix, axis=0)
    if np.abs(along).min() < AXIAL_COSINE:
        raise GeometryError(where, found="slices that are not axial", remedy="take an axial series")
    steps = np.sign(along) * volume.spacing_mm[::-1]
    columns, rows, slices = (
        first + step * np.arange(count)
        for first, step, count in zip(volume.affine_lps[:3, 3], steps, volume.hu.shape[::-1], strict=True)
    )
    return columns, rows, slices


def _check_lungs(volume: CTVolume, labels: np.ndarray, where: str) -> float:
    """Refuse too little or dense lung; return its median HU."""
    ml = np.count_nonzero(labels) * float(np.prod(volume.spacing_mm)) / 1000.0
    if ml < LEAST_ML:
        found, expected = f"{ml:.0f} ml of lung", f"{LEAST_ML:.0f} ml or more"
        raise InputError(where, found=found, expected=expected, remedy="take a chest CT that shows the lungs")
    median = float(np.median(volume.hu[labels > 0]))
    if median > AERATED_HU:
        found, expected = f"lungs of {median:.0f} HU", f"below {AERATED_HU:.0f} HU, as without disease"
        raise InputError(where, found=found, expected=expected, remedy="take a CT of healthy lungs")
    return median


def _map_lungs(
    labels: np.ndarray, axes: tuple[np.ndarray, np.ndarray, np.ndarray], spacing_mm: tuple[float, float, float]
) -> LungMap:
    """Take every few voxels of the lung field, with their depth."""
    steps = [max(1, round(GRID_MM / mm)) for mm in spacing_mm]
    inside = labels[:: steps[0], :: steps[1], :: steps[2]] > 0
    # Not padded, because the lung continues where the scan ends.
    depth = ndimage.distance_transform_edt(inside, [step * mm for step, mm in zip(steps, spacing_mm, strict=True)])
    z, y, x = np.nonzero(inside)
    points = np.stack([axes[0][x * steps[2]], axes[1][y * steps[1]], axes[2][z * steps[0]]], axis=1)
    return LungMap(points.astype(np.float32), depth[inside].astype(np.float32))


def _find_vessels(
    volume: CTVolume, labels: np.ndarray, axes: tuple[np.ndarray, np.ndarray, np.ndarray], lungs: LungMap
) -> Vessels:
    """Find the dense voxels away from the pleura, slice by slice: distances in a whole volume take gigabytes."""
    pixel_mm = min(volume.spacing_mm[1:])
    points, depths = [np.zeros((0, 3))], [np.zeros(0)]
    for index in np.flatnonzero(labels.any(axis=(1, 2))):
        dense = _without_rim(labels[index], pixel_mm) & (cv2.medianBlur(volume.hu[index], 3) > VESSEL_HU)
        depth = cv2.distanceTransform(dense, cv2.DIST_L2, 5)
        y, x = np.nonzero(dense)
        points.append(np.stack([axes[0][x], axes[1][y], np.full(len(x), axes[2][index])], axis=1))
        depths.append(depth[y, x] * pixel_mm)
    return Vessels(np.concatenate(points), np.concatenate(depths), lungs.points.mean(axis=0))
