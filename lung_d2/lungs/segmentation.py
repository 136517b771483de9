"""Our own segmentation of the lungs: thresholds and morphology, no network.

Air in the body is parted into lung and free gas (trachea, main bronchi, stomach, bowel, skin folds); the lungs are told
apart by the path through the mediastinum that crosses the least lung, and filled where they are dense.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lung_d2.ct.volume import CTVolume
from lung_d2.lungs.grid import LEFT, RIGHT, Bits, LungGrid
from lung_d2.lungs.shape import add_haze, fill_lungs

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
MIDLINE_COST = 0.3
"""Cost of a pixel 100 mm off the spine; one of aerated lung costs up to 1."""
BONE_HU = 250
SPINE_MM = 15.0
"""Half width of the spine."""
OFF_MIDDLE_MM = 100.0
"""How far off the middle of the body the spine may be, in a field of view that holds one lung."""
BEND_COST = 0.02
"""Cost of a step aside."""
SMOOTH_MM = 6.0
"""Slices within this distance share their costs, so that paths change little from slice to slice."""
ONE_SIDE = 0.9
"""A part of the lungs that has this share on one side of the path belongs there as a whole."""


def segment_lungs(volume: CTVolume) -> Bits:
    """Segment the lungs: air in the body without airways and bowel, filled where vessels and disease are dense.

    It works on any number of slices of any thickness and direction, of patients in any position. Ground glass,
    vessels, bronchi in the lung and dense disease that aerated lung surrounds on a slice, except at the chest wall,
    are part of the field; a lobe that is dense from the pleura to the hilum is not. Trachea, main bronchi and gas in
    the bowel are not.

    Args:
        volume: The CT. Patient's right and left, and mm, come from its ``affine_lps`` and ``spacing_mm``.

    Returns:
        uint8 ``[Z, Y, X]``: 0 outside, 1 the patient's right lung, 2 the left; all 0 if there are no lungs.
    """
    grid = LungGrid.of(volume)
    lung, gas = part_gas(grid)
    lung, gas = _without_bowel(grid, lung, gas)
    if not lung.any():
        return np.zeros(volume.hu.shape, np.uint8)
    sides = part_sides(grid, add_haze(grid, lung, gas))
    labels = _at_full_size(grid, fill_lungs(grid, sides, gas), gas)
    return np.asarray(grid.to_volume(labels), np.uint8)


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
    """Find where gas continues into what was taken for lung: a bronchus opens into it, or bowel touches it."""
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
