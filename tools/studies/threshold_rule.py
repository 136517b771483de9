"""A trivial rule, HU thresholds and connected components: what it reaches on the benchmark needs no trained model.

Its parameters were tuned in its favour, on phantoms of the benchmark and with their truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct.volume import CTVolume


@dataclass(frozen=True)
class RuleParameters:
    """Parameters of the rule.

    Attributes:
        haze_hu: Lowest and highest HU of an opacity after smoothing.
        haze_smooth_mm: Standard deviation of that smoothing, mm.
        haze_open_mm: Radius of the opening that removes thin rims and vessels, mm.
        haze_least_mm2: Smallest opacity, mm2.
        rim_mm: How far from the edge of the lung a voxel must lie, mm.
        lumen_hu: Highest HU of a lumen.
        lumen_mm2: Smallest and largest lumen, mm2.
        wall_hu: Lowest mean HU around a lumen.
        wall_mm: Thickness of the wall that is added to a lumen, mm.
        join_mm: Lumens closer than this are one lesion, mm.
    """

    haze_hu: tuple[float, float] = (-640.0, -300.0)
    haze_smooth_mm: float = 1.5
    haze_open_mm: float = 5.0
    haze_least_mm2: float = 60.0
    rim_mm: float = 4.5
    lumen_hu: float = -720.0
    lumen_mm2: tuple[float, float] = (3.0, 250.0)
    wall_hu: float = -440.0
    wall_mm: float = 2.0
    join_mm: float = 3.0


@dataclass(frozen=True)
class RuleDetection:
    """A region that the rule reports as a lesion.

    Attributes:
        category: Name of the category.
        mask: Bool ``(H, W)``.
        score: Higher means more certain; comparable within a category.
    """

    category: str
    mask: np.ndarray
    score: float


def apply_rule(volume: CTVolume, slice_index: int, parameters: RuleParameters | None = None) -> list[RuleDetection]:
    """Apply the rule to one slice.

    Args:
        volume: The CT.
        slice_index: 0-based.
        parameters: None: the tuned ones.

    Returns:
        The regions found, in no particular order.
    """
    parameters = parameters or RuleParameters()
    hu = volume.hu[slice_index].astype(np.float32)
    pixel_mm = volume.spacing_mm[1]
    lung = _lung(hu, pixel_mm)
    return _find_haze(hu, lung, pixel_mm, parameters) + _find_rings(hu, lung, pixel_mm, parameters)


def _disk(radius_mm: float, pixel_mm: float) -> np.ndarray:
    size = 2 * max(1, round(radius_mm / pixel_mm)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _lung(hu: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Air inside the body, closed over vessels and walls, without the trachea."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((hu < -350).astype(np.uint8), connectivity=4)
    lung = np.zeros(hu.shape, np.uint8)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    for label in range(1, len(stats)):
        if label not in border and stats[label, cv2.CC_STAT_AREA] * pixel_mm**2 > 800:
            lung |= (labels == label).astype(np.uint8)
    return cv2.morphologyEx(lung, cv2.MORPH_CLOSE, _disk(7.0, pixel_mm))


def _find_haze(hu: np.ndarray, lung: np.ndarray, pixel_mm: float, p: RuleParameters) -> list[RuleDetection]:
    smooth = cv2.GaussianBlur(hu, (0, 0), p.haze_smooth_mm / pixel_mm)
    inner = cv2.erode(lung, _disk(p.rim_mm, pixel_mm))
    hazy = (smooth > p.haze_hu[0]) & (smooth < p.haze_hu[1])
    mask = cv2.bitwise_and(hazy.astype(np.uint8), inner)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disk(1.5, pixel_mm))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disk(p.haze_open_mm, pixel_mm))
    mask = cv2.dilate(mask, _disk(1.0, pixel_mm))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for label in range(1, count):
        area = float(stats[label, cv2.CC_STAT_AREA]) * pixel_mm**2
        if area >= p.haze_least_mm2:
            found.append(RuleDetection(GROUND_GLASS_OPACITY.name, labels == label, area))
    return found


def _find_rings(hu: np.ndarray, lung: np.ndarray, pixel_mm: float, p: RuleParameters) -> list[RuleDetection]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(((hu < p.lumen_hu) & (lung > 0)).astype(np.uint8))
    kept = np.zeros(hu.shape, np.uint8)
    for label in range(1, count):
        if not p.lumen_mm2[0] <= stats[label, cv2.CC_STAT_AREA] * pixel_mm**2 <= p.lumen_mm2[1]:
            continue
        x, y, w, h = stats[label, :4]
        margin = int(np.ceil(p.wall_mm / pixel_mm)) + 1
        box = np.s_[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin]
        lumen = (labels[box] == label).astype(np.uint8)
        ring = cv2.dilate(lumen, _disk(p.wall_mm, pixel_mm)) - lumen
        if hu[box][ring > 0].mean() > p.wall_hu:
            kept[box] |= lumen
    mask = cv2.dilate(kept, _disk(p.wall_mm, pixel_mm))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disk(p.join_mm, pixel_mm))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA] * pixel_mm**2
    return [RuleDetection(BRONCHIECTASIS.name, labels == label, float(area[label])) for label in range(1, count)]
