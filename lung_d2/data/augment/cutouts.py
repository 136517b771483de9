"""Lesions cut out of a slice, ready to be placed in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.data.augment.lung_air import estimate_lung
from lung_d2.data.augment.lung_values import Mask, Plane, Window, lung_level, lung_noise
from lung_d2.masks import decode_mask

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


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _cut(annotation: Record, mask: Mask, lung: Mask, margin: int) -> Cutout:
    x0, y0, x1, y1 = box_of(mask)
    window = (
        slice(max(y0 - margin, 0), min(y1 + margin, mask.shape[0])),
        slice(max(x0 - margin, 0), min(x1 + margin, mask.shape[1])),
    )
    part = mask[window]
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(part.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    return Cutout(annotation, window, part, filled | part, lung[window])
