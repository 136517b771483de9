"""What is measured of every slice when it is imported: for selection, splits, the leak check and the report.

The facts of a slice, ready for JSON (None: unknown, where the source has no HU, no spacing or no lung field)::

    instances       for each lesion, in the order of the record's annotations: category_id, area_px, area_mm2,
                    mean_hu, contrast_hu, in_lung (share of its pixels)
    lesion_px       pixels of all lesions together; lesion_in_lung_px: those in the lung field
    lung_px         pixels of the lung field; lung_mm2
    undecided_px    pixels that the source leaves undecided
    specks          parts of masks that were left out as too small
    empty_masks     instances without a pixel, which get no annotation
    levels          what the plane holds, see :func:`_measure_levels`
    thumbnail       the slice in 16 x 16 bytes, hexadecimal, by rows
    digest          hash of the plane; equal for equal planes, empty for a plane of one value
    fingerprint     perceptual hash, see :mod:`lung_d2.data.leaks`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.data.cases import AnnotatedSlice, Mask

if TYPE_CHECKING:
    from lung_d2.data.splits import PatientLoad

THUMBNAIL_SIDE = 16
_THUMBNAIL_HU = (-1000.0, 400.0)  # air to bone, where the body's outline and the spine show
_SURROUND_MM = 10.0  # far enough for some hundred pixels of lung, near enough to share the lesion's gradient
_LEAST_SURROUND_PX = 20


def measure_slice(item: AnnotatedSlice) -> dict[str, Any]:
    """Measure one slice.

    Args:
        item: The slice, its lesions and its lung field.

    Returns:
        Its facts, ready for JSON; see the module.
    """
    from lung_d2.data.leaks import slice_fingerprint

    lesions = [(category, mask) for category, mask in item.instances if mask.any()]
    every = np.zeros(item.plane.shape, bool)
    for _, mask in lesions:
        every |= mask
    pixel_mm2 = item.pixel_spacing_mm[0] * item.pixel_spacing_mm[1] if item.pixel_spacing_mm else None
    healthy = None
    if item.lungs is not None:
        healthy = item.lungs & ~every if item.undecided is None else item.lungs & ~every & ~item.undecided
    lung_px = None if item.lungs is None else int(np.count_nonzero(item.lungs))
    return {
        "instances": [_measure_instance(item, category, mask, healthy, pixel_mm2) for category, mask in lesions],
        "lesion_px": int(np.count_nonzero(every)),
        "lesion_in_lung_px": None if item.lungs is None else int(np.count_nonzero(every & item.lungs)),
        "lung_px": lung_px,
        "lung_mm2": None if lung_px is None or pixel_mm2 is None else lung_px * pixel_mm2,
        "undecided_px": 0 if item.undecided is None else int(np.count_nonzero(item.undecided)),
        "specks": item.specks,
        "empty_masks": len(item.instances) - len(lesions),
        "levels": _measure_levels(item.plane),
        "thumbnail": _thumbnail(item.plane).tobytes().hex(),
        "digest": _digest(item.plane),
        "fingerprint": slice_fingerprint(item.plane),
    }


def measure_loads(records: Iterable[Mapping[str, Any]]) -> dict[str, PatientLoad]:
    """Add up the lesions of each patient, for splits that share them out evenly.

    Args:
        records: Image records with annotations and facts.

    Returns:
        The load of each patient.
    """
    raise NotImplementedError


def _measure_instance(
    item: AnnotatedSlice, category: Category, mask: Mask, healthy: Mask | None, pixel_mm2: float | None
) -> dict[str, Any]:
    area = int(np.count_nonzero(mask))
    is_hu = item.plane.dtype == np.int16
    return {
        "category_id": category.coco_id,
        "area_px": area,
        "area_mm2": None if pixel_mm2 is None else area * pixel_mm2,
        "mean_hu": float(item.plane[mask].mean()) if is_hu else None,
        "contrast_hu": _contrast_hu(item.plane, mask, healthy, pixel_mm2) if is_hu and healthy is not None else None,
        "in_lung": None if item.lungs is None else float(np.count_nonzero(mask & item.lungs) / area),
    }


def _contrast_hu(plane: npt.NDArray[np.generic], mask: Mask, healthy: Mask, pixel_mm2: float | None) -> float | None:
    """Return how far a lesion stands out of the lung around it, in HU; None where there is too little lung.

    It is the larger of two distances from the median of the healthy lung within 10 mm: that of the lesion's 90th
    percentile above it (haze, walls) and that of its 10th percentile below it (the lumen of a wide bronchus). Both
    are of the slice blurred by 3 x 3 pixels, so that noise alone makes no contrast.
    """
    margin = int(np.ceil(_SURROUND_MM / np.sqrt(pixel_mm2 or 1.0)))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )
    hu = cv2.blur(plane[crop].astype(np.float32), (3, 3))
    distance = cv2.distanceTransform((~mask[crop]).astype(np.uint8), cv2.DIST_L2, 3)
    around = hu[healthy[crop] & (distance <= margin)]
    if len(around) < _LEAST_SURROUND_PX:
        return None
    low, high = np.percentile(hu[mask[crop]], (10, 90))
    middle = float(np.median(around))
    return float(max(high - middle, middle - low))


def _measure_levels(plane: npt.NDArray[np.generic]) -> dict[str, float]:
    return {"min": int(plane.min()), "max": int(plane.max())}


def _thumbnail(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    small = cv2.resize(plane.astype(np.float32), (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    if plane.dtype == np.int16:
        low, high = _THUMBNAIL_HU
        small = (np.clip(small, low, high) - low) * (255 / (high - low))
    return np.rint(small).astype(np.uint8)


def _digest(plane: npt.NDArray[np.generic]) -> str:
    if plane.min() == plane.max():
        return ""
    return hashlib.blake2b(np.ascontiguousarray(plane).tobytes(), digest_size=8).hexdigest()
