"""What the healthy lung of two slices has to share, so that a lesion of one looks right in the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[Any]
Window = tuple[slice, slice]

NEAR_PX = 8
"""How far around a lesion its lung is measured."""
LEAST_LUNG_PX = 20
"""With fewer pixels of lung nothing is said of it."""
# Difference of two Laplacians: edges and slopes give 0, noise of unit variance gives variance 36.
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_GAIN = 6.0
_MEDIAN_OF_NORMAL = 0.6745  # median of the magnitude of a standard normal variable


def lung_level(plane: Plane, healthy: Mask, window: Window) -> float:
    """Return the median of the healthy lung around a window, in the plane's values; that of the window without lung.

    Args:
        plane: ``(H, W)``, int16 in HU or uint8 grey.
        healthy: bool ``(H, W)``, lung without lesions.
        window: Rows and columns of the lesion.
    """
    rows, columns = (slice(max(one.start - NEAR_PX, 0), one.stop + NEAR_PX) for one in window)
    near = plane[rows, columns][healthy[rows, columns]]
    if len(near) < LEAST_LUNG_PX:
        near = plane[healthy] if healthy.any() else plane[window]
    return float(np.median(near))


def lung_noise(plane: Plane, healthy: Mask) -> float | None:
    """Return the standard deviation of the noise in healthy lung, in the plane's values; None of too little lung.

    After Immerkaer, Fast Noise Variance Estimation (CVIU 64, 1996), with a median, which vessels do not move. Of noise
    with a texture it measures the fine part alone: good enough to compare two slices.
    """
    if np.count_nonzero(healthy) < LEAST_LUNG_PX:
        return None
    fine = cv2.filter2D(plane.astype(np.float32), cv2.CV_32F, _LAPLACIANS)[healthy]
    return float(np.median(np.abs(fine)) / (_GAIN * _MEDIAN_OF_NORMAL))
