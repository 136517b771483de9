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


@pytest.mark.parametrize(("left_width", "numbers"), [(6, (2, 1)), (10, (1, 2)), (14, (1, 2))])
def test_lesions_that_run_together_fall_to_the_one_that_shares_most(left_width, numbers):
    left, right = box(slice(2, 4), 5, left_width), box(slice(2, 4), 25)
    found = ranges_of((left, 0.9), (right, 0.8), (box(slice(4, 5), 5, 30), 0.45))
    (first, second), own = (found.lesions[number] for number in numbers), (0.02 * left_width, 0.2)
    assert [first.upper_score_ml, second.upper_score_ml] == pytest.approx(own)
    volumes = sum(own) + 0.3
    assert sorted([first.lower_score_ml, second.lower_score_ml]) == pytest.approx([0.0, volumes])
    assert found.lesions[1].lower_score_ml == pytest.approx(volumes)  # lesions are numbered by volume
    assert found.categories["ground_glass_opacity"].lower_score_ml == pytest.approx(volumes)


def test_a_lesion_that_falls_apart_has_all_its_parts():
    bridge = box(slice(4, 5), 5, 30)
    found = ranges_of((SURE, 0.9), (box(slice(2, 4), 25), 0.8), (bridge, 0.55))
    assert list(found.lesions) == [1]
    assert found.lesions[1].upper_score_ml == pytest.approx(0.4)


def test_categories_stay_apart():
    found = ranges_of((SURE, 0.9), (np.roll(LIKELY, -1, axis=0), 0.45, BRONCHIECTASIS))
    assert found.lesions[1].lower_score_ml == pytest.approx(0.2)
    assert found.categories["bronchiectasis"].lower_score_ml == pytest.approx(0.2)


def test_thresholds_stay_between_0_and_1():
    found = ranges_of((SURE, 1.0), min_detection_score=0.95, min_lesion_score=0.05)
    assert found.lesions[1].upper_score == 1.0
    assert found.lesions[1].upper_score_ml == pytest.approx(0.2)
