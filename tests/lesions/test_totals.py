from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES
from lung_d2.lesions import LobeField, link_lesions, measure_totals
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.totals import ANY, unite_lesions

SHAPE = (6, 30, 30)
VOLUME = axial_volume(SHAPE, (2.0, 1.0, 1.0))
BOX = block(SHAPE, slice(1, 5), slice(5, 15), slice(5, 15))
INSIDE = block(SHAPE, slice(2, 4), slice(7, 11), slice(7, 11))
AWAY = block(SHAPE, slice(0, 2), slice(20, 25), slice(20, 25))


def test_each_category_has_its_total_and_overlap_counts_once_in_all():
    lesions = link_lesions(detect((BOX, 0.9), (AWAY, 0.8), (INSIDE, 0.7, BRONCHIECTASIS)), VOLUME)
    totals = measure_totals(lesions, VOLUME)
    assert list(totals) == ["ground_glass_opacity", "bronchiectasis", ANY]
    assert [total.lesion_count for total in totals.values()] == [2, 1, 3]
    assert [total.voxel_count for total in totals.values()] == [450, 32, 450]
    assert totals[ANY].volume_ml == pytest.approx(0.9)


def test_voxels_that_lesions_share_count_once():
    masks = [BOX, np.roll(BOX, 4, axis=2)]
    lesions = [
        Lesion(number, CATEGORIES[0], 0.9, mask, (0, 0, 0), (1, 2, 3, 4), (0.9,) * 4)
        for number, mask in enumerate(masks, start=1)
    ]
    assert measure_totals(lesions, VOLUME)["ground_glass_opacity"].voxel_count == 4 * 10 * 14
    for index, _, plane in unite_lesions(lesions, VOLUME):
        assert (plane == masks[0][index] | masks[1][index]).all()


def test_a_clean_scan_has_totals_of_nothing():
    lobes = LobeField((np.arange(6 * 900) % 5 + 1).astype(np.uint8).reshape(SHAPE))
    totals = measure_totals([], VOLUME, lobes, lobes)
    for total in totals.values():
        assert (total.lesion_count, total.voxel_count, total.volume_ml, total.lung_share_percent) == (0, 0, 0.0, 0.0)
        assert [share.share_percent for share in total.lobes] == [0.0] * 5
