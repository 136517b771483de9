"""The lung field of a CT volume: where the lungs are, right and left, with what is dense in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError
from lung_d2.lungs.airways import part_gas
from lung_d2.lungs.grid import Bits, LungGrid
from lung_d2.lungs.shape import add_haze, fill_lungs
from lung_d2.lungs.sides import LEFT, RIGHT, part_sides

EDGE_HU = -150
"""Pixels at the outline below this are lung: halfway between dense ground glass (-300 HU) and soft tissue."""
EDGE_MM = 1.5
"""How far beyond the coarse outline they may be."""
MAIN_SHARE = 0.05
"""Parts of the air in the chest of at least this share of the largest are lung."""
LEAST_MM2 = 300.0
"""The largest part has at least this area on some slice, or there are no lungs."""
LEAST_ML = 10.0
FEW_MM = 30.0
"""And at least this volume, where the slices cover this distance."""
SURE_MM2 = 3000.0
"""A part that is nowhere larger than this on a slice may be stool: it is lung only where it lies along the ribs."""
RIB_HU, RIB_MM, RIB_SHARE = 200, 12.0, 0.15
"""Bone is above this; at least this share of the outline of a lung is this near to it (0.3 and more in small parts)."""
PIECE_ML = 0.1
"""Smaller pieces apart from the lungs are left out."""
NEAR_MM = (6.0, 10.0)
"""How far from the lungs a piece may be, along and across the slice normal."""
DENSER_HU = 150
"""How much denser than the lungs a piece may be; stool is denser."""
BOWEL_MM = 3.0
"""A piece this near to free gas is bowel."""


@dataclass(frozen=True, eq=False)
class LungField:
    """Where the lungs are.

    Attributes:
        labels: uint8 ``[Z, Y, X]``, read-only: 0 outside, 1 the patient's right lung, 2 the left.
        spacing_mm: (z, y, x), that of the volume.

    Raises:
        GeometryError: ``labels`` is no such array.
    """

    labels: npt.NDArray[np.uint8] = field(repr=False)
    spacing_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the labels and make them read-only."""
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8 or self.labels.max(initial=0) > LEFT:
            raise GeometryError(
                "LungField",
                found=f"{self.labels.dtype} labels of {self.labels.ndim} dimensions",
                expected="uint8 of three, from 0 to 2",
                remedy="convert them",
            )
        self.labels.setflags(write=False)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Both lungs, bool ``[Z, Y, X]``."""
        mask: npt.NDArray[np.bool_] = self.labels > 0
        return mask

    @property
    def slice_areas_mm2(self) -> npt.NDArray[np.float64]:
        """Area of the lungs on each slice, mm2, float64 ``[Z]``; 0 on slices without lung."""
        pixel_mm2 = self.spacing_mm[1] * self.spacing_mm[2]
        return np.array([cv2.countNonZero(plane) * pixel_mm2 for plane in self.labels], np.float64)

    def box(self, margin_mm: float = 0.0) -> tuple[slice, slice]:
        """Return the rows and columns that hold the lungs on all slices.

        Args:
            margin_mm: Added on each side, as far as the picture goes.

        Returns:
            Rows and columns; empty slices where there are no lungs.
        """
        filled = np.asarray(self.labels.any(axis=0))
        spans = []
        for other, size, mm in ((1, filled.shape[0], self.spacing_mm[1]), (0, filled.shape[1], self.spacing_mm[2])):
            hits = np.flatnonzero(filled.any(axis=other))
            margin = round(margin_mm / mm)
            ends = (max(0, int(hits[0]) - margin), min(size, int(hits[-1]) + 1 + margin)) if hits.size else (0, 0)
            spans.append(slice(*ends))
        return spans[0], spans[1]


def find_lungs(volume: CTVolume) -> LungField:
    """Find the lungs: air in the body without airways and bowel, filled where vessels and disease are dense.

    It works on any number of slices of any thickness and direction, of patients in any position. Ground glass,
    vessels, bronchi in the lung and dense disease that aerated lung surrounds, on a slice and but for the chest wall,
    are part of the field; a lobe that is dense from the pleura to the hilum is not. Trachea, main bronchi and gas in
    the bowel are not.

    Args:
        volume: The CT. Patient's right and left, and mm, come from its ``affine_lps`` and ``spacing_mm``.

    Returns:
        The lung field; all 0 where there are no lungs.
    """
    grid = LungGrid.of(volume)
    lung, gas = part_gas(grid)
    lung, gas = _without_bowel(grid, lung, gas)
    if not lung.any():
        return LungField(np.zeros(volume.hu.shape, np.uint8), volume.spacing_mm)
    sides = part_sides(grid, add_haze(grid, lung, gas))
    labels = _at_full_size(grid, fill_lungs(grid, sides, gas), gas)
    return LungField(grid.to_volume(labels), volume.spacing_mm)


def _without_bowel(grid: LungGrid, air: Bits, gas: Bits) -> tuple[Bits, Bits]:
    """Keep the parts of the air that are lungs, and those pieces beside them that are like them."""
    labels, count = ndimage.label(air)
    voxels = np.bincount(labels[air > 0], minlength=count + 1)
    largest = int(voxels.argmax())
    if not _may_be_lung(grid, labels == largest, int(voxels[largest])):
        return np.zeros_like(air), gas
    keep = voxels >= MAIN_SHARE * voxels[largest]
    main = keep[labels].astype(np.uint8)
    near = _widened(grid, main, *NEAR_MM)
    beside_gas = _widened(grid, gas, grid.slice_mm, BOWEL_MM)
    densest = np.median(grid.coarse[main > 0]) + DENSER_HU
    least = PIECE_ML * 1000.0 / (grid.slice_mm * grid.pixel_mm**2)
    windows = ndimage.find_objects(labels)
    bowel = np.zeros(count + 1, np.uint8)
    for label in np.flatnonzero(~keep[1:]) + 1:
        window = windows[label - 1]
        part = labels[window] == label
        if beside_gas[window][part].any():
            bowel[label] = 1
        elif voxels[label] >= least and near[window][part].any():
            keep[label] = np.median(grid.coarse[window][part]) < densest
    return keep[labels].astype(np.uint8), gas | bowel[labels]


def _may_be_lung(grid: LungGrid, part: npt.NDArray[np.bool_], voxels: int) -> bool:
    largest_mm2 = float(np.count_nonzero(part, axis=(1, 2)).max()) * grid.pixel_mm**2
    if not voxels or largest_mm2 < LEAST_MM2:
        return False
    ml = voxels * grid.slice_mm * grid.pixel_mm**2 / 1000.0
    if ml < LEAST_ML and len(part) * grid.slice_mm >= FEW_MM:
        return False
    bone = ((grid.coarse > RIB_HU) & (grid.body > 0)).astype(np.uint8)
    if largest_mm2 >= SURE_MM2 or not bone.any():
        return True
    edge = np.stack([plane - cv2.erode(plane, grid.kernel(grid.pixel_mm)) for plane in part.astype(np.uint8)])
    near_bone = np.stack([cv2.dilate(plane, grid.kernel(RIB_MM)) for plane in bone])
    return bool(near_bone[edge > 0].mean() >= RIB_SHARE)


def _widened(grid: LungGrid, mask: Bits, along_mm: float, across_mm: float) -> Bits:
    wide = np.stack([cv2.dilate(plane, grid.kernel(across_mm)) for plane in mask])
    widened: Bits = ndimage.maximum_filter1d(wide, 2 * grid.slices(along_mm) + 1, axis=0)
    return widened


def _at_full_size(grid: LungGrid, sides: Bits, gas: Bits) -> Bits:
    """Bring the lung field to full size, with its outline where the fine pixels have it: uint8 ``[S, P, L]``."""
    labels = np.zeros(grid.hu.shape, np.uint8)
    for index in np.flatnonzero(sides.any(axis=(1, 2))):
        masks = []
        for side in (RIGHT, LEFT):
            part = (sides[index] == side).astype(np.uint8)
            around = cv2.dilate(part, grid.kernel(EDGE_MM)) & (1 - gas[index])
            masks.append((side, grid.enlarge(part, smooth=True), grid.enlarge(around, smooth=False)))
        for fine in grid.fine_slices(int(index)):
            airy = grid.hu[fine] < EDGE_HU
            for side, inner, around in masks:
                lung = cv2.medianBlur(inner | (around & airy), 3)  # noise at the outline
                labels[fine][(lung > 0) & (labels[fine] == 0)] = side
    return labels
