"""Air in the body: what may be lung, and what is free gas in trachea, main bronchi, stomach, bowel or skin folds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.lungs.grid import Bits, LungGrid

LUNG_HU = -500
"""Aerated lung is below this: about halfway between parenchyma (-850 HU) and soft tissue."""
GAS_HU = -930
"""Free gas is about -1000 HU; parenchyma, even over-inflated, is above this at its median."""
PURE_GAS_HU = -950
"""Three quarters of a large pocket of gas are below this; emphysema is mixed with vessels and septa."""
SMALL_MM2 = 1500.0
"""No trachea is larger on a slice. Smaller parts are judged by their darkest tenth: a narrow lumen is mostly edge."""
LUMEN_MM = 2.5
"""Half width from which a bronchus is cut from the lung that it opens into."""
LUMEN_EDGE_MM = 4.5
"""How far the edge of a lumen may be from what is free of partial volume in it."""
REACH_MM = 12.0
"""How far beyond the gas around it a bronchus, or bowel beside the lung, is followed into the lung."""


def part_gas(grid: LungGrid) -> tuple[Bits, Bits]:
    """Part the air inside the body.

    Args:
        grid: The volume.

    Returns:
        What may be lung, and free gas: uint8 ``[S', P', L']``, 0 or 1, disjoint.
    """
    lung, gas = np.zeros_like(grid.body), np.zeros_like(grid.body)
    for index, plane in enumerate(grid.coarse):
        air = grid.body[index] & (plane < LUNG_HU)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(air, connectivity=4)
        is_gas = np.zeros(count, bool)
        for label in range(1, count):
            x, y, width, height, area = stats[label].tolist()
            window = slice(y, y + height), slice(x, x + width)
            is_gas[label] = _is_gas(plane[window][labels[window] == label], area * grid.pixel_mm**2)
        gas[index] = is_gas[labels]
        lung[index] = air - gas[index]
    _return_lung(grid, lung, gas)
    opening = _gas_in_lung(grid, lung, gas)
    return lung - opening, gas | opening


def _is_gas(hu: npt.NDArray[Any], area_mm2: float) -> bool:
    if area_mm2 < SMALL_MM2:
        return bool(np.percentile(hu, 10) < GAS_HU)
    return bool(np.percentile(hu, 75) < PURE_GAS_HU)


def _return_lung(grid: LungGrid, lung: Bits, gas: Bits) -> None:
    """Move parts of ``gas`` that are too dense inside to ``lung``: small pieces of lung look so in noise."""
    labels, _ = ndimage.label(gas)
    inner = np.stack([cv2.erode(plane, np.ones((3, 3), np.uint8)) for plane in gas])
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        part = labels[window] == label
        hu = grid.coarse[window][part & (inner[window] > 0)]
        if hu.size and np.median(hu) >= GAS_HU:
            lung[window][part] = 1
            gas[window][part] = 0


def _gas_in_lung(grid: LungGrid, lung: Bits, gas: Bits) -> Bits:
    """Find where gas goes on into what was taken for lung: a bronchus opens into it, or bowel touches it."""
    reach, wide = grid.kernel(REACH_MM), grid.kernel(LUMEN_MM)
    close = np.stack([cv2.dilate(plane, reach) for plane in gas])
    close = ndimage.maximum_filter1d(close, 2 * grid.slices(REACH_MM) + 1, axis=0)
    core = np.zeros_like(lung)
    for index in np.flatnonzero(close.any(axis=(1, 2))):
        dark = (cv2.blur(grid.coarse[index], (3, 3)) < GAS_HU) & (lung[index] > 0)
        core[index] = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, wide) & close[index]
    labels, count = ndimage.label(core | gas)
    joined = np.zeros(count + 1, np.uint8)
    joined[labels[gas > 0]] = 1
    opening: Bits = joined[labels] - gas
    for index in np.flatnonzero(opening.any(axis=(1, 2))):
        for _ in range(round(LUMEN_EDGE_MM / grid.pixel_mm)):  # step by step, so that it does not cross the wall
            opening[index] = cv2.dilate(opening[index], np.ones((3, 3), np.uint8)) & lung[index]
    return opening
