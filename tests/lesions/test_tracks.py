from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, detections_on
from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.lesions.lesion import slice_bounds_mm, slice_thickness_mm
from lung_d2.lesions.regions import collect_regions
from lung_d2.lesions.tracks import Reach, build_tracks, drop_duplicates, join_branches
from tiny import square

SIZE = 40
GGO = GROUND_GLASS_OPACITY


def regions_of(*slices, scores=None):
    """Return regions of squares ``(top, left, side)`` on each slice, in the order they are given, and their volume."""
    volume = axial_volume((len(slices), SIZE, SIZE), (2.0, 1.0, 1.0))
    found = []
    for index, squares in enumerate(slices):
        given = scores[index] if scores else [0.9 - 0.01 * number for number in range(len(squares))]
        rows = [(square(SIZE, *place), score, GGO) for place, score in zip(squares, given, strict=True)]
        found.append(detections_on(index, rows))
    return collect_regions(found, volume, 0.0)[GGO], volume


def tracks_of(regions, volume, max_gap_mm=0.0):
    return build_tracks(regions, Reach(slice_bounds_mm(volume), max_gap_mm), 0.1)


def test_a_region_goes_on_in_the_one_it_overlaps_most():
    regions, volume = regions_of([(5, 5, 10), (20, 5, 10)], [(13, 5, 10), (6, 5, 10)])
    assert tracks_of(regions, volume) == [(0, 3), (1, 2)]


def test_neighbours_need_one_pixel_only():
    regions, volume = regions_of([(5, 5, 10)], [(14, 14, 10)], [(24, 24, 10)])
    assert tracks_of(regions, volume) == [(0, 1), (2,)]


def test_a_gap_is_measured_by_the_slices_missed():
    regions, volume = regions_of([(5, 5, 10)], [], [], [(5, 5, 10)])
    assert tracks_of(regions, volume, 3.9) == [(0,), (1,)]
    assert tracks_of(regions, volume, 4.0) == [(0, 1)]


def test_uneven_slices_are_followed_by_what_they_stand_for():
    reach = Reach(np.array([0.0, 1.0, 3.0, 9.0, 10.0]), 2.0)
    assert reach.joins(0, 2)  # past a slice of 2 mm
    assert not reach.joins(1, 3)  # past one of 6 mm
    assert reach.joins(1, 2)
    assert (list(reach.beyond(0, 1)), list(reach.beyond(3, -1))) == ([1, 2], [2])


def test_past_a_gap_a_pixel_is_not_enough():
    regions, volume = regions_of([(5, 5, 10)], [], [(14, 14, 10)])
    assert tracks_of(regions, volume, 5.0) == [(0,), (1,)]


def kept_of(regions, volume, scores, max_covered=0.5):
    tracks = tracks_of(regions, volume)
    return drop_duplicates(tracks, scores, regions, slice_thickness_mm(volume), max_covered)


def test_what_a_surer_track_covers_is_dropped_on_all_slices():
    # On the second slice the doubtful one scores higher: the track decides.
    regions, volume = regions_of(*[[(5, 5, 10), (6, 5, 10)]] * 2, scores=[[0.9, 0.6], [0.6, 0.7]])
    tracks = [(0, 3), (1, 2)]
    assert (regions.boxes[:, 0] == [5, 6, 6, 5]).all()
    assert drop_duplicates(tracks, [0.9, 0.7], regions, slice_thickness_mm(volume), 0.5) == [(0, 3)]


def test_what_is_covered_by_less_stays():
    regions, volume = regions_of([(5, 5, 10), (11, 5, 10)])
    assert kept_of(regions, volume, [0.9, 0.8], 0.5) == [(0,), (1,)]
    assert kept_of(regions, volume, [0.9, 0.8], 0.4) == [(0,)]


def test_two_that_cover_half_together_suppress_a_third():
    regions, volume = regions_of([(0, 0, 10), (0, 20, 10), (0, 0, 30)], scores=[[0.9, 0.8, 0.7]])
    assert kept_of(regions, volume, [0.9, 0.8, 0.7], 0.2) == [(0,), (1,)]
    assert len(kept_of(regions, volume, [0.9, 0.8, 0.7], 0.3)) == 3


def test_a_track_keeps_the_slices_it_alone_has_found():
    regions, volume = regions_of([(5, 5, 10), (5, 6, 10)], [(5, 5, 10), (5, 6, 10)], [(5, 6, 10)])
    assert tracks_of(regions, volume) == [(0, 2), (1, 3, 4)]
    assert kept_of(regions, volume, [0.9, 0.8]) == [(0, 2), (4,)]


def test_a_short_sure_track_does_not_remove_the_long_one_it_lies_in():
    regions, volume = regions_of(
        [(5, 5, 20)], [(5, 5, 20), (10, 10, 5)], [(5, 5, 20)], scores=[[0.6], [0.6, 0.9], [0.6]]
    )
    assert sorted(kept_of(regions, volume, [0.6, 0.9])) == [(0, 2, 3), (1,)]


def test_of_equal_scores_the_larger_stays():
    regions, volume = regions_of([(5, 5, 10), (5, 5, 9)], scores=[[0.8, 0.8]])
    (kept,) = kept_of(regions, volume, [0.8, 0.8])
    assert regions.areas[list(kept)].tolist() == [100]


def joined(regions, volume, max_gap_mm=0.0, min_overlap=0.25):
    reach = Reach(slice_bounds_mm(volume), max_gap_mm)
    return join_branches(build_tracks(regions, reach, min_overlap), regions, reach, min_overlap)


def test_branches_that_split_and_meet_again_are_one():
    legs = [(5, 5, 8), (5, 20, 8)]
    regions, volume = regions_of([(5, 5, 23)], legs, legs, [(5, 5, 23)])
    assert joined(regions, volume) == [(0, 1, 2, 3, 4, 5)]


def test_legs_that_never_meet_are_two():
    legs = [(5, 5, 8), (5, 20, 8)]
    regions, volume = regions_of(legs, legs)
    assert joined(regions, volume) == [(0, 2), (1, 3)]


def test_neighbours_that_touch_a_little_stay_two():
    # On the second slice each reaches two columns into where the other was: 20 of 100 pixels.
    regions, volume = regions_of([(5, 5, 10), (5, 16, 10)], [(5, 5, 10), (5, 13, 10)])
    assert joined(regions, volume, min_overlap=0.25) == [(0, 2), (1, 3)]
    assert joined(regions, volume, min_overlap=0.2) == [(0, 1, 2, 3)]


def test_parts_that_overlap_on_a_slice_are_one():
    regions, volume = regions_of([(5, 5, 10), (5, 12, 10)])
    assert joined(regions, volume, min_overlap=0.3) == [(0, 1)]
    assert joined(regions, volume, min_overlap=0.31) == [(0,), (1,)]


ARCH, LEFT_LEG, RIGHT_LEG = (5, 5, 23), (5, 5, 8), (5, 20, 8)


@pytest.mark.parametrize("step", [1, -1])
def test_a_branch_missed_on_a_slice_is_found_again(step):
    # The right leg is missed where the left one is seen.
    slices = [[ARCH], [LEFT_LEG], [LEFT_LEG, RIGHT_LEG]]
    regions, volume = regions_of(*slices[::step])
    assert joined(regions, volume, max_gap_mm=2.0) == [(0, 1, 2, 3)]
    assert len(joined(regions, volume, max_gap_mm=1.0)) == 2


def test_what_goes_on_in_the_next_slice_is_not_joined_past_it():
    # The second lesion comes, on the third slice, to where the first was on the first slice.
    regions, volume = regions_of([(5, 5, 10)], [(14, 14, 10), (5, 16, 10)], [(5, 8, 10)])
    assert joined(regions, volume, max_gap_mm=2.0) == [(0, 1), (2, 3)]


def test_nothing_joins_to_nothing():
    regions, volume = regions_of([])
    assert joined(regions, volume) == []
