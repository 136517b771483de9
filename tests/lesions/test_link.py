from __future__ import annotations

import csv
import time
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lesions.solids import Ellipsoid, axial_volume, block, detect, detections_on, tilted_affine, volume_in, voxelise
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.errors import ConfigError, InputError
from lung_d2.lesions import LinkSettings, link_lesions

SHAPE = (10, 40, 40)
VOLUME = axial_volume(SHAPE, (2.0, 1.0, 1.0))
BOX = block(SHAPE, slice(2, 8), slice(5, 15), slice(6, 18))
AWAY = block(SHAPE, slice(1, 4), slice(25, 35), slice(25, 35))


def union(lesions, shape=SHAPE):
    return np.logical_or.reduce([lesion.full_mask(shape) for lesion in lesions])


def test_a_lesion_is_put_together_voxel_by_voxel():
    (lesion,) = link_lesions(detect((BOX, 0.8)), VOLUME)
    assert (lesion.full_mask(SHAPE) == BOX).all()
    assert (lesion.number, lesion.category, lesion.offset_zyx) == (1, GROUND_GLASS_OPACITY, (2, 5, 6))
    assert lesion.mask.shape == (6, 10, 12)
    assert lesion.slice_indices == (2, 3, 4, 5, 6, 7)


def test_no_detections_are_no_lesions():
    assert link_lesions([], VOLUME) == []
    assert link_lesions([detections_on(index, []) for index in range(10)], VOLUME) == []


def test_lesions_are_numbered_by_category_then_volume():
    small = block(SHAPE, slice(5, 7), slice(25, 35), slice(5, 15))
    lesions = link_lesions(detect((small, 0.9), (AWAY, 0.7, BRONCHIECTASIS), (BOX, 0.6)), VOLUME)
    assert [(lesion.number, lesion.category.coco_id, lesion.voxel_count) for lesion in lesions] == [
        (1, 1, 720),
        (2, 1, 200),
        (3, 2, 300),
    ]


def test_categories_neither_merge_nor_suppress():
    inside = block(SHAPE, slice(3, 6), slice(7, 12), slice(8, 13))
    lesions = link_lesions(detect((BOX, 0.9), (inside, 0.6, BRONCHIECTASIS)), VOLUME)
    assert [lesion.category for lesion in lesions] == [GROUND_GLASS_OPACITY, BRONCHIECTASIS]
    assert (lesions[0].full_mask(SHAPE) == BOX).all()
    assert (lesions[1].full_mask(SHAPE) == inside).all()


def test_a_missed_slice_is_bridged_and_not_filled():
    (lesion,) = link_lesions(detect((BOX, 0.8), missed=[4]), VOLUME)
    assert lesion.slice_indices == (2, 3, 5, 6, 7)
    assert lesion.mask.shape[0] == 6
    assert not lesion.slice_mask(4, SHAPE[1:]).any()
    assert lesion.voxel_count == 5 * 120


def test_a_gap_that_is_too_wide_parts_a_lesion():
    assert len(link_lesions(detect((BOX, 0.8), missed=[4, 5]), VOLUME, LinkSettings(max_gap_mm=3.9))) == 2
    assert len(link_lesions(detect((BOX, 0.8), missed=[4, 5]), VOLUME, LinkSettings(max_gap_mm=4.0))) == 1


def test_the_gap_is_one_of_uneven_positions():
    positions = [0, 2, 4, 6, 20, 22, 24, 26, 28, 30]  # slice 4 stands for 8 mm
    uneven = axial_volume(SHAPE, (2.0, 1.0, 1.0), positions)
    assert len(link_lesions(detect((BOX, 0.8), missed=[4]), uneven, LinkSettings(max_gap_mm=7.9))) == 2
    assert len(link_lesions(detect((BOX, 0.8), missed=[4]), uneven, LinkSettings(max_gap_mm=8.0))) == 1


def test_thick_slices_need_no_allowance():
    thick = axial_volume(SHAPE, (10.0, 1.0, 1.0))
    assert len(link_lesions(detect((BOX, 0.8)), thick, LinkSettings(max_gap_mm=0))) == 1


def test_two_parts_on_a_slice_are_one_lesion_where_they_meet():
    legs = [block(SHAPE, slice(2, 6), slice(5, 10), slice(left, left + 5)) for left in (5, 20)]
    arch = block(SHAPE, slice(6, 8), slice(5, 10), slice(5, 25))
    apart = link_lesions(detect((legs[0], 0.9), (legs[1], 0.8)), VOLUME)
    (whole,) = link_lesions(detect((legs[0], 0.9), (legs[1], 0.8), (arch, 0.7)), VOLUME)
    assert len(apart) == 2
    assert (whole.full_mask(SHAPE) == legs[0] | legs[1] | arch).all()
    assert whole.slice_scores[:4] == pytest.approx([0.9] * 4)


def test_a_duplicate_adds_nothing():
    shifted = np.roll(BOX, 1, axis=2)
    (lesion,) = link_lesions(detect((shifted, 0.7), (BOX, 0.9)), VOLUME)
    assert (lesion.full_mask(SHAPE) == BOX).all()


def test_a_doubtful_blob_over_two_lesions_does_not_glue_them():
    pair = [block(SHAPE, slice(2, 8), slice(5, 15), slice(left, left + 10)) for left in (5, 18)]
    blob = block(SHAPE, slice(3, 6), slice(5, 15), slice(5, 28))
    lesions = link_lesions(detect((pair[0], 0.9), (pair[1], 0.8), (blob, 0.6)), VOLUME)
    assert [lesion.voxel_count for lesion in lesions] == [600, 600]


def test_the_order_of_detections_does_not_matter():
    rng = np.random.default_rng(5)
    masks = []
    for _ in range(12):
        z, y, x = (int(value) for value in rng.integers(0, [7, 28, 28]))
        masks.append((block(SHAPE, slice(z, z + 4), slice(y, y + 9), slice(x, x + 9)), float(rng.choice([0.6, 0.8]))))
    rows = [
        [(mask[index], score, GROUND_GLASS_OPACITY) for mask, score in masks if mask[index].any()]
        for index in range(10)
    ]
    expected = link_lesions([detections_on(index, row) for index, row in enumerate(rows)], VOLUME)
    assert len(expected) > 1
    for _ in range(5):
        order = rng.permutation(10)
        mixed = [
            detections_on(int(index), [rows[index][n] for n in rng.permutation(len(rows[index]))]) for index in order
        ]
        lesions = link_lesions(mixed, VOLUME)
        assert len(lesions) == len(expected)
        for one, other in zip(lesions, expected, strict=True):
            assert (one.score, one.slice_scores, one.offset_zyx) == (other.score, other.slice_scores, other.offset_zyx)
            assert (one.mask == other.mask).all()


def test_a_slice_may_come_in_pieces():
    halves = [
        detections_on(3, [(AWAY[3], 0.9, GROUND_GLASS_OPACITY)]),
        detections_on(3, [(BOX[3], 0.9, BRONCHIECTASIS)]),
    ]
    assert len(link_lesions(halves, VOLUME)) == 2


def scored(scores, settings):
    rows = [detections_on(2 + n, [(BOX[2], score, GROUND_GLASS_OPACITY)]) for n, score in enumerate(scores)]
    rows[-1] = detections_on(rows[-1].slice_index, [(BOX[2] & (np.arange(40) < 12), scores[-1], GROUND_GLASS_OPACITY)])
    return link_lesions(rows, VOLUME, settings)


def test_the_score_is_that_of_the_surest_slice_or_the_mean_by_area():
    (lesion,) = scored([0.6, 0.8, 0.9], LinkSettings(score_rule="max"))
    assert lesion.score == pytest.approx(0.9)
    (lesion,) = scored([0.6, 0.8, 0.9], LinkSettings(score_rule="mean"))
    assert lesion.score == pytest.approx((120 * 0.6 + 120 * 0.8 + 60 * 0.9) / 300)
    assert lesion.slice_scores == pytest.approx([0.6, 0.8, 0.9])


def test_thresholds_admit_a_detection_and_keep_a_lesion():
    settings = LinkSettings(min_detection_score=0.3, min_lesion_score=0.7)
    (lesion,) = scored([0.3, 0.2, 0.7], settings)  # float32: 0.7 is 0.69999999
    assert lesion.slice_indices == (2, 4)
    assert scored([0.3, 0.2, 0.69], settings) == []


def test_small_lesions_are_left_out():
    cube = block(SHAPE, slice(2, 4), slice(5, 8), slice(5, 8))  # 2 x 9 voxels of 2 mm3
    assert len(link_lesions(detect((cube, 0.9)), VOLUME, LinkSettings(min_volume_mm3=36))) == 1
    assert link_lesions(detect((cube, 0.9)), VOLUME, LinkSettings(min_volume_mm3=36.1)) == []


@pytest.mark.parametrize(("least_mm", "kept"), [(0.0, [1, 2, 3]), (4.0, [2, 3]), (6.0, [3]), (6.1, [])])
def test_lesions_on_few_slices_are_left_out(least_mm, kept):
    volume = axial_volume(SHAPE, (2.0, 1.0, 1.0))  # slices of 2 mm
    places = [(slice(1, 1 + count), slice(6 * count - 5, 6 * count - 1)) for count in (1, 2, 3)]
    blocks = [(block(SHAPE, slices, rows, slice(2, 8)), 0.9) for slices, rows in places]
    lesions = link_lesions(detect(*blocks), volume, LinkSettings(min_extent_mm=least_mm))
    assert sorted(len(lesion.slice_indices) for lesion in lesions) == kept


def test_volumes_that_decide_are_those_of_uneven_slices():
    uneven = axial_volume(SHAPE, (2.0, 1.0, 1.0), [0, 1, 2, 3, 4, 5, 15, 25, 35, 45])
    thin = block(SHAPE, slice(0, 2), slice(5, 9), slice(5, 9))  # 32 voxels of 1 mm3
    thick = block(SHAPE, slice(7, 9), slice(5, 8), slice(5, 8))  # 18 voxels of 10 mm3
    lesions = link_lesions(detect((thin, 0.9), (thick, 0.9)), uneven)
    assert [lesion.voxel_count for lesion in lesions] == [18, 32]
    assert len(link_lesions(detect((thin, 0.9), (thick, 0.9)), uneven, LinkSettings(min_volume_mm3=33))) == 1


def test_parts_of_a_slice_that_lie_in_one_another_are_united():
    core = block(SHAPE, slice(2, 8), slice(6, 14), slice(7, 17))
    frame = BOX & ~block(SHAPE, slice(2, 8), slice(7, 13), slice(8, 16))
    (lesion,) = link_lesions(detect((core, 0.95), (frame, 0.8)), VOLUME)
    assert (lesion.full_mask(SHAPE) == BOX).all()


def test_a_tilted_gantry_parts_no_lesion():
    tilted = volume_in(tilted_affine((10.0, 0.7, 0.7), 25.0), (7, 90, 30))
    # A narrow ellipsoid along the normal of the slices: it walks 4.7 mm down the rows from slice to slice.
    normal = (0.0, -np.sin(np.deg2rad(25)), np.cos(np.deg2rad(25)))
    solid = Ellipsoid((10.0, 26.0, 40.0), (25.0, 2.4, 2.4), normal)
    mask = voxelise(solid, tilted)
    areas = mask.sum(axis=(1, 2))
    found = np.flatnonzero(areas)
    assert len(found) >= 4
    assert not any((mask[index] & mask[index + 1]).any() for index in found[:-1])
    (lesion,) = link_lesions(detect((mask, 0.9)), tilted)
    assert (lesion.full_mask(mask.shape) == mask).all()


@pytest.mark.slow
def test_six_hundred_slices_stay_light():
    y, x = np.mgrid[:512, :512]
    disks = [(y - 60 - 90 * (n // 5)) ** 2 + (x - 60 - 95 * (n % 5)) ** 2 < 42**2 for n in range(10)]
    plane = detections_on(0, [(disk, 0.9, GROUND_GLASS_OPACITY) for disk in disks])
    tracemalloc.start()
    start = time.monotonic()
    lesions = link_lesions([replace(plane, slice_index=index) for index in range(600)], axial_volume((600, 512, 512)))
    seconds, (_, peak) = time.monotonic() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [lesion.voxel_count for lesion in lesions] == [600 * disks[0].sum()] * 10
    assert peak < 500e6
    assert seconds < 60  # 4 s on one core


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_overlap": 1.1},
        {"min_lesion_score": -0.1},
        {"max_covered": float("nan")},
        {"max_gap_mm": -1.0},
        {"min_volume_mm3": -1.0},
        {"min_extent_mm": -1.0},
        {"score_rule": "median"},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        LinkSettings(**wrong)


def test_detections_of_another_volume_are_refused():
    with pytest.raises(InputError, match="slice 9"):
        link_lesions(detect((BOX, 0.9)), axial_volume((9, 40, 40)))


def test_real_slices_become_lesions(data_root):
    folder = data_root / "covid_slices"
    with (folder / "split.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file)][:40]
    masks = np.stack([cv2.imread(str(folder / "covid" / name), cv2.IMREAD_GRAYSCALE) > 127 for name in names])
    volume = axial_volume(masks.shape)
    lesions = link_lesions(detect((masks, 0.9)), volume, LinkSettings(min_volume_mm3=0))
    assert lesions
    assert (union(lesions, masks.shape) == masks).all()
