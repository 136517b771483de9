"""From aerated lung to lung field: with opacities, vessels, walls of bronchi and dense disease at the pleura."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.ct.lung_grid import Bits, LungGrid
from lung_d2.ct.lung_sides import LEFT, RIGHT

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
NOTCH_CHORD_MM = 120.0
"""Longest chord across a notch in the costal outline, from lung to lung."""
NOTCH_HALF_MM = 3.0
"""Half thickness of such a notch."""
SHALLOW_CHORD_MM, SHALLOW_HALF_MM = 40.0, 1.5
"""The same of shallow notches; wider ones of that kind are the breastbone, which presses on the lung."""
NOTCH_DEPTH_MM = 20.0
"""The chord of a costal notch is nowhere deeper than this in the hull of both lungs; those of heart or spine are."""


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
    for plane, parted, gas_plane, body in zip(filled, sides, gas, grid.body, strict=True):
        for side in (RIGHT, LEFT):
            part = (parted == side).astype(np.uint8)
            if part.any():
                closed = _fill_holes(_closed(part, grid.kernel(CLOSING_MM)), SMALL_HOLE_MM2 / grid.pixel_mm**2)
                closed = _without_gas(closed, part, gas_plane, grid.kernel(WALL_MM))
                plane[(closed & body > 0) & (plane == 0)] = side
        for side in (RIGHT, LEFT):
            notch = _costal_notches((plane == side).astype(np.uint8), (plane > 0).astype(np.uint8), body, grid)
            plane[(notch & body & (1 - gas_plane) > 0) & (plane == 0)] = side
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


def _hull(mask: Bits) -> Bits:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = np.zeros(mask.shape, np.uint8)
    return np.asarray(cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), 1), np.uint8)


def _costal_notches(part: Bits, both: Bits, body: Bits, grid: LungGrid) -> Bits:
    """Find notches between one lung and the straight lines across it that run along the chest wall.

    Dense disease at the pleura makes such notches. A notch that opens inwards holds heart, spine or diaphragm.
    """
    notches = np.zeros_like(part)
    if not part.any():
        return notches
    hull = _hull(part)
    pockets = hull - (hull & part)
    thick = cv2.erode(pockets, grid.kernel(NOTCH_HALF_MM), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not pockets.any():
        return notches
    chest = _hull(both)
    in_chest, in_body = _depth(chest, grid), _depth(body, grid)
    radius = float(np.sqrt(np.count_nonzero(chest) / np.pi))
    rim = hull - cv2.erode(hull, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    labels = cv2.connectedComponents(pockets, connectivity=4)[1]
    thin = cv2.erode(pockets, grid.kernel(SHALLOW_HALF_MM), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    for label in np.unique(labels[thin > 0]):
        pocket = labels == label
        chord = pocket & (rim > 0)
        longest = NOTCH_CHORD_MM if thick[pocket].any() else SHALLOW_CHORD_MM
        if not 0 < np.count_nonzero(chord) * grid.pixel_mm <= longest:
            continue
        opens_outwards = in_body[chord].mean() < in_body[pocket].mean()
        if opens_outwards and in_chest[chord].max() <= NOTCH_DEPTH_MM:
            notches[pocket] = 1
            _bulge(notches, pocket, chord, radius)
    return notches


def _bulge(notches: Bits, pocket: npt.NDArray[np.bool_], chord: npt.NDArray[np.bool_], radius: float) -> None:
    """Let a notch reach to the arc of the chest wall: beyond the chord, by up to the height of an arc of ``radius``."""
    points = np.argwhere(chord)[:, ::-1].astype(np.float64)
    first = points[((points - points[0]) ** 2).sum(axis=1).argmax()]
    last = points[((points - first) ** 2).sum(axis=1).argmax()]
    half, middle = (last - first) / 2, (first + last) / 2
    outwards = np.array([half[1], -half[0]]) / max(float(np.hypot(*half)), 1.0)
    if outwards @ (np.argwhere(pocket)[:, ::-1].mean(axis=0) - middle) > 0:
        outwards = -outwards
    height = float(half @ half) / (2 * radius)
    along = np.linspace(-1.0, 1.0, 17)[:, None]
    arc = middle + along * half + (1 - along**2) * height * outwards
    cv2.fillPoly(notches, [np.rint(arc).astype(np.int32)], 1)


def _depth(mask: Bits, grid: LungGrid) -> npt.NDArray[np.float32]:
    """Return how deep each pixel lies in a mask, mm; the edge of the picture is its edge as well."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32) * np.float32(grid.pixel_mm)


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
