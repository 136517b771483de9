"""The attenuation inside a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.lesions.lesion import Lesion

_LOWEST_HU = int(np.iinfo(np.int16).min)
_LEVELS = 2**16


@dataclass(frozen=True)
class Density:
    """HU over the voxels of a lesion, all weighted alike.

    Attributes:
        mean_hu: Mean.
        sd_hu: Standard deviation, as of a population.
        p5_hu: 5th percentile, interpolated between neighbours in rank (numpy's ``linear``).
        median_hu: 50th percentile.
        p95_hu: 95th percentile.
    """

    mean_hu: float
    sd_hu: float
    p5_hu: float
    median_hu: float
    p95_hu: float


def measure_density(lesion: Lesion, volume: CTVolume) -> Density:
    """Measure the HU of a lesion by their histogram, which takes the same memory for the largest lesion."""
    counts = np.zeros(_LEVELS, np.int64)
    for index, window, mask in lesion.patches():
        counts += np.bincount(volume.hu[index][window][mask].astype(np.int64) - _LOWEST_HU, minlength=_LEVELS)
    levels = np.flatnonzero(counts)
    counts, hu = counts[levels], levels.astype(float) + _LOWEST_HU
    voxels = int(counts.sum())
    mean = float(counts @ hu) / voxels
    low, middle, high = (_percentile(hu, counts, percent) for percent in (5, 50, 95))
    return Density(mean, float(np.sqrt(counts @ (hu - mean) ** 2 / voxels)), low, middle, high)


def _percentile(hu: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], percent: float) -> float:
    ends = np.cumsum(counts)
    rank = percent / 100 * (int(ends[-1]) - 1)
    below, above = np.searchsorted(ends, [np.floor(rank), np.ceil(rank)], side="right")
    return float(hu[below] + (rank % 1) * (hu[above] - hu[below]))
