"""Lesions cut out of one slice and fitted into the lung of another.

The lung is estimated quickly, on one slice alone, to place lesions in; it is not the lung field of a volume. The
healthy lung of both slices must be alike, so that a lesion of one looks right in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.masks import decode_mask, mask_box

Mask = npt.NDArray[np.bool_]

LUNG_HU = -500.0
"""Halfway between fat (-100 HU) and aerated lung (-900 HU); denser disease comes from its annotation."""
BLUR_SHARE = 0.006
"""Standard deviation of the blur before the threshold, as a share of the width: noise parts nothing then."""
LEAST_SHARE = 0.01
"""Least area of a lung, as a share of the picture: trachea and gas in the bowel are mostly smaller."""
CLOSED_SHARE = 0.012
"""Radius of the vessels that are taken in, as a share of the width (4 mm of 350 mm)."""


def estimate_lung(plane: npt.NDArray[np.generic], lesions: Mask) -> Mask:
    """Find air inside of the body, with the annotated lesions and the vessels in it.

    Prepared slices come without a lung field. This estimate errs towards too little: lung that the picture's edge cuts
    open is left out, and dense disease that nobody annotated.

    Args:
        plane: ``(H, W)``: int16 in HU; or uint8 grey levels without HU, which Otsu's threshold parts.
        lesions: bool ``(H, W)``, annotated lesions: they lie in the lung.

    Returns:
        bool ``(H, W)``; all False where there is no lung.
    """
    height, width = plane.shape
    is_grey = plane.dtype == np.uint8
    values: npt.NDArray[Any] = plane if is_grey else plane.astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), BLUR_SHARE * width)
    limit = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)[0] if is_grey else LUNG_HU
    _, labels, stats, _ = cv2.connectedComponentsWithStats((smooth <= limit).astype(np.uint8), connectivity=4)
    left, top, right, bottom = stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]
    keep = (left > 0) & (top > 0) & (right < width) & (bottom < height)  # what reaches the edge is air around the body
    keep &= stats[:, cv2.CC_STAT_AREA] >= LEAST_SHARE * height * width
    keep[0] = False
    if not keep.any():
        return np.zeros((height, width), bool)
    lung = keep[labels] | lesions
    radius = max(1, round(CLOSED_SHARE * width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed: Mask = cv2.morphologyEx(lung.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    return closed


Plane = npt.NDArray[Any]
Window = tuple[slice, slice]

NEAR_PX = 8
"""How far around a lesion its lung is measured."""
LEAST_LUNG_PX = 20
"""With fewer pixels of lung nothing is said of it."""
# Difference of two Laplacians: edges and slopes give 0, noise of unit variance gives variance 36.
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_GAIN = 6.0
_MEDIAN_OF_NORMAL = 0.6745  # median of the magnitude of a standard normal variable


def lung_level(plane: Plane, healthy: Mask, window: Window) -> float:
    """Return the median of the healthy lung around a window, in the plane's values; that of the window without lung.

    Args:
        plane: ``(H, W)``, int16 in HU or uint8 grey.
        healthy: bool ``(H, W)``, lung without lesions.
        window: Rows and columns of the lesion.
    """
    rows, columns = (slice(max(one.start - NEAR_PX, 0), one.stop + NEAR_PX) for one in window)
    near = plane[rows, columns][healthy[rows, columns]]
    if len(near) < LEAST_LUNG_PX:
        near = plane[healthy] if healthy.any() else plane[window]
    return float(np.median(near))


def lung_noise(plane: Plane, healthy: Mask) -> float | None:
    """Return the standard deviation of the noise in healthy lung, in the plane's values; None of too little lung.

    After Immerkaer, Fast Noise Variance Estimation (CVIU 64, 1996), with a median, which vessels do not move. Of noise
    with a texture it measures the fine part alone: good enough to compare two slices.
    """
    if np.count_nonzero(healthy) < LEAST_LUNG_PX:
        return None
    fine = cv2.filter2D(plane.astype(np.float32), cv2.CV_32F, _LAPLACIANS)[healthy]
    return float(np.median(np.abs(fine)) / (_GAIN * _MEDIAN_OF_NORMAL))


Record = dict[str, Any]

LEAST_PX = 20
"""Lesions of fewer pixels are not copied: blended, nothing is left of them."""
LEAST_CONTRAST = 1.5
"""Fainter lesions are not copied either: least distance of their mean from the lung around, in standard deviations of
its noise. The method learns from slices in which the lesions are evident."""
MARGIN_BLENDS = 4
"""Margin around a cutout, in widths of the soft border."""
_BLEND_SHARE = 0.004


@dataclass(frozen=True, eq=False)
class Cutout:
    """A lesion cut out of its slice, with a margin for the soft border.

    Attributes:
        annotation: Its annotation in the dataset dict.
        window: Rows and columns of the slice.
        mask: bool, as large as the window: the lesion.
        footprint: The same with its holes filled: the lumen of a bronchus goes with its wall.
        around: bool, as large: lung and lesions, of which the soft border may take.
    """

    annotation: Record
    window: Window
    mask: Mask
    footprint: Mask
    around: Mask

    def mirrored(self) -> Cutout:
        """Return the lesion with left and right exchanged; its window has a step of -1 along x."""
        rows, columns = self.window
        before = columns.start - 1 if columns.start else None
        window = rows, slice(columns.stop - 1, before, -1)
        turned = (part[:, ::-1] for part in (self.mask, self.footprint, self.around))
        return Cutout(self.annotation, window, *turned)

    def soften(self, blend_px: int) -> npt.NDArray[np.float32]:
        """Return how much of the donor is seen: nearly 1 in the lesion, falling to 0 within a few pixels around it."""
        kernel = np.ones((2 * blend_px + 1,) * 2, np.uint8)
        wide = cv2.dilate(self.footprint.astype(np.uint8), kernel) * (self.around | self.footprint)
        return np.asarray(
            cv2.GaussianBlur(wide.astype(np.float32), (0, 0), blend_px, borderType=cv2.BORDER_CONSTANT), np.float32
        )


@dataclass(frozen=True, eq=False)
class DonorSlice:
    """A slice that lends lesions.

    Attributes:
        planes: ``(H, W)`` each, the slice alone, or between its neighbours.
        cutouts: Its lesions that can be lent.
        levels: For each cutout, the median of the lung around it in each plane.
        noise: Standard deviation in the healthy lung, see :func:`lung_noise`.
    """

    planes: list[Plane]
    cutouts: list[Cutout]
    levels: list[list[float]]
    noise: float | None

    @classmethod
    def of(cls, record: Record, planes: list[Plane]) -> DonorSlice:
        """Cut the lesions out of a slice; undecided regions, and what overlaps them, stay."""
        decided, lesions, undecided = sort_masks(record, planes[0].shape)
        middle = planes[len(planes) // 2]
        lung = estimate_lung(middle, lesions)
        margin = MARGIN_BLENDS * blend_px(planes[0])
        cut = [_cut(annotation, mask, lung, margin) for annotation, mask in decided if mask.sum() >= LEAST_PX]
        healthy = lung & ~lesions & ~undecided
        noise = lung_noise(middle, healthy)
        cutouts, levels = [], []
        for one in cut:
            around = [lung_level(plane, healthy, one.window) for plane in planes]
            contrast = abs(float(middle[one.window][one.mask].mean()) - around[len(planes) // 2])
            if contrast >= LEAST_CONTRAST * (noise or 0.0) and not (one.footprint & undecided[one.window]).any():
                cutouts.append(one)
                levels.append(around)
        return cls(planes, cutouts, levels, noise)


def sort_masks(record: Record, shape: tuple[int, ...]) -> tuple[list[tuple[Record, Mask]], Mask, Mask]:
    """Sort the annotations of a dataset dict.

    Returns:
        The decided annotations with their masks, bool ``(H, W)``; all of these together; what is undecided.
    """
    decided: list[tuple[Record, Mask]] = []
    lesions, undecided = np.zeros(shape, bool), np.zeros(shape, bool)
    for annotation in record["annotations"]:
        mask = decode_mask(annotation["segmentation"])
        if annotation.get("iscrowd", 0):
            undecided |= mask
        else:
            decided.append((annotation, mask))
            lesions |= mask
    return decided, lesions, undecided


def blend_px(plane: Plane) -> int:
    """Return the standard deviation of the soft border: 0.4 % of the width, about as sharp as a lung kernel."""
    return max(1, round(_BLEND_SHARE * plane.shape[1]))


def _cut(annotation: Record, mask: Mask, lung: Mask, margin: int) -> Cutout:
    x0, y0, x1, y1 = mask_box(mask)
    window = (
        slice(max(y0 - margin, 0), min(y1 + margin, mask.shape[0])),
        slice(max(x0 - margin, 0), min(x1 + margin, mask.shape[1])),
    )
    part = mask[window]
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(part.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    return Cutout(annotation, window, part, filled | part, lung[window])
