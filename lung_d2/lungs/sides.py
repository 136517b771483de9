"""Right and left lung, parted on each slice by the path through the mediastinum that crosses the least lung."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.lungs.grid import Bits, LungGrid

RIGHT, LEFT = 1, 2
MIDLINE_COST = 0.3
"""Cost of a pixel 100 mm off the spine; one of aerated lung costs up to 1."""
BONE_HU = 250
SPINE_MM = 15.0
"""Half width of the spine."""
OFF_MIDDLE_MM = 100.0
"""How far off the middle of the body the spine may well be, in a field of view that holds one lung."""
BEND_COST = 0.02
"""Cost of a step aside."""
SMOOTH_MM = 6.0
"""Slices within this distance share their costs, so that paths change little from slice to slice."""
ONE_SIDE = 0.9
"""A part of the lungs that has this share on one side of the path belongs there as a whole."""


def part_sides(grid: LungGrid, lung: Bits) -> Bits:
    """Tell the right lung from the left, also where they touch.

    Args:
        grid: The volume.
        lung: uint8 ``[S', P', L']``, 0 or 1.

    Returns:
        uint8 like ``lung``: 0 outside, 1 the patient's right lung, 2 the left.
    """
    path = _cheapest_path(_path_costs(grid, lung))[:, :, None]
    columns = np.arange(lung.shape[2])
    left = columns >= path
    sides = np.where(left, np.uint8(LEFT), np.uint8(RIGHT)) * lung
    labels, _ = ndimage.label(lung * (columns != path))
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        part = labels[window] == label
        share = float(left[window][part].mean())
        if max(share, 1 - share) >= ONE_SIDE:
            sides[window][part] = LEFT if share > 0.5 else RIGHT
    return sides


def _path_costs(grid: LungGrid, lung: Bits) -> npt.NDArray[np.float32]:
    """Return what each pixel costs the path, float32 ``[S', P', L']``: the airier the lung, the more."""
    costs = np.zeros(lung.shape, np.float32)
    inside = lung > 0
    costs[inside] = np.clip((-300.0 - grid.coarse[inside]) / 500.0, 0.05, 1.0)
    count = 2 * (grid.slices(SMOOTH_MM) // 2) + 1
    if count > 1:
        costs = ndimage.uniform_filter1d(costs, count, axis=0)
    off_mm = np.abs(np.arange(lung.shape[2], dtype=np.float32) - _midline(grid)) * np.float32(grid.pixel_mm)
    costs += np.float32(MIDLINE_COST / 100.0) * off_mm
    return costs


def _midline(grid: LungGrid) -> int:
    """Return the column of the spine: the middle of the body where the field of view cuts no side of it."""
    columns = np.arange(grid.coarse.shape[2])
    middle = np.flatnonzero(grid.body.any(axis=(0, 1))).mean()
    bone = np.count_nonzero((grid.coarse > BONE_HU) & (grid.body > 0), axis=(0, 1)).astype(np.float64)
    spine = ndimage.gaussian_filter1d(bone + 1.0, SPINE_MM / grid.pixel_mm)
    spine *= np.exp(-0.5 * ((columns - middle) * grid.pixel_mm / OFF_MIDDLE_MM) ** 2)
    return int(spine.argmax())


def _cheapest_path(costs: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Find on each slice the cheapest path from the first row to the last: its column in each row, ``[S', P']``."""
    count, rows, _ = costs.shape
    total = costs[:, 0].copy()
    steps = np.zeros(costs.shape, np.int8)
    for row in range(1, rows):
        padded = np.pad(total + np.float32(BEND_COST), ((0, 0), (1, 1)), constant_values=np.inf)
        choices = np.stack([padded[:, :-2], total, padded[:, 2:]])
        steps[:, row] = choices.argmin(axis=0) - 1
        total = choices.min(axis=0) + costs[:, row]
    path = np.empty((count, rows), np.intp)
    path[:, -1] = total.argmin(axis=1)
    for row in range(rows - 1, 0, -1):
        path[:, row - 1] = path[:, row] + steps[np.arange(count), row, path[:, row]]
    return path
