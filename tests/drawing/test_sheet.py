from __future__ import annotations

import numpy as np

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.drawing.sheet import Sample, draw_sample, draw_sheet

GREY = np.full((32, 64), 100, np.uint8)


def has_color(picture, color):
    return bool((np.abs(picture.astype(int) - np.array(color)).max(axis=-1) <= 2).any())


def lesion(category=GROUND_GLASS_OPACITY):
    mask = np.zeros((32, 64), bool)
    mask[4:12, 6:20] = True
    return category, mask, (6, 4, 20, 12)


def test_sample_is_enlarged_with_its_sides_in_proportion():
    picture = draw_sample(Sample(GREY, ()), tile_px=128)
    assert picture.shape == (64, 128, 3)
    assert np.unique(picture).tolist() == [100]


def test_lesion_has_the_color_of_its_category_where_it_lies():
    picture = draw_sample(Sample(GREY, [lesion(BRONCHIECTASIS)]), tile_px=128)
    assert has_color(picture[6:26, 10:42], BRONCHIECTASIS.color)
    assert np.unique(picture[32:]).tolist() == [100]
    assert np.unique(picture[:, 60:]).tolist() == [100]


def test_undecided_is_hatched_where_it_lies_and_not_filled():
    undecided = np.zeros((32, 64), bool)
    undecided[:, 32:] = True
    picture = draw_sample(Sample(GREY, (), undecided=undecided), tile_px=128)
    changed = (picture != 100).any(axis=-1)
    assert not changed[:, :64].any()
    assert 0.05 < changed[:, 64:].mean() < 0.3


def test_sheet_has_a_tile_for_each_sample_and_a_legend_of_what_there_is():
    rows = [[Sample(GREY, [lesion()], "one"), Sample(GREY, ())], [Sample(GREY, ())]]
    sheet = draw_sheet(rows, "title", tile_px=64)
    assert sheet.dtype == np.uint8
    assert (sheet == 100).all(axis=-1).sum() > 2.5 * 64 * 32
    head = sheet[:40]
    assert has_color(head, GROUND_GLASS_OPACITY.color)
    assert not has_color(head, BRONCHIECTASIS.color)


def test_samples_of_other_sizes_fit_in_one_sheet():
    mask = np.zeros((300, 200), bool)
    mask[:9, :9] = True
    tall = Sample(np.full(mask.shape, 50, np.uint8), [(GROUND_GLASS_OPACITY, mask, (0, 0, 9, 9))])
    rows = [[Sample(GREY, ()), tall]]
    assert draw_sheet(rows, "title").ndim == 3
