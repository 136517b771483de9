"""Turn the masks of lesions into instance maps and a list of the lesions in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY

SPECK_MM2 = 16.0
EVIDENT_MM2 = 40.0


@dataclass(frozen=True)
class PhantomLesion:
    """One lesion of a phantom.

    Attributes:
        category: Name of the category, see :mod:`lung_d2.categories`.
        instance_id: Its value in the category's instance map, from 1.
        kind: Its shape: ``round``, ``patch``, ``crescent``, ``large``; ``cylindric``, ``varicose``, ``cystic``.
        center_mm: ``(x, y, z)``, LPS, mm.
        volume_ml: Volume of its voxels.
        analytic_ml: Exact volume where a formula gives it (an ellipsoid wholly inside the lung), else None.
        slice_indices: Slices on which it is marked.
    """

    category: str
    instance_id: int
    kind: str
    center_mm: tuple[float, float, float]
    volume_ml: float
    analytic_ml: float | None
    slice_indices: tuple[int, ...]


def stack_instances(masks: list[dict[int, np.ndarray]], shape: tuple[int, int], pixel_mm: float) -> np.ndarray:
    """Put the masks of all slices into one map of instances.

    What no reader would mark is left out: specks below 16 mm2 on a slice, and lesions below 40 mm2 on every slice.

    Args:
        masks: For each slice, bool ``(H, W)`` masks by index of the lesion.
        shape: Rows and columns.
        pixel_mm: Pixel size, mm.

    Returns:
        uint16 ``(Z, H, W)``: 0 background, index + 1 a lesion; where two overlap, the earlier one stays.
    """
    instances = np.zeros((len(masks), *shape), np.uint16)
    largest: dict[int, float] = {}
    area = pixel_mm * pixel_mm
    for plane, found in zip(instances, masks, strict=True):
        for index, mask in found.items():
            kept = drop_specks(mask, SPECK_MM2 / area) & (plane == 0)
            plane[kept] = index + 1
            largest[index] = max(largest.get(index, 0.0), float(kept.sum()) * area)
    for index, most in largest.items():
        if most < EVIDENT_MM2:
            instances[instances == index + 1] = 0
    return instances


def drop_specks(mask: np.ndarray, least_pixels: float) -> np.ndarray:
    """Return a bool mask ``(H, W)`` without its connected parts of fewer pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= least_pixels
    return keep[labels]


def list_lesions(
    shapes: tuple[tuple, tuple], maps: list[np.ndarray], voxel_mm3: float
) -> tuple[dict[str, np.ndarray], tuple[PhantomLesion, ...]]:
    """Number the marked lesions of each category without gaps, and describe them.

    Args:
        shapes: The lesions as drawn: :class:`~lung_d2.phantom.lesions.Opacity` and ``DilatedBronchi``.
        maps: For each of the two, uint16 ``(Z, H, W)``, value index + 1.
        voxel_mm3: Volume of a voxel, mm3.

    Returns:
        The map of each category's name, with values 1..n, and all lesions in the order of those values.
    """
    instances: dict[str, np.ndarray] = {}
    lesions: tuple[PhantomLesion, ...] = ()
    for category, drawn, stacked in zip((GROUND_GLASS_OPACITY, BRONCHIECTASIS), shapes, maps, strict=True):
        instances[category.name], found = _list_category(category.name, drawn, stacked, voxel_mm3)
        lesions += found
    return instances, lesions


def _list_category(
    category: str, shapes: tuple, instances: np.ndarray, voxel_mm3: float
) -> tuple[np.ndarray, tuple[PhantomLesion, ...]]:
    counts = np.bincount(instances.ravel(), minlength=len(shapes) + 1)
    number = np.zeros(len(counts), np.uint16)
    present = [index for index in range(len(shapes)) if counts[index + 1]]
    number[[index + 1 for index in present]] = np.arange(1, len(present) + 1)
    lesions = tuple(
        PhantomLesion(
            category=category,
            instance_id=int(number[index + 1]),
            kind=shapes[index].kind,
            center_mm=shapes[index].center,
            volume_ml=float(counts[index + 1]) * voxel_mm3 / 1000.0,
            analytic_ml=getattr(shapes[index], "analytic_ml", None),
            slice_indices=tuple(np.flatnonzero((instances == index + 1).any(axis=(1, 2))).tolist()),
        )
        for index in present
    )
    return number[instances], lesions
