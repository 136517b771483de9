"""Small changes of the values of a slice: noise as a scanner makes it, and the contrast of 8-bit pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.ct.scanner_noise import KERNELS, scanner_noise

Plane = npt.NDArray[Any]

FIELD_MM = 350.0
"""Width of a chest CT where the pixel spacing is unknown: usual fields of view are 300 to 400 mm."""


@dataclass(frozen=True)
class IntensityRanges:
    """How far the values may change; 0 is none.

    A gain of HU is left out on purpose: scanners are calibrated to air and water, between which the lung lies.

    Attributes:
        hu_noise: Largest standard deviation of the noise that is added, in HU; each slice draws from 0 to this.
        grey_contrast: Slices without HU: largest share by which the contrast about their mean grows or shrinks.
        grey_brightness: Slices without HU: largest shift, in grey levels of 255.
        grey_noise: As ``hu_noise``, for slices without HU, in grey levels of 255.
    """

    hu_noise: float = 0.0
    grey_contrast: float = 0.0
    grey_brightness: float = 0.0
    grey_noise: float = 0.0


def vary_planes(
    planes: Sequence[Plane], ranges: IntensityRanges, pixel_spacing_mm: Sequence[float] | None = None
) -> list[Plane]:
    """Change the values of a slice and its neighbours at random, alike except for the noise, which differs.

    Args:
        planes: ``(H, W)`` each; int16 in HU, or uint8 grey levels of a source without HU.
        ranges: How far.
        pixel_spacing_mm: Row and column spacing; None where unknown.

    Returns:
        Planes of the same dtype, clipped to what it holds; those given where nothing is asked for.
    """
    is_grey = planes[0].dtype == np.uint8
    most_noise = ranges.grey_noise if is_grey else ranges.hu_noise
    stretches = is_grey and bool(ranges.grey_contrast or ranges.grey_brightness)
    if not (most_noise or stretches):
        return list(planes)
    varied = [plane.astype(np.float32) for plane in planes]
    if stretches:
        varied = _stretch(varied, ranges)
    if most_noise:
        pixel_mm = pixel_spacing_mm[1] if pixel_spacing_mm else FIELD_MM / planes[0].shape[1]
        varied = _add_noise(varied, np.random.uniform(0.0, most_noise), pixel_mm)
    ends = np.iinfo(planes[0].dtype)
    return [np.clip(np.rint(plane), ends.min, ends.max).astype(planes[0].dtype) for plane in varied]


def _stretch(planes: list[Plane], ranges: IntensityRanges) -> list[Plane]:
    contrast, brightness = np.random.uniform(-1.0, 1.0, 2) * (ranges.grey_contrast, ranges.grey_brightness)
    mean = float(planes[len(planes) // 2].mean())
    return [(plane - mean) * np.float32(1.0 + contrast) + np.float32(mean + brightness) for plane in planes]


def _add_noise(planes: list[Plane], std: float, pixel_mm: float) -> list[Plane]:
    kernel = list(KERNELS.values())[np.random.randint(len(KERNELS))]
    # Seeded by the global generator, which has neither its speed nor float32.
    rng = np.random.default_rng(np.random.randint(0, 2**31, 4))
    return [plane + np.float32(std) * scanner_noise(plane.shape, pixel_mm, kernel, rng) for plane in planes]
