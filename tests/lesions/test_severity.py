from __future__ import annotations

import pytest

from lung_d2.lesions import LOBES, LobeShare, score_severity
from lung_d2.lesions.lobes import Occupancy
from lung_d2.lesions.totals import score_lobe


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
