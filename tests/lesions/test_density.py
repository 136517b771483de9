from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.lesions import LinkSettings, link_lesions
from lung_d2.lesions.size_and_density import measure_density

SHAPE = (6, 20, 20)


def density_of(mask, hu):
    volume = axial_volume(SHAPE, hu=hu)
    (lesion,) = link_lesions(detect((mask, 0.9)), volume, LinkSettings(min_volume_mm3=0))
    return measure_density(lesion, volume)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_it_is_what_numpy_says_of_the_voxels(size):
    hu = np.random.default_rng(size).integers(-1024, 3000, SHAPE).astype(np.int16)
    mask = block(SHAPE, slice(1, 1 + size), slice(3, 3 + size), slice(4, 4 + size))
    found, voxels = density_of(mask, hu), hu[mask].astype(float)
    assert found.mean_hu == pytest.approx(voxels.mean(), abs=1e-9)
    assert found.sd_hu == pytest.approx(voxels.std(), abs=1e-9)
    expected = np.percentile(voxels, (5, 50, 95))
    assert (found.p5_hu, found.median_hu, found.p95_hu) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize("value", [-32768, -600, 32767])
def test_one_voxel_is_its_own_mean_and_percentile(value):
    found = density_of(block(SHAPE, slice(1, 2), slice(3, 4), slice(4, 5)), value)
    assert (found.mean_hu, found.sd_hu, found.p5_hu, found.median_hu, found.p95_hu) == (value, 0, value, value, value)
