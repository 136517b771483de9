from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from detectron2.structures import BoxMode

from lung_d2.data.augment.cutouts import (
    LEAST_PX,
    DonorSlice,
    blend_px,
    estimate_lung,
    lung_level,
    lung_noise,
    sort_masks,
)
from lung_d2.masks import decode_mask, encode_mask, mask_box
from records import AIR_HU, LUNG_HU, TISSUE_HU, draw_chest
from tiny import ring, square

NONE = np.zeros((128, 128), bool)


def shares(found, lungs):
    """Return which share of what was found is lung, and which share of the lung was found."""
    both = np.count_nonzero(found & lungs)
    return both / max(np.count_nonzero(found), 1), both / np.count_nonzero(lungs)


@pytest.mark.parametrize("is_grey", [False, True], ids=["HU", "grey"])
def test_both_lungs_are_found_and_nothing_else(is_grey):
    plane, lungs = draw_chest()
    if is_grey:
        plane = np.clip((plane.astype(np.float32) + 1000) / 8, 0, 255).astype(np.uint8)
    precision, recall = shares(estimate_lung(plane, NONE), lungs)
    assert precision > 0.95
    assert recall > 0.95


def test_annotated_disease_belongs_to_the_lung():
    plane, lungs = draw_chest()
    dense = square(128, 60, 30, 14) & lungs
    plane[dense] = TISSUE_HU
    assert dense.sum() > 100
    assert estimate_lung(plane, dense)[dense].all()
    assert not estimate_lung(plane, NONE)[dense].all()


def test_air_around_the_body_and_a_slice_without_lung_give_none():
    assert not estimate_lung(np.full((128, 128), AIR_HU, np.int16), NONE).any()
    body = np.full((128, 128), AIR_HU, np.int16)
    body[20:100, 20:100] = TISSUE_HU
    assert not estimate_lung(body, NONE).any()


def test_trachea_is_no_lung():
    body = np.full((128, 128), AIR_HU, np.int16)
    body[10:110, 10:110] = TISSUE_HU
    body[30:40, 60:70] = AIR_HU
    body[50:90, 20:50] = LUNG_HU
    found = estimate_lung(body, NONE)
    assert not found[25:45, 55:75].any()
    assert found[52:88, 22:48].all()


def test_lung_of_real_slices_is_mostly_that_of_their_masks(data_root):
    folder = data_root / "covid_slices"
    rows = [row for row in csv.DictReader((folder / "split.csv").open()) if row["split"] == "train"][::40]
    found = []
    for row in rows:
        ct, lungs, lesions = (
            cv2.imread(str(folder / name / row["file"]), cv2.IMREAD_GRAYSCALE) for name in ("ct", "lungs", "covid")
        )
        found.append(shares(estimate_lung(ct, lesions > 0), (lungs > 0) | (lesions > 0)))
    precision, recall = np.mean(found, axis=0)
    assert precision > 0.93
    assert recall > 0.85


WINDOW = slice(20, 30), slice(20, 30)


def test_level_is_that_of_the_lung_near_the_lesion():
    plane = np.full((64, 64), 90, np.uint8)
    plane[:, 45:] = 40
    healthy = ~square(64, 20, 20, 10)
    plane[20:30, 20:30] = 200
    assert lung_level(plane, healthy, WINDOW) == 90
    assert lung_level(plane, healthy, (slice(20, 30), slice(54, 64))) == 40


def test_level_of_little_lung_nearby_is_that_of_all_the_lung():
    plane = np.full((64, 64), 90, np.uint8)
    plane[:5] = 60
    assert lung_level(plane, np.arange(64)[:, None].repeat(64, 1) < 5, WINDOW) == 60


def test_level_without_lung_is_that_of_the_window():
    plane = np.full((64, 64), -700, np.int16)
    plane[20:30, 20:30] = -300
    assert lung_level(plane, np.zeros((64, 64), bool), WINDOW) == -300


def test_noise_is_measured_in_the_values_of_the_plane():
    rng = np.random.default_rng(0)
    y, x = np.indices((96, 96))
    plane = np.rint(-800 + 0.7 * x + 0.4 * y + rng.normal(0, 30, (96, 96))).astype(np.int16)  # on a slope
    plane[::24, ::24] = 0  # vessels
    assert lung_noise(plane, np.ones((96, 96), bool)) == pytest.approx(30, rel=0.1)


def test_noise_of_too_little_lung_is_unknown():
    assert lung_noise(np.zeros((64, 64), np.int16), square(64, 3, 3, 4)) is None


SIZE = 128
BRIGHT = 400  # above the lung


def annotate(mask, category=0, crowd=0):
    """Return an annotation of a dataset dict."""
    x0, y0, x1, y1 = mask_box(mask)
    box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "bbox_mode": BoxMode.XYWH_ABS}
    return box | {"category_id": category, "segmentation": encode_mask(mask), "iscrowd": crowd}


def donor(masks, crowd=None, contrast=BRIGHT):
    plane, _ = draw_chest()
    annotations = [annotate(mask, number) for number, mask in enumerate(masks)]
    for mask in masks:
        plane[mask] += contrast
    if crowd is not None:
        annotations.append(annotate(crowd, crowd=1))
    return DonorSlice.of({"annotations": annotations}, [plane])


def test_cutout_holds_the_lesion_and_a_margin():
    mask = square(SIZE, 60, 30, 10)
    (cutout,) = donor([mask]).cutouts
    rows, columns = cutout.window
    assert (rows.start, rows.stop, columns.start, columns.stop) == (56, 74, 26, 44)
    assert np.array_equal(cutout.mask, mask[cutout.window])


def test_lumen_goes_with_its_wall():
    (cutout,) = donor([ring(SIZE, 60, 30, 14, wall=3)]).cutouts
    assert (cutout.mask.sum(), cutout.footprint.sum()) == (132, 196)


def test_window_ends_at_the_edge_of_the_picture():
    (cutout,) = donor([square(SIZE, 0, 118, 10)]).cutouts
    assert cutout.window == (slice(0, 14), slice(114, 128))


@pytest.mark.parametrize("left", [0, 30, 118])
def test_mirrored_cutout_takes_the_pixels_in_its_own_order(left):
    mask = square(SIZE, 60, left, 10)
    mask[60, left] = False
    (cutout,) = donor([mask]).cutouts
    mirrored = cutout.mirrored()
    assert np.array_equal(mirrored.mask, cutout.mask[:, ::-1])
    assert np.array_equal(mask[mirrored.window], mirrored.mask)


def test_specks_and_faint_lesions_are_not_lent():
    speck = np.zeros((SIZE, SIZE), bool)
    speck[60, 30 : 30 + LEAST_PX - 1] = True
    assert not donor([speck]).cutouts
    assert not donor([square(SIZE, 60, 30, 10)], contrast=5).cutouts  # the noise is 10 HU
    assert donor([square(SIZE, 60, 30, 10)], contrast=-60).cutouts  # an air-filled bronchus is evident too


def test_lesions_in_undecided_regions_are_not_lent():
    two = [square(SIZE, 60, 30, 10), square(SIZE, 60, 85, 10)]
    cutouts = donor(two, crowd=square(SIZE, 55, 80, 30)).cutouts
    assert [cutout.annotation["category_id"] for cutout in cutouts] == [0]


def test_soft_border_is_full_in_the_lesion_and_gone_at_the_margin():
    (cutout,) = donor([square(SIZE, 60, 30, 10)]).cutouts
    share = cutout.soften(1)
    assert share[cutout.mask].min() > 0.6
    assert share[8:10, 8:10].min() > 0.99
    assert share[0].max() < 0.02
    assert (share[~cutout.mask] > 0).any()


def test_soft_border_takes_no_tissue_from_outside_of_the_lung():
    plane, lungs = draw_chest()
    mask = lungs & square(SIZE, 50, 20, 14)  # at the chest wall
    plane[mask] += BRIGHT
    (cutout,) = DonorSlice.of({"annotations": [annotate(mask)]}, [plane]).cutouts
    outside = ~cutout.around
    assert outside.any()
    whole = cutout.soften(1)
    assert whole[outside].max() < 0.7
    assert whole[cutout.mask].mean() > 0.8


def test_masks_are_sorted_into_lesions_and_undecided_regions():
    lesion, region = square(32, 2, 2, 5), square(32, 20, 20, 6)
    decided, lesions, undecided = sort_masks({"annotations": [annotate(region, crowd=1), annotate(lesion)]}, (32, 32))
    assert [np.array_equal(mask, lesion) for _, mask in decided] == [True]
    assert np.array_equal(decode_mask(decided[0][0]["segmentation"]), lesion)
    assert np.array_equal(lesions, lesion)
    assert np.array_equal(undecided, region)


def test_border_grows_with_the_picture():
    assert [blend_px(np.zeros((side, side))) for side in (64, 256, 512)] == [1, 1, 2]
