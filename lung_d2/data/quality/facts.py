"""What is measured of every slice when it is imported: for selection, splits, the leak check and the report.

The facts of a slice, ready for JSON (None: unknown, where the source has no HU, no spacing or no lung field)::

    instances       for each lesion, in the order of the record's annotations: category_id, category, area_px, area_mm2,
                    mean_hu, contrast_hu, in_lung (share of its pixels)
    lesion_px       pixels of all lesions together; lesion_in_lung_px: those in the lung field
    lung_px         pixels of the lung field; lung_mm2
    undecided_px    pixels that the source leaves undecided
    specks          parts of masks that were left out as too small
    tiny_parts      parts of the lesions of fewer than 4 pixels, which are in the data set
    empty_masks     instances without a pixel, which get no annotation
    levels          what the plane holds, see :func:`_measure_levels`
    spine           side of the body where the bone lies, see :func:`_find_spine`
    thumbnail       the trunk in 16 x 16 bytes, hexadecimal, by rows; empty where there is none
    digest          hash of the plane; equal for equal planes, empty for a plane of one value
    fingerprint     perceptual hash, see :mod:`lung_d2.data.quality.fingerprint`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.quality.fingerprint import slice_fingerprint
from lung_d2.data.splits import PatientLoad
from lung_d2.masks import Mask, mask_box

Plane = npt.NDArray[Any]

THUMBNAIL_SIDE = 16
TINY_PX = 4
"""A part of a mask with fewer pixels is more likely a slip of the pen than a lesion."""
_THUMBNAIL_HU = (-1000.0, 400.0)  # air to bone, where the body's outline and the spine show
_COARSE_WIDTH = 128  # pixels that tell enough of where the body and its bones are
_SURROUND_MM = 10.0  # far enough for some hundred pixels of lung, near enough to share the lesion's gradient
_LEAST_SURROUND_PX = 20
_AIR_HU = (-1100, -500)  # from air with its noise to lung
_BONE_HU = 250
_SOFT_HU = (-200, 150)
_LEAST_BONE_PX = 20


def measure_slice(item: AnnotatedSlice) -> dict[str, Any]:
    """Measure one slice.

    Args:
        item: The slice, its lesions and its lung field.

    Returns:
        Its facts, ready for JSON; see the module.
    """
    lesions = [(category, mask) for category, mask in item.instances if mask.any()]
    every = np.zeros(item.plane.shape, bool)
    for _, mask in lesions:
        every |= mask
    pixel_mm2 = item.pixel_spacing_mm[0] * item.pixel_spacing_mm[1] if item.pixel_spacing_mm else None
    healthy = None
    if item.lungs is not None:
        healthy = item.lungs & ~every if item.undecided is None else item.lungs & ~every & ~item.undecided
    thumbnail = _thumbnail(item.plane)
    lung_px = None if item.lungs is None else int(np.count_nonzero(item.lungs))
    return {
        "instances": [_measure_instance(item, category, mask, healthy, pixel_mm2) for category, mask in lesions],
        "lesion_px": int(np.count_nonzero(every)),
        "lesion_in_lung_px": None if item.lungs is None else int(np.count_nonzero(every & item.lungs)),
        "lung_px": lung_px,
        "lung_mm2": None if lung_px is None or pixel_mm2 is None else lung_px * pixel_mm2,
        "undecided_px": 0 if item.undecided is None else int(np.count_nonzero(item.undecided)),
        "specks": item.specks,
        "tiny_parts": _count_tiny_parts(every) if lesions else 0,
        "empty_masks": len(item.instances) - len(lesions),
        "levels": _measure_levels(item.plane),
        "spine": _find_spine(item.plane),
        "thumbnail": "" if thumbnail is None else thumbnail.tobytes().hex(),
        "digest": _digest(item.plane),
        "fingerprint": slice_fingerprint(item.plane),
    }


def measure_loads(records: Iterable[Mapping[str, Any]]) -> dict[str, PatientLoad]:
    """Add up the lesions of each patient, for splits that share them out evenly.

    Args:
        records: Image records with annotations and facts, of any order.

    Returns:
        The load of each patient, those without lesions included; undecided regions count as nothing.
    """
    areas: dict[str, dict[str, float]] = {}
    for record in records:
        mine = areas.setdefault(record["patient"], {})
        for instance in record["facts"]["instances"]:
            name = instance["category"]
            known = instance["area_mm2"] is not None
            mine[name] = mine.get(name, 0.0) + (instance["area_mm2"] if known else instance["area_px"])
    return {patient: PatientLoad(mine) for patient, mine in areas.items()}


def _measure_instance(
    item: AnnotatedSlice, category: Category, mask: Mask, healthy: Mask | None, pixel_mm2: float | None
) -> dict[str, Any]:
    area = int(np.count_nonzero(mask))
    is_hu = item.plane.dtype == np.int16
    return {
        "category_id": category.coco_id,
        "category": category.name,
        "area_px": area,
        "area_mm2": None if pixel_mm2 is None else area * pixel_mm2,
        "mean_hu": float(item.plane[mask].mean()) if is_hu else None,
        "contrast_hu": _contrast_hu(item.plane, mask, healthy, pixel_mm2) if is_hu and healthy is not None else None,
        "in_lung": None if item.lungs is None else float(np.count_nonzero(mask & item.lungs) / area),
    }


def _contrast_hu(plane: Plane, mask: Mask, healthy: Mask, pixel_mm2: float | None) -> float | None:
    """Return how far a lesion stands out of the lung around it, in HU; None where there is too little lung.

    It is the larger of two distances from the median of the healthy lung within 10 mm: that of the lesion's 90th
    percentile above it (haze, walls) and that of its 10th percentile below it (the lumen of a wide bronchus). Both
    are of the slice blurred by 3 x 3 pixels, so that noise alone makes no contrast.
    """
    margin = int(np.ceil(_SURROUND_MM / np.sqrt(pixel_mm2 or 1.0)))
    left, top, right, bottom = mask_box(mask)
    crop = slice(max(top - margin, 0), bottom + margin), slice(max(left - margin, 0), right + margin)
    hu = cv2.blur(plane[crop].astype(np.float32), (3, 3))
    distance = cv2.distanceTransform((~mask[crop]).astype(np.uint8), cv2.DIST_L2, 3)
    around = hu[healthy[crop] & (distance <= margin)]
    if len(around) < _LEAST_SURROUND_PX:
        return None
    low, high = np.percentile(hu[mask[crop]], (10, 90))
    middle = float(np.median(around))
    return float(max(high - middle, middle - low))


def _count_tiny_parts(mask: Mask) -> int:
    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2]
    return int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] < TINY_PX))


def _measure_levels(plane: Plane) -> dict[str, float]:
    """Return what tells whether the numbers can be HU; shares are of the slice's pixels.

    ``air``: -1100 to -500; ``soft``: above -200; ``below_air``: below -1100, where no matter is, except for the lowest
    value of all, which many scanners put outside the field of view.
    """
    lowest, highest = int(plane.min()), int(plane.max())
    levels: dict[str, float] = {"min": lowest, "max": highest}
    if plane.dtype == np.int16:
        levels["air"] = _share((plane >= _AIR_HU[0]) & (plane < _AIR_HU[1]))
        levels["soft"] = _share(plane > _SOFT_HU[0])
        levels["below_air"] = _share((plane < _AIR_HU[0]) & (plane > lowest))
    return levels


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return round(float(np.count_nonzero(mask) / mask.size), 6)


def _find_spine(plane: Plane) -> tuple[float, float] | None:
    """Return on which side of the body most of the bone lies; None without HU, or with too little of either.

    Returns:
        Rows and columns from the middle of the soft tissue to that of the bone, in standard deviations of the soft
        tissue. About (0.5, 0) where the spine is at the bottom, as it is shown of a patient on the back.
    """
    if plane.dtype != np.int16:
        return None
    coarse = _coarse(plane)
    bone = np.argwhere(coarse > _BONE_HU)
    soft = np.argwhere((coarse > _SOFT_HU[0]) & (coarse <= _SOFT_HU[1]))
    if len(bone) < _LEAST_BONE_PX or len(soft) < _LEAST_BONE_PX:
        return None
    row, column = (bone.mean(axis=0) - soft.mean(axis=0)) / np.maximum(soft.std(axis=0), 1.0)
    return round(float(row), 3), round(float(column), 3)


def _thumbnail(plane: Plane) -> npt.NDArray[np.uint8] | None:
    """Return the box around the trunk, stretched to uint8 ``(16, 16)``; None where nothing stands out of the air.

    The box takes out where the trunk lies and how large it is, so that the thumbnails of patients can be compared.
    """
    grey = _coarse(plane).astype(np.float32)
    if plane.dtype == np.int16:
        low, high = _THUMBNAIL_HU
        grey = (np.clip(grey, low, high) - low) * (255 / (high - low))
    # The largest part that is left when what is thin (table, arms' skin, noise) is gone: a box needs no more.
    smooth = np.rint(cv2.blur(grey, (3, 3))).astype(np.uint8)
    dense = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    parts = cv2.morphologyEx(dense, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(parts)
    if count < 2:
        return None
    left, top, width, height = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4]
    crop = grey[top : top + height, left : left + width]
    return np.rint(cv2.resize(crop, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def _coarse(plane: Plane) -> Plane:
    step = max(1, plane.shape[1] // _COARSE_WIDTH)
    return plane[::step, ::step]


def _digest(plane: Plane) -> str:
    if plane.min() == plane.max():
        return ""
    return hashlib.blake2b(np.ascontiguousarray(plane).tobytes(), digest_size=8).hexdigest()
