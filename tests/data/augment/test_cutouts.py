from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode

from lung_d2.data.augment.cutouts import LEAST_PX, DonorSlice, blend_px, box_of, sort_masks
from lung_d2.masks import decode_mask, encode_mask
from records import draw_chest
from tiny import ring, square

SIZE = 128
BRIGHT = 400  # above the lung


def annotate(mask, category=0, crowd=0):
    """Return an annotation of a dataset dict."""
    x0, y0, x1, y1 = box_of(mask)
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
