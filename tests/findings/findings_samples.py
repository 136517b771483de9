"""Findings whose numbers are known by hand: four blocks in a volume of 20 slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lesions.solids import Mask, axial_volume, block, detect
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, Categories
from lung_d2.ct.volume import CTVolume
from lung_d2.findings.document import Findings, FindingSettings
from lung_d2.findings.manifest import ModelIdentity
from lung_d2.lesions import (
    LinkSettings,
    LobeField,
    link_lesions,
    measure_lesions,
    measure_totals,
    measure_volume_ranges,
    score_severity,
)

SHAPE = (20, 60, 80)
SPACING_MM = (2.0, 0.8, 0.7)
VOXEL_ML = 2.0 * 0.8 * 0.7 / 1000
MODEL = ModelIdentity("c" * 64, "d" * 64, "cpu")

SMALL = block(SHAPE, slice(4, 7), slice(10, 20), slice(12, 24))
LARGE = block(SHAPE, slice(8, 16), slice(20, 50), slice(50, 70))
TUBE = block(SHAPE, slice(10, 13), slice(30, 36), slice(52, 60))
END = block(SHAPE, slice(18, 20), slice(30, 40), slice(10, 20))
"""Seen on the last slice, outside the lungs."""


@dataclass(frozen=True)
class Lungs:
    labels: npt.NDArray[np.uint8]


def sample_lungs() -> Lungs:
    """Return lungs of which the right has 14 x 50 x 34 voxels and the left as many."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:16, 5:55, 4:38] = 1  # x grows to the patient's left
    labels[2:16, 5:55, 42:76] = 2
    return Lungs(labels)


def sample_lobes() -> LobeField:
    """Return the lobes of those lungs: halves on the left, and of the right lung only two."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:9, 5:55, 42:76], labels[9:16, 5:55, 42:76] = 2, 1
    labels[2:9, 5:55, 4:38], labels[9:16, 5:55, 4:38] = 5, 3
    return LobeField(labels)


def sample_volume() -> CTVolume:
    """Return the CT: lung of -850 HU, ground glass of -500, a tube of -300."""
    hu = np.full(SHAPE, -850, np.int16)
    hu[SMALL | LARGE | END] = -500
    hu[TUBE] = -300
    return axial_volume(SHAPE, SPACING_MM, hu=hu)


def find(
    *found: tuple[Mask, float] | tuple[Mask, float, Any],
    volume: CTVolume | None = None,
    lungs: Lungs | None = None,
    lobes: LobeField | None = None,
    categories: Categories = CATEGORIES,
    **settings: Any,
) -> Findings:
    """Link perfect detections of masks and measure them."""
    volume = volume or sample_volume()
    chosen = FindingSettings(**settings)
    detections = detect(*(found or [(np.zeros(volume.hu.shape, bool), 0.0)]))
    lesions = link_lesions(detections, volume, chosen.link, categories)
    totals = measure_totals(lesions, volume, lungs, lobes, categories)
    return Findings(
        volume=volume,
        lesions=tuple(lesions),
        measurements=tuple(measure_lesions(lesions, volume, lungs, lobes)),
        totals=totals,
        settings=chosen,
        ranges=measure_volume_ranges(lesions, detections, volume, chosen.link, categories=categories),
        severity=score_severity(totals[GROUND_GLASS_OPACITY.name]) if lobes else None,
        lungs=lungs,
        categories=categories,
    )


def find_all(**around: Any) -> Findings:
    """Return lesion 1, the large ground glass, 2, the small one, 3, that on the last slice, and 4, the tube."""
    return find((SMALL, 0.7), (LARGE, 0.9), (END, 0.55), (TUBE, 0.8, BRONCHIECTASIS), **around)


def find_many(count: int) -> Findings:
    """Return so many small lesions, up to 120."""
    shape = (24, 160, 160)
    rng = np.random.default_rng(3)
    volume = axial_volume(shape, SPACING_MM, hu=rng.integers(-900, -300, shape).astype(np.int16))
    places = [(z, y, x) for z in (2, 8, 14, 20) for y in range(4, 150, 30) for x in range(4, 150, 25)][:count]
    masks = [
        block(shape, slice(z, z + 2), slice(y, y + 8), slice(x, x + 6 + number % 9))
        for number, (z, y, x) in enumerate(places)
    ]
    return find(*((mask, 0.9) for mask in masks), volume=volume, link=LinkSettings(min_volume_mm3=0, max_gap_mm=0))
