"""A quick estimate of the lung on one slice alone, to place lesions in: not the lung field of a volume."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

LUNG_HU = -500.0
"""Halfway between fat (-100 HU) and aerated lung (-900 HU); denser disease comes from its annotation."""
BLUR_SHARE = 0.006
"""Standard deviation of the blur before the threshold, as a share of the width: noise parts nothing then."""
LEAST_SHARE = 0.01
"""Least area of a lung, as a share of the picture: trachea and gas in the bowel are mostly smaller."""
CLOSED_SHARE = 0.012
"""Radius of the vessels that are taken in, as a share of the width (4 mm of 350 mm)."""


def estimate_lung(plane: npt.NDArray[np.generic], lesions: Mask) -> Mask:
    """Find air inside of the body, with the annotated lesions and the vessels in it.

    Prepared slices come without a lung field. This estimate errs towards too little: lung that the picture's edge cuts
    open is left out, and dense disease that nobody annotated.

    Args:
        plane: ``(H, W)``: int16 in HU; or uint8 grey levels without HU, which Otsu's threshold parts.
        lesions: bool ``(H, W)``, annotated lesions: they lie in the lung.

    Returns:
        bool ``(H, W)``; all False where there is no lung.
    """
    height, width = plane.shape
    is_grey = plane.dtype == np.uint8
    values: npt.NDArray[Any] = plane if is_grey else plane.astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), BLUR_SHARE * width)
    limit = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)[0] if is_grey else LUNG_HU
    _, labels, stats, _ = cv2.connectedComponentsWithStats((smooth <= limit).astype(np.uint8), connectivity=4)
    left, top, right, bottom = stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]
    keep = (left > 0) & (top > 0) & (right < width) & (bottom < height)  # what reaches the edge is air around the body
    keep &= stats[:, cv2.CC_STAT_AREA] >= LEAST_SHARE * height * width
    keep[0] = False
    if not keep.any():
        return np.zeros((height, width), bool)
    lung = keep[labels] | lesions
    radius = max(1, round(CLOSED_SHARE * width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed: Mask = cv2.morphologyEx(lung.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    return closed
