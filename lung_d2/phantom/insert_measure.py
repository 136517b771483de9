"""How sharp and how noisy a real CT is, and whether it was taken with contrast medium."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.special import erfinv

from lung_d2.phantom.tissue import AIR, MUSCLE

MOST_SLICES = 24
"""Slices that a measurement looks at, evenly spread."""
SHARP_SHARE = 0.4
"""An edge oblique to the slice is smeared by its thickness; the sharper part of the outline is upright."""
REACH_MM = 3.0
"""How far to both sides of an edge its two levels are looked for."""
PIXEL_SIGMA = 12.0**-0.5
"""Standard deviation of a square of width 1: what averaging over the pixel itself adds to the blur."""
CORE_MM = 1.2
"""Smoothing before vessels are judged, standard deviation: noise goes, the middle of a vessel of 5 mm stays."""
RIM_MM = 4.0
"""Nearer to the edge of the lungs than this, soft tissue is not blood."""


def _some(labels: np.ndarray) -> np.ndarray:
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    return filled[np.unique(np.linspace(0, len(filled) - 1, min(MOST_SLICES, len(filled))).astype(int))]


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
    radius = max(2, round(REACH_MM / pixel_mm))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
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
    size = 2 * round(RIM_MM / pixel_mm) + 1
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    cores = []
    for index in _some(labels):
        inner = cv2.erode((labels[index] > 0).astype(np.uint8), rim) > 0
        cores.append(cv2.GaussianBlur(hu[index].astype(np.float32), (0, 0), CORE_MM / pixel_mm)[inner])
    joined = np.concatenate(cores)
    return float(np.quantile(joined, 0.999)) if joined.size else AIR
