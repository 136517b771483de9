"""Pixels of lesions, of detections, and of both."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, block, make_case, make_truth, perfect, random_case, weigh
from lung_d2.evaluation.dice import SeriesVolume, count_pixels, dice_of, voxel_volumes_ml


def count(slices, found, threshold=0.5):
    return count_pixels(*make_case(slices, found), threshold)


def rows(pixels, place):
    return [int(one[place]) for one in (pixels.lesion, pixels.found, pixels.both)]


def test_regions_of_a_category_count_once_together():
    slices = [Slice([(GGO, block(0, 0, 10, 10)), (GGO, block(0, 5, 10, 10))])]
    found = [(0, GGO, 0.9, block(0, 10, 10, 10)), (0, GGO, 0.6, block(0, 12, 10, 10))]
    assert rows(count(slices, found), (0, GGO)) == [150, 120, 50]


def test_detections_below_the_threshold_do_not_count():
    found = [(0, GGO, 0.5, block(0, 0, 5, 5)), (0, GGO, 0.49, block(20, 20, 5, 5))]
    assert rows(count([Slice()], found), (0, GGO)) == [0, 25, 0]


def test_undecided_pixels_count_in_neither():
    """Columns 5 to 15 are undecided; lesion, found and both lose what they have there."""
    slices = [Slice([(GGO, block(0, 0, 10, 10))], [(GGO, block(0, 5, 64, 5)), (GGO, block(0, 8, 64, 7))])]
    assert rows(count(slices, [(0, GGO, 0.9, block(0, 3, 10, 20))]), (0, GGO)) == [50, 100, 20]


def test_categories_are_apart():
    pixels = count([Slice([(GGO, block(0, 0, 5, 5))])], [(0, BRONCHIECTASIS, 0.9, block(0, 0, 5, 5))])
    assert rows(pixels, (0, GGO)) == [25, 0, 0]
    assert rows(pixels, (0, BRONCHIECTASIS)) == [0, 25, 0]


def test_dice_is_by_slice_and_not_defined_of_nothing():
    slices = [Slice([(GGO, block(0, 0, 10, 10))]), Slice(), Slice()]
    found = [(0, GGO, 0.9, block(0, 5, 10, 10)), (1, GGO, 0.9, block(0, 0, 3, 3))]
    assert count(slices, found).dice().tolist() == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_scipy_says_the_same(seed):
    slices, found = random_case(seed)
    slices = [Slice(one.lesions, (), one.patient) for one in slices]
    pixels = count(slices, found, 0.3)
    dice = dice_of(pixels.lesion, pixels.found, pixels.both)
    nothing = np.zeros((64, 64), bool)
    for number, one in enumerate(slices):
        for category in (GGO, BRONCHIECTASIS):
            there = np.any([nothing, *(mask for kind, mask in one.lesions if kind == category)], axis=0)
            own = [mask for place, kind, score, mask in found if (place, kind) == (number, category) and score >= 0.3]
            seen = np.any([nothing, *own], axis=0)
            if there.any() or seen.any():
                expected = 1 - distance.dice(there.ravel(), seen.ravel())
                assert dice[number, category] == pytest.approx(expected)
            else:
                assert np.isnan(dice[number, category])


BLOCK = block(0, 0, 10, 10)
NAME = "ground_glass_opacity"


def series(name, lesions, spacing=(0.5, 2.0), step=3.0, patient=""):
    """Make a series with a lesion of 100 pixels on some of its slices; a voxel is 0.003 ml by default."""
    return [
        Slice([(GGO, BLOCK)] if has else [], patient=patient or name, series=name, slice_index=index,
              spacing_mm=spacing, position_mm=None if step is None else -100 + step * index)
        for index, has in enumerate(lesions)
    ]  # fmt: skip


def measure(slices, found, weights=None):
    truth, detections = make_case(slices, found)
    metric = SeriesVolume(truth, count_pixels(truth, detections, 0.5))
    figures = metric.at(weigh(truth, weights))
    return metric, {key[0]: value for key, value in figures.items() if key[1] == NAME}


def test_voxel_is_spacing_times_distance_of_slices():
    truth = make_truth([*series("a", [1, 1, 0]), *series("b", [1, 1], step=None), *series("c", [1, 1], None)])
    assert voxel_volumes_ml(truth) == pytest.approx([0.003] * 3 + [np.nan] * 4, nan_ok=True)


def test_slices_left_out_make_no_slice_thicker():
    truth = make_truth([one for one in series("a", [1] * 6) if one.slice_index not in (2, 3)])
    assert voxel_volumes_ml(truth) == pytest.approx([0.003] * 4)


def test_slice_alone_has_no_volume():
    assert np.isnan(voxel_volumes_ml(make_truth(series("a", [1])))).all()


def test_truth_has_dice_1_and_no_error():
    slices = series("a", [1, 1, 0])
    _, figures = measure(slices, perfect(slices))
    assert figures["dice"] == 1
    assert [value for metric, value in figures.items() if metric != "dice"] == [0, 0, 0, 0]


def test_half_found_and_as_much_wrong():
    """200 pixels there, 100 of them found and 200 others: Dice 2 x 100 / 500, a volume of 300 for 200."""
    found = [(0, GGO, 0.9, BLOCK), (1, GGO, 0.9, block(20, 20, 10, 10)), (2, GGO, 0.9, block(20, 20, 10, 10))]
    _, figures = measure(series("a", [1, 1, 0]), found)
    assert figures["dice"] == pytest.approx(0.4)
    assert figures["volume_error_ml"] == pytest.approx(0.3)
    assert figures["relative_volume_error"] == pytest.approx(0.5)


def test_signed_errors_make_up_for_one_another_and_absolute_ones_do_not():
    found = [(0, GGO, 0.9, BLOCK), (1, GGO, 0.9, BLOCK)]
    _, figures = measure([*series("a", [1, 0]), *series("b", [1, 0])], found)
    assert figures["volume_error_ml"] == pytest.approx(0)
    assert figures["absolute_volume_error_ml"] == pytest.approx(0.3)
    assert figures["relative_volume_error"] == pytest.approx(0)
    assert figures["absolute_relative_volume_error"] == pytest.approx(1)


def test_series_with_neither_is_left_out_and_with_detections_alone_has_0():
    slices = [*series("a", [1, 0]), *series("b", [0, 0]), *series("c", [0, 0])]
    metric, figures = measure(slices, [(0, GGO, 0.9, BLOCK), (4, GGO, 0.9, BLOCK)])
    assert figures["dice"] == pytest.approx((1 + 0) / 2)
    assert figures["relative_volume_error"] == 0
    names = ("dice", "volume_error_ml", "relative_volume_error")
    assert [len(metric.patients_of((name, NAME))) for name in names] == [2, 3, 1]


def test_unknown_spacing_leaves_dice_and_shares():
    slices = series("a", [1, 1], None)
    metric, figures = measure(slices, perfect(slices)[:1])
    assert figures["dice"] == pytest.approx(2 / 3)
    assert figures["relative_volume_error"] == pytest.approx(-0.5)
    assert np.isnan(figures["volume_error_ml"])
    (row,) = metric.curves()["rows"]
    assert (row["true_ml"], row["found_ml"]) == (None, None)


def test_series_of_a_patient_weigh_together():
    slices = [*series("a1", [1, 0], patient="a"), *series("a2", [1, 0], patient="a"), *series("b", [1, 0])]
    _, figures = measure(slices, [(4, GGO, 0.9, BLOCK)], weights=[1, 2])
    assert figures["dice"] == pytest.approx(2 / 4)


def test_rows_say_each_series():
    slices = [*series("a", [1, 1, 0], patient="p"), *series("b", [0, 0])]
    (row,) = measure(slices, perfect(slices)[:1])[0].curves()["rows"]
    assert (row["series"], row["patient"], row["category"]) == ("a", "p", NAME)
    assert (row["true_ml"], row["found_ml"]) == pytest.approx((0.6, 0.3))
    assert row["relative_error"] == pytest.approx(-0.5)
