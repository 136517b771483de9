"""The patient's body on one slice: without table, clothing and the air around it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[Any]

TISSUE_HU = -300
"""Between fat (-100 HU) and foam, cloth or lung (below -500 HU)."""
AIR_HU = -900
"""Air around the body has a lower median than this, lung a higher one."""
FREE_AIR_HU, CROP_SHARE = -960, 0.002
"""A picture with a smaller share of pixels below this shows no air around the body: it is a crop inside it."""
THIN_SHARE = 0.006
"""Half width of the shells of tables and of cloth, as a share of the picture's width (2.4 mm of 400 mm)."""
LIMB_SHARE = 0.03
"""Parts apart from the trunk (arms, legs) are kept from this share of its area."""
SOLID_SHARE = 0.6
"""Share of tissue in a part: the foam between the shells of a table is none."""
HULL_SHARE = 0.9
"""Share of its convex hull that a body fills; share of air at the border that lies in it, if it is a lung cut open."""
GREY_STEPS = (1.0, 0.75, 0.5)
"""Thresholds to try, from that of Otsu (1) towards the mean of what is darker (0)."""
GREY_BLUR_SHARE = 0.008
"""Standard deviation of the blur that grey levels need (enhanced noise), as a share of the picture's width."""
WORKING_WIDTH = 256
"""Outlines are found in a picture no wider than about this, which removes noise and saves time."""


def body_mask(plane: Plane) -> Mask:
    """Find the body on one slice, with the air inside it (lungs, bowel) filled in.

    Args:
        plane: ``(H, W)`` in HU; or uint8 grey levels without HU, in which Otsu's threshold parts tissue from air.

    Returns:
        bool ``(H, W)``, to about a pixel of the working width at the skin; all False where there is no body.
    """
    height, width = plane.shape
    step = max(1, round(width / WORKING_WIDTH))
    size = (max(1, width // step), max(1, height // step))
    is_grey = plane.dtype == np.uint8
    pixels = np.ascontiguousarray(plane if is_grey else plane.astype(np.float32))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    body = _body_of_grey(small) if is_grey else _body_with_cut_lungs(small)
    if step == 1:
        return body
    return cv2.resize(body.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5


def _body_of_grey(grey: Plane) -> Mask:
    """Find the body by Otsu's threshold, lowered towards air until the chest wall, which is fat, holds."""
    smooth = cv2.GaussianBlur(grey, (0, 0), GREY_BLUR_SHARE * grey.shape[1])
    otsu = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)[0]
    dark = smooth[smooth <= otsu]
    air = float(dark.mean()) if dark.size else otsu
    tissue = smooth > otsu
    for share in GREY_STEPS:
        body = _body_of_tissue(smooth > air + share * (otsu - air), tissue)
        if body.sum() >= HULL_SHARE * convex_hull(body).sum():
            break
    return body


def _body_with_cut_lungs(hu: Plane) -> Mask:
    """Find the body, and with it lung that is open to the border because the field of view cuts the chest."""
    tissue = hu > TISSUE_HU
    body = _body_of_tissue(tissue, tissue)
    hull = convex_hull(body)
    if body.any() and np.count_nonzero(hu[~body] < FREE_AIR_HU) < CROP_SHARE * hu.size:
        return np.ones_like(body)  # a crop inside the body, whose lungs reach the border
    labels = cv2.connectedComponents((~body).astype(np.uint8), connectivity=4)[1]
    for label in range(1, int(labels.max()) + 1):
        part = labels == label
        if hull[part].mean() >= HULL_SHARE and float(np.median(hu[part])) > AIR_HU:
            body |= part
    return body


def convex_hull(mask: npt.NDArray[Any]) -> Mask:
    """Return the convex hull of all parts of a mask ``(H, W)`` (bool, or uint8 of 0 and 1), as bool of that shape."""
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outline:
        return np.zeros(mask.shape, bool)
    hull = np.zeros(mask.shape, np.uint8)
    return cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outline)), 1) > 0


def _body_of_tissue(walls: Mask, tissue: Mask) -> Mask:
    """Fill ``walls``, drop what is thin, and keep the trunk and those other parts that are full of ``tissue``."""
    radius = max(1, round(THIN_SHARE * tissue.shape[1]))
    filled = ~_reaching_border(~_opened(walls, radius))
    parts = _opened(filled, 2 * radius)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(parts.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0
    dense = np.bincount(labels[tissue], minlength=count) / np.maximum(areas, 1)
    trunk = int(np.argmax(areas * dense))
    keep = (areas >= LIMB_SHARE * areas[trunk]) & (dense >= SOLID_SHARE)
    keep[trunk] = areas[trunk] > 0
    body: Mask = keep[labels]
    return body


def _opened(mask: Mask, radius: int) -> Mask:
    """Remove what is thinner than 2 ``radius`` pixels; what reaches the border is assumed to continue there."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    edge = 2 * radius
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    opened: Mask = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel) > 0
    return opened[edge:-edge, edge:-edge]


def _reaching_border(mask: Mask) -> Mask:
    """Return the parts of a mask that reach the border of the picture."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    reaching = np.zeros(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reaching[edge] = True
    reaching[0] = False
    found: Mask = reaching[labels]
    return found
