from __future__ import annotations

import numpy as np
import pytest

from lesions.solids import axial_volume, detections_on, tilted_affine, volume_in
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.errors import DatasetError, InputError
from lung_d2.lesions import SliceDetections
from lung_d2.lesions.regions import collect_regions
from tiny import ring, square

VOLUME = axial_volume((3, 20, 20))
GGO, BRONCHI = GROUND_GLASS_OPACITY, BRONCHIECTASIS


def test_masks_come_back_in_their_boxes_with_their_holes():
    hollow = ring(20, 3, 5, 9)
    regions = collect_regions([detections_on(1, [(hollow, 0.9, GGO)])], VOLUME, 0.5)[GGO]
    assert regions.boxes.tolist() == [[3, 5, 12, 14]]
    assert regions.areas.tolist() == [hollow.sum()]
    assert (regions.mask(0) == hollow[3:12, 5:14]).all()


def test_categories_and_low_scores_are_told_apart():
    rows = [(square(20, 0, 0, 4), 0.7, GGO), (square(20, 0, 0, 4), 0.4, GGO), (square(20, 0, 0, 4), 0.9, BRONCHI)]
    found = collect_regions([detections_on(0, rows)], VOLUME, 0.7)
    assert {category.name: len(regions) for category, regions in found.items()} == {GGO.name: 1, BRONCHI.name: 1}


def test_an_empty_mask_is_no_region():
    found = collect_regions([detections_on(0, [(np.zeros((20, 20), bool), 0.9, GGO)])], VOLUME, 0.5)
    assert len(found[GGO]) == 0


def test_the_order_is_that_of_slice_and_score_whatever_came_first():
    rows = [(square(20, top, 2, 4), score, GGO) for top, score in ((0, 0.6), (9, 0.9), (4, 0.9))]
    found = [detections_on(index, rows) for index in range(3)]
    backwards = [detections_on(item.slice_index, rows[::-1]) for item in found[::-1]]
    first, second = (collect_regions(items, VOLUME, 0.5)[GGO] for items in (found, backwards))
    assert first.slice_indices.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert first.scores[:3].tolist() == pytest.approx([0.9, 0.9, 0.6])
    assert (first.boxes == second.boxes).all()


def test_counts_may_be_bytes_as_pycocotools_makes_them():
    item = detections_on(0, [(square(20, 2, 2, 4), 0.9, GGO)])
    raw = ({**item.masks[0], "counts": item.masks[0]["counts"].encode()},)
    bytes_item = SliceDetections(0, item.boxes, item.scores, item.category_ids, raw)
    assert collect_regions([bytes_item], VOLUME, 0.5)[GGO].areas.tolist() == [16]


def test_shared_area_is_that_of_the_union():
    rows = [(square(20, 0, 0, 10), 0.9, GGO), (square(20, 0, 0, 5), 0.8, GGO), (square(20, 3, 3, 4), 0.7, GGO)]
    regions = collect_regions([detections_on(0, rows)], VOLUME, 0.5)[GGO]
    assert regions.shared_area(0, [1, 2]) == 25 + 16 - 4
    assert regions.shared_area(1, [2]) == regions.shared_area(2, [1]) == 4
    assert regions.shared_area(1, []) == 0


def test_overlap_is_measured_against_the_smaller_and_needs_a_pixel():
    rows = [(square(20, 0, 0, 10), 0.9, GGO), (square(20, 8, 8, 4), 0.8, GGO), (square(20, 12, 12, 4), 0.7, GGO)]
    regions = collect_regions([detections_on(0, rows)], VOLUME, 0.5)[GGO]
    assert regions.overlap(0, 1, 0.25)
    assert not regions.overlap(0, 1, 0.26)
    assert not regions.overlap(1, 2, 0.0)


def test_overlap_follows_the_normal_of_tilted_slices():
    tilted = volume_in(tilted_affine((20.0, 0.5, 0.5), 20.0), (2, 40, 40))
    shift = round(20 * np.tan(np.deg2rad(20)) / 0.5)  # rows
    rows = [detections_on(index, [(square(40, 20 - index * shift, 5, 6), 0.9, GGO)]) for index in range(2)]
    regions = collect_regions(rows, tilted, 0.5)[GGO]
    assert regions.shared_area(0, [1]) == 36
    assert collect_regions(rows, axial_volume((2, 40, 40)), 0.5)[GGO].shared_area(0, [1]) == 0


@pytest.mark.parametrize(
    ("item", "finding"),
    [
        (detections_on(3, []), "slice 3: no such slice"),
        (detections_on(-1, []), "slice -1: no such slice"),
        (detections_on(0, [(square(24, 0, 0, 4), 0.9, GGO)]), r"masks of \(24, 24\) pixels"),
    ],
)
def test_detections_of_another_volume_are_refused(item, finding):
    with pytest.raises(InputError, match=finding):
        collect_regions([item], VOLUME, 0.5)


def test_an_unknown_category_is_refused():
    item = detections_on(0, [(square(20, 0, 0, 4), 0.9, GGO)])
    with pytest.raises(DatasetError, match="category_id 7"):
        collect_regions([SliceDetections(0, item.boxes, item.scores, np.array([7]), item.masks)], VOLUME, 0.5)
