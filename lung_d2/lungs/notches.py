"""Dense disease at the chest wall: notches in the outline of the lungs that open outwards."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.lungs.grid import Bits, LungGrid
from lung_d2.lungs.sides import LEFT, RIGHT

CHORD_MM, HALF_MM = 120.0, 3.0
"""Longest chord across a notch, from lung to lung, and least half thickness of the notch."""
SHALLOW_CHORD_MM, SHALLOW_HALF_MM = 40.0, 1.5
"""The same of shallow notches; wider ones of that kind are the breastbone, which presses on the lung."""
IN_CHEST_MM = 20.0
"""The chord is nowhere deeper than this in the hull of both lungs; chords across heart and spine are."""
SPARE_MM = 15.0
"""How much deeper under the skin the chord may lie than three quarters of the outline of the lungs."""

Bools = npt.NDArray[np.bool_]


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


def fill_notches(grid: LungGrid, index: int, sides: Bits, gas: Bits) -> None:
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
        hull = _hull(lung)
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
    chest = _hull((sides > 0).astype(np.uint8))
    padded = cv2.copyMakeBorder(chest, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    in_chest = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1] * np.float32(grid.pixel_mm)
    in_body = grid.body_depth_mm(index)
    return _Wall(
        in_chest=np.asarray(in_chest, np.float32),
        in_body=in_body,
        deepest=float(np.percentile(in_body[_rim(chest) > 0], 75)) + SPARE_MM,
        radius=float(np.sqrt(np.count_nonzero(chest) / np.pi)) * grid.pixel_mm,
    )


def _hull(mask: Bits) -> Bits:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = np.zeros(mask.shape, np.uint8)
    return np.asarray(cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), 1), np.uint8)


def _rim(mask: Bits) -> Bits:
    return mask - _eroded(mask, np.ones((3, 3), np.uint8))


def _eroded(mask: Bits, kernel: Bits) -> Bits:
    return np.asarray(cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)
