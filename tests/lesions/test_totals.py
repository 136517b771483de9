"""Totals of categories, volume ranges, and the severity score."""

from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, block, detect
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES
from lung_d2.lesions import (
    LOBES,
    LinkSettings,
    LobeField,
    LobeShare,
    link_lesions,
    measure_totals,
    measure_volume_ranges,
    score_severity,
)
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import Occupancy
from lung_d2.lesions.totals import ANY, score_lobe, unite_lesions

SHAPE = (6, 30, 30)
VOLUME = axial_volume(SHAPE, (2.0, 1.0, 1.0))
BOX = block(SHAPE, slice(1, 5), slice(5, 15), slice(5, 15))
INSIDE = block(SHAPE, slice(2, 4), slice(7, 11), slice(7, 11))
AWAY = block(SHAPE, slice(0, 2), slice(20, 25), slice(20, 25))
RANGE_SHAPE = (8, 30, 40)
RANGE_VOLUME = axial_volume(RANGE_SHAPE, (1.0, 1.0, 1.0))  # a voxel is a thousandth of a ml


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


def taken(*percents):
    shares = tuple(LobeShare(lobe, 0.0, percent) for lobe, percent in zip(LOBES, percents, strict=False))
    return Occupancy(0, 0.0, None, None, None, shares)


@pytest.mark.parametrize(
    ("percent", "score"),
    [(0, 0), (0.01, 1), (4.99, 1), (5, 2), (25, 2), (25.5, 3), (49.9, 3), (50, 4), (75, 4), (75.1, 5), (100, 5)],
)
def test_a_lobe_is_scored_by_the_classes(percent, score):
    assert score_lobe(percent) == score


def test_the_total_is_the_sum_of_five_lobes():
    found = score_severity(taken(0, 3, 20, 60, 90))
    assert [lobe.score for lobe in found.lobes] == [0, 1, 2, 4, 5]
    assert [lobe.lobe for lobe in found.lobes] == list(LOBES)
    assert found.total == 12


def test_the_bounds_are_0_and_25():
    assert score_severity(taken(0, 0, 0, 0, 0)).total == 0
    assert score_severity(taken(99, 99, 99, 99, 99)).total == 25


def test_a_missing_lobe_leaves_no_total():
    found = score_severity(taken(0, 3, 20, None, 90))
    assert (found.total, found.lobes[3].score, found.lobes[4].score) == (None, None, 5)


def test_without_lobes_there_is_no_score():
    found = score_severity(taken())
    assert (found.total, found.lobes) == (None, ())


def box(z, left, width=10):
    return block(RANGE_SHAPE, z, slice(5, 15), slice(left, left + width))


SURE, LIKELY, DOUBTFUL = box(slice(2, 4), 5), box(slice(4, 6), 5), box(slice(6, 7), 5)


def ranges_of(*found, **settings):
    given = LinkSettings(**settings)
    detections = detect(*found)
    return measure_volume_ranges(link_lesions(detections, RANGE_VOLUME, given), detections, RANGE_VOLUME, given)


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
