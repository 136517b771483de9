"""Dice and volume of series, with volumes known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.samples import GGO, Slice, block, make_case, make_truth, perfect, weigh
from lung_d2.evaluation.pixels import count_pixels
from lung_d2.evaluation.series_volume import SeriesVolume, voxel_volumes_ml

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
