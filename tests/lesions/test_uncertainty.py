from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.categories import BRONCHIECTASIS
from lung_d2.lesions import LinkSettings, link_lesions, measure_volume_ranges

SHAPE = (8, 30, 40)
VOLUME = axial_volume(SHAPE, (1.0, 1.0, 1.0))  # a voxel is a thousandth of a ml


def box(z, left, width=10):
    return block(SHAPE, z, slice(5, 15), slice(left, left + width))


SURE, LIKELY, DOUBTFUL = box(slice(2, 4), 5), box(slice(4, 6), 5), box(slice(6, 7), 5)


def ranges_of(*found, **settings):
    given = LinkSettings(**settings)
    detections = detect(*found)
    return measure_volume_ranges(link_lesions(detections, VOLUME, given), detections, VOLUME, given)


def test_a_lesion_grows_and_shrinks_with_the_threshold():
    found = ranges_of((SURE, 0.9), (LIKELY, 0.55), (DOUBTFUL, 0.42), (box(slice(0, 2), 5), 0.39))
    item = found.lesions[1]
    assert (item.lower_score, item.upper_score) == (0.4, 0.6)
    assert (item.lower_score_ml, item.upper_score_ml) == pytest.approx((0.5, 0.2))
    assert found.categories["ground_glass_opacity"] == item


def test_a_lesion_may_vanish_and_another_appear():
    found = ranges_of((SURE, 0.55), (box(slice(2, 4), 25), 0.45))
    assert list(found.lesions) == [1]
    assert (found.lesions[1].lower_score_ml, found.lesions[1].upper_score_ml) == (pytest.approx(0.2), 0.0)
    assert found.categories["ground_glass_opacity"].lower_score_ml == pytest.approx(0.4)
    assert found.categories["bronchiectasis"].lower_score_ml == 0.0


def test_lesions_that_run_together_have_the_volume_of_both():
    bridge = box(slice(4, 5), 5, 30)
    found = ranges_of((SURE, 0.9), (box(slice(2, 4), 25), 0.8), (bridge, 0.45))
    assert [item.lower_score_ml for item in found.lesions.values()] == pytest.approx([0.7, 0.7])
    assert [item.upper_score_ml for item in found.lesions.values()] == pytest.approx([0.2, 0.2])
    assert found.categories["ground_glass_opacity"].lower_score_ml == pytest.approx(0.7)


def test_categories_stay_apart():
    found = ranges_of((SURE, 0.9), (np.roll(LIKELY, -1, axis=0), 0.45, BRONCHIECTASIS))
    assert found.lesions[1].lower_score_ml == pytest.approx(0.2)
    assert found.categories["bronchiectasis"].lower_score_ml == pytest.approx(0.2)


def test_thresholds_stay_between_0_and_1():
    found = ranges_of((SURE, 1.0), min_detection_score=0.95, min_lesion_score=0.05)
    assert found.lesions[1].upper_score == 1.0
    assert found.lesions[1].upper_score_ml == pytest.approx(0.2)
