"""From aerated lung to lung field: with opacities, vessels, walls of bronchi and dense disease at the pleura.

Dense disease at the chest wall leaves notches in the outline of the lungs that open outwards; they are filled too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.lungs.body import convex_hull
from lung_d2.lungs.grid import LEFT, RIGHT, Bits, LungGrid

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
"""Holes on a slice are filled up to this; larger ones unless an organ continues beyond them (dome of the diaphragm)."""
LARGE_HOLE_MM2 = 4000.0
"""No hole larger than this (71 mm across) is filled."""
CONTINUES_SHARE = 0.4
"""An organ continues beyond a hole where at least this share of the hole is not lung on the next slice."""
CHORD_MM, HALF_MM = 120.0, 3.0
"""Longest chord across a notch, from lung to lung, and least half thickness of the notch."""
SHALLOW_CHORD_MM, SHALLOW_HALF_MM = 40.0, 1.5
"""The same of shallow notches; wider ones of that kind are the breastbone, which presses on the lung."""
IN_CHEST_MM = 20.0
"""The chord is nowhere deeper than this in the hull of both lungs; chords across heart and spine are."""
SPARE_MM = 15.0
"""How much deeper under the skin the chord may lie than three quarters of the outline of the lungs."""

Bools = npt.NDArray[np.bool_]


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
        _fill_notches(grid, int(index), plane, gas[index])
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
    """Take gas and its walls out of the closed outline, except where the lung encloses it: fill it there."""
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
    """Fill the holes of each lung through which no organ continues to the next slices."""
    for side in (RIGHT, LEFT):
        lung = (field == side).astype(np.uint8)
        most = LARGE_HOLE_MM2 / grid.pixel_mm**2
        holes = np.stack([_fill_holes(plane, most) if plane.any() else plane for plane in lung]) - lung
        labels, _ = ndimage.label(holes)
        for label, window in enumerate(ndimage.find_objects(labels), 1):
            hole = labels[window] == label
            if not _continues(field, hole, window):
                field[window][hole & (field[window] == 0)] = side


def _continues(field: Bits, hole: Bits, window: tuple[slice, ...]) -> bool:
    """Return whether lung is missing above or below a hole, as at the ends of a volume of more than one slice."""
    if len(field) == 1:
        return False
    for end, beyond in ((0, window[0].start - 1), (-1, window[0].stop)):
        if not 0 <= beyond < len(field):
            return True
        if (field[beyond][window[1:]][hole[end]] == 0).mean() > CONTINUES_SHARE:
            return True
    return False


@dataclass(frozen=True, eq=False)
class _Wall:
    """The chest wall on one coarse slice, all in mm; arrays are float32 ``(P', L')``.

    Attributes:
        in_chest: Depth in the hull of both lungs.
        in_body: Depth under the skin.
        deepest: How deep under the skin a chord along the wall may be.
        radius: Of a circle as large as the hull of both lungs.
    """

    in_chest: npt.NDArray[np.float32]
    in_body: npt.NDArray[np.float32]
    deepest: float
    radius: float


def _fill_notches(grid: LungGrid, index: int, sides: Bits, gas: Bits) -> None:
    """Fill the notches between each lung and straight lines across it that run along the chest wall.

    A notch that opens inwards holds heart, spine or diaphragm and stays.

    Args:
        grid: The volume.
        index: Of the coarse slice.
        sides: uint8 ``(P', L')``: 0 outside, 1 right, 2 left; changed in place.
        gas: Free gas, uint8 likewise, 0 or 1; it stays outside.
    """
    wall = None
    for side in (RIGHT, LEFT):
        lung = (sides == side).astype(np.uint8)
        if not lung.any():
            continue
        hull = convex_hull(lung).astype(np.uint8)
        pockets = hull & (1 - lung)
        shallow = _eroded(pockets, grid.kernel(SHALLOW_HALF_MM))
        if shallow.any():
            wall = wall or _chest_wall(grid, index, sides)
            notches = _costal_notches(hull, pockets, shallow, wall, grid)
            sides[(notches & grid.body[index] & (1 - gas) > 0) & (sides == 0)] = side


def _costal_notches(hull: Bits, pockets: Bits, shallow: Bits, wall: _Wall, grid: LungGrid) -> Bits:
    notches = np.zeros_like(pockets)
    thick = _eroded(pockets, grid.kernel(HALF_MM))
    rim = _rim(hull)
    labels = cv2.connectedComponents(pockets, connectivity=4)[1]
    for label in np.unique(labels[shallow > 0]):
        pocket = np.asarray(labels == label)
        chord = pocket & (rim > 0)
        longest = CHORD_MM if thick[pocket].any() else SHALLOW_CHORD_MM
        if not 0 < np.count_nonzero(chord) * grid.pixel_mm <= longest:
            continue
        outside = float(wall.in_body[chord].mean())
        opens_outwards = outside < min(wall.deepest, float(wall.in_body[pocket].mean()))
        if opens_outwards and wall.in_chest[chord].max() <= IN_CHEST_MM:
            notches[pocket] = 1
            _bulge(notches, pocket, chord, wall.radius / grid.pixel_mm)
    return notches


def _bulge(notches: Bits, pocket: Bools, chord: Bools, radius: float) -> None:
    """Let a notch reach to the chest wall: beyond its chord, as high as an arc of ``radius`` pixels over it."""
    points = np.argwhere(chord)[:, ::-1].astype(np.float64)
    first = points[((points - points[0]) ** 2).sum(axis=1).argmax()]
    last = points[((points - first) ** 2).sum(axis=1).argmax()]
    half, middle = (last - first) / 2, (first + last) / 2
    outwards = np.array([half[1], -half[0]]) / max(float(np.hypot(*half)), 1.0)
    if outwards @ (np.argwhere(pocket)[:, ::-1].mean(axis=0) - middle) > 0:
        outwards = -outwards
    along = np.linspace(-1.0, 1.0, 17)[:, None]
    height = float(half @ half) / (2 * radius)  # sagitta of an arc over a chord of 2 x half
    arc = middle + along * half + (1 - along**2) * height * outwards
    cv2.fillPoly(notches, [np.rint(arc).astype(np.int32)], 1)


def _chest_wall(grid: LungGrid, index: int, sides: Bits) -> _Wall:
    chest = convex_hull(sides > 0).astype(np.uint8)
    padded = cv2.copyMakeBorder(chest, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    in_chest = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1] * np.float32(grid.pixel_mm)
    in_body = grid.body_depth_mm(index)
    return _Wall(
        in_chest=np.asarray(in_chest, np.float32),
        in_body=in_body,
        deepest=float(np.percentile(in_body[_rim(chest) > 0], 75)) + SPARE_MM,
        radius=float(np.sqrt(np.count_nonzero(chest) / np.pi)) * grid.pixel_mm,
    )


def _rim(mask: Bits) -> Bits:
    return mask - _eroded(mask, np.ones((3, 3), np.uint8))


def _eroded(mask: Bits, kernel: Bits) -> Bits:
    return np.asarray(cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)
