"""From aerated lung to lung field: with opacities, vessels, walls of bronchi and dense disease at the pleura."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from lung_d2.lungs.grid import Bits, LungGrid
from lung_d2.lungs.notches import fill_notches
from lung_d2.lungs.sides import LEFT, RIGHT

HAZE_HU = -200
"""Ground glass, on a smoothed picture, is below this; fat (-100 HU) is above it."""
HAZE_MM = 2.5
"""Half width of an opacity; the blurred edge between lung and chest wall is narrower."""
CLOSING_MM = 10.0
"""Radius of the disc that closes gaps in the outline: vessels, nodules, small disease at the pleura."""
WALL_MM = 3.0
"""Wall of trachea, bronchus or bowel."""
ENCLOSED_SHARE = 0.8
"""Gas is a bronchus or a cyst in the lung where at least this share of the ring around it is lung."""
SMALL_HOLE_MM2 = 800.0
"""Holes on a slice are filled up to this; larger ones unless an organ goes on beyond them (dome of the diaphragm)."""
LARGE_HOLE_MM2 = 4000.0
"""No hole larger than this (71 mm across) is filled."""
GOES_ON_SHARE = 0.4
"""An organ goes on beyond a hole where at least this share of the hole is no lung on the next slice."""


def add_haze(grid: LungGrid, lung: Bits, gas: Bits) -> Bits:
    """Add ground glass: thick regions below fat in density that are joined to the lung.

    Args:
        grid: The volume.
        lung: Aerated lung, uint8 ``[S', P', L']``, 0 or 1.
        gas: Free gas, likewise.

    Returns:
        Lung with opacities, likewise.
    """
    kernel = grid.kernel(HAZE_MM)
    hazy = lung.copy()
    for index, plane in enumerate(grid.coarse):
        haze = grid.body[index] & (cv2.blur(plane, (3, 3)) < HAZE_HU) & (gas[index] == 0)
        hazy[index] |= cv2.morphologyEx(haze.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    labels, count = ndimage.label(hazy)
    joined = np.zeros(count + 1, np.uint8)
    joined[labels[lung > 0]] = 1
    added: Bits = joined[labels]
    return added


def fill_lungs(grid: LungGrid, sides: Bits, gas: Bits) -> Bits:
    """Fill what belongs to the lungs and is dense, and leave out what is gas outside them.

    Args:
        grid: The volume.
        sides: Lung with opacities, uint8 ``[S', P', L']``: 0 outside, 1 right, 2 left.
        gas: Free gas, uint8 likewise, 0 or 1.

    Returns:
        The lung field, likewise.
    """
    filled = sides.copy()
    for index in np.flatnonzero(sides.any(axis=(1, 2))):
        plane, body = filled[index], grid.body[index]
        for side in (RIGHT, LEFT):
            part = (sides[index] == side).astype(np.uint8)
            if part.any():
                closed = _fill_holes(_closed(part, grid.kernel(CLOSING_MM)), SMALL_HOLE_MM2 / grid.pixel_mm**2)
                closed = _without_gas(closed, part, gas[index], grid.kernel(WALL_MM))
                plane[(closed & body > 0) & (plane == 0)] = side
        fill_notches(grid, int(index), plane, gas[index])
    _fill_large_holes(grid, filled)
    return filled


def _closed(mask: Bits, kernel: Bits) -> Bits:
    margin = kernel.shape[0]
    padded = cv2.copyMakeBorder(mask, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[margin:-margin, margin:-margin], np.uint8)


def _fill_holes(mask: Bits, most_pixels: float) -> Bits:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= most_pixels
    filled: Bits = mask | small[labels].astype(np.uint8)
    return filled


def _without_gas(closed: Bits, part: Bits, gas: Bits, wall: Bits) -> Bits:
    """Take gas and its walls out of the closed outline, save where the lung encloses it: then put it in."""
    grouped = _closed(gas, wall)  # a cluster of cysts is one
    count, labels, stats, _ = cv2.connectedComponentsWithStats(grouped, connectivity=8)
    margin = wall.shape[0]
    for label in range(1, count):
        x, y, width, height, _ = stats[label].tolist()
        window = slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)
        group = (labels[window] == label).astype(np.uint8)
        with_wall = np.asarray(cv2.dilate(group, wall), np.uint8)
        ring = with_wall > group
        if ring.any() and closed[window][ring].mean() >= ENCLOSED_SHARE:
            closed[window] |= with_wall
        else:
            outside = np.asarray(cv2.dilate(group & gas[window], wall), np.uint8)
            closed[window] &= (1 - outside) | part[window]
    return closed


def _fill_large_holes(grid: LungGrid, field: Bits) -> None:
    """Fill the holes of each lung through which no organ goes on to the slices beyond."""
    for side in (RIGHT, LEFT):
        lung = (field == side).astype(np.uint8)
        most = LARGE_HOLE_MM2 / grid.pixel_mm**2
        holes = np.stack([_fill_holes(plane, most) if plane.any() else plane for plane in lung]) - lung
        labels, _ = ndimage.label(holes)
        for label, window in enumerate(ndimage.find_objects(labels), 1):
            hole = labels[window] == label
            if not _goes_on(field, hole, window):
                field[window][hole & (field[window] == 0)] = side


def _goes_on(field: Bits, hole: Bits, window: tuple[slice, ...]) -> bool:
    """Say whether there is no lung above or below a hole; beyond the volume there is none, save of a single slice."""
    if len(field) == 1:
        return False
    for end, beyond in ((0, window[0].start - 1), (-1, window[0].stop)):
        if not 0 <= beyond < len(field):
            return True
        if (field[beyond][window[1:]][hole[end]] == 0).mean() > GOES_ON_SHARE:
            return True
    return False
