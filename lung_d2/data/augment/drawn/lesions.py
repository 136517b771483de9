"""New lesions drawn into each training slice, in HU and in grey levels alike, and what looks like lesions.

Domain randomisation (SynthSeg, Billot et al., Medical Image Analysis 86, 2023): sizes, walls, fillings, neighbours and
sharpness vary more than they do in people, so that people lie within.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.structures import BoxMode

from lung_d2.data.augment.cutouts import Record, sort_masks
from lung_d2.data.augment.drawn.bronchi import draw_cluster
from lung_d2.data.augment.drawn.canvas import FIELD_MM, Canvas, Mask, Plane
from lung_d2.data.augment.drawn.confounders import draw_confounders
from lung_d2.data.augment.drawn.opacities import draw_collapse, draw_opacity
from lung_d2.masks import encode_mask, mask_box

OPACITY, BRONCHI = 0, 1
"""Numbers of the two categories that are drawn."""
LEAST_PX = 12
"""Remains of an opacity below this are not a lesion."""


@dataclass(frozen=True)
class DrawnLesions:
    """What is drawn into training slices.

    Attributes:
        bronchi: Share of the slices with drawn bronchi, 0 to 1.
        opacities: Share of the slices with drawn opacities, 0 to 1, where none is annotated; a third of it elsewhere.
        confounders: Share of the slices with drawn confounders, 0 to 1.
        max_clusters: Most places with bronchi on a slice, 1 or more; their number is drawn evenly.
        max_opacities: Likewise.
    """

    bronchi: float = 0.0
    opacities: float = 0.0
    confounders: float = 0.0
    max_clusters: int = 8
    max_opacities: int = 4

    @property
    def any(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.bronchi or self.opacities or self.confounders)

    def __call__(self, record: Record, planes: list[Plane]) -> list[Plane]:
        """Draw into a slice at random, seeded by numpy's global generator.

        Args:
            record: Dataset dict of the slice; what is drawn is added to its ``annotations``.
            planes: ``(H, W)`` each, the slice alone, or between its neighbours, into which the same is drawn.

        Returns:
            The planes, new where something was drawn.
        """
        seed = np.random.randint(0, 2**31, 4)
        middle = len(planes) // 2
        _, lesions, undecided = sort_masks(record, planes[middle].shape)
        spacing = record.get("pixel_spacing_mm")
        pixel_mm = spacing[1] if spacing else FIELD_MM / planes[middle].shape[1]
        canvas = Canvas.of(planes[middle], lesions | undecided, pixel_mm, np.random.default_rng(seed))
        if canvas is None:
            return planes
        lung = canvas.lung.copy()
        found = self._draw(canvas, lesions)
        drawn = []
        for index, plane in enumerate(planes):
            if index == middle:
                drawn.append(canvas.to_plane())
            else:
                other = Canvas.of(plane, lesions | undecided, pixel_mm, np.random.default_rng(seed), lung)
                if other is not None:
                    self._draw(other, lesions)
                drawn.append(plane if other is None else other.to_plane())
        record["annotations"] = [*record["annotations"], *(_annotate(mask, number) for mask, number in found)]
        return drawn

    def _draw(self, canvas: Canvas, lesions: Mask) -> list[tuple[Mask, int]]:
        """Draw into one plane, and return the instances with the numbers of their categories."""
        rng = canvas.rng
        if rng.random() < self.confounders:
            draw_confounders(canvas)
        opacities: list[Mask] = []
        if rng.random() < self.opacities * (1.0 if not lesions.any() else 1 / 3):
            for _ in range(int(rng.integers(1, self.max_opacities + 1))):
                mask = draw_opacity(canvas)
                if mask is not None:
                    opacities.append(mask)
        bronchi: list[Mask] = []
        taken = np.zeros(canvas.shape, bool)
        if rng.random() < self.bronchi:
            for _ in range(int(rng.integers(1, self.max_clusters + 1))):
                center = None
                if rng.random() < 0.35:  # in or beside what is dense
                    center = _place_in(canvas, lesions, opacities)
                for mask in draw_cluster(canvas, taken, center):
                    bronchi.append(mask)
                    taken |= mask
        return [(mask, OPACITY) for mask in _merge(opacities, lesions)] + [(mask, BRONCHI) for mask in bronchi]


def _place_in(canvas: Canvas, lesions: Mask, opacities: list[Mask]) -> np.ndarray | None:
    """Draw a place in an opacity, a new one or one that is there, or in a collapsed lobe."""
    rng = canvas.rng
    kind = rng.random()
    if kind < 0.35:
        collapse = draw_collapse(canvas)
        if collapse is None:
            return None
        opacities.append(collapse[0])
        mask = collapse[1]
    elif kind < 0.65 or not (lesions.any() or opacities):
        drawn = draw_opacity(canvas, dense=bool(rng.random() < 0.7))
        if drawn is None:
            return None
        opacities.append(drawn)
        mask = drawn
    else:
        mask = [*opacities, lesions][int(rng.integers(len(opacities) + 1))] & canvas.lung
    places = np.argwhere(mask)
    return places[int(rng.integers(len(places)))].astype(np.float64) if len(places) else None


def _merge(opacities: list[Mask], lesions: Mask) -> list[Mask]:
    """Return the drawn opacities as their connected parts, without what was annotated before."""
    if not opacities:
        return []
    whole = np.logical_or.reduce(opacities) & ~lesions
    count, labels, stats, _ = cv2.connectedComponentsWithStats(whole.astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= LEAST_PX]


def _annotate(mask: Mask, number: int) -> Record:
    return {
        "bbox": list(mask_box(mask)),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": number,
        "segmentation": encode_mask(mask),
        "iscrowd": 0,
    }
