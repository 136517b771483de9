"""Average precision by hand, against pycocotools, and for weighted patients."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.samples import (
    GGO,
    Slice,
    make_detections,
    make_truth,
    perfect,
    random_case,
    square,
    to_dataset,
    to_results,
    weigh,
)
from lung_d2.evaluation.average_precision import PrecisionRecall
from lung_d2.evaluation.matching import STRICT_ROWS, TASKS, THRESHOLDS, match

ROWS = np.arange(len(THRESHOLDS))


def measure(slices, found, weights=None, task="segm", rows=STRICT_ROWS[:1], category=GGO):
    truth = make_truth(slices)
    matches = match(truth, make_detections(found), task)[category, "all"]
    recalled = PrecisionRecall(matches, truth.patient_of_slice, rows)
    return recalled.average(weigh(truth, weights))


def three_slices():
    return [Slice([(GGO, square(10, 10, 12))], patient=name) for name in "abc"]


def test_all_found_is_1():
    slices = three_slices()
    assert measure(slices, perfect(slices)) == pytest.approx([1.0])


def test_one_of_three_missed():
    """Precision 1 up to recall 2/3: at 67 of the 101 recalls."""
    slices = three_slices()
    assert measure(slices, perfect(slices)[:2]) == pytest.approx([67 / 101])


def test_false_alarm_before_all():
    """Precision is 1/2, 2/3 and 3/4 at the three: the best at or beyond each recall is 3/4."""
    slices = three_slices()
    assert measure(slices, [*perfect(slices), (0, GGO, 0.95, square(40, 40, 9))]) == pytest.approx([0.75])


def test_false_alarm_after_all_costs_nothing():
    slices = three_slices()
    assert measure(slices, [*perfect(slices), (0, GGO, 0.1, square(40, 40, 9))]) == pytest.approx([1.0])


def test_nothing_found_is_0():
    assert measure(three_slices(), []) == pytest.approx([0.0])


def test_nothing_to_find_is_not_defined():
    assert np.isnan(measure([Slice()], [(0, GGO, 0.5, square(0, 0, 9))])).all()


def test_patient_without_weight_is_not_there():
    slices = three_slices()
    found = [*perfect(slices)[:2], (2, GGO, 0.95, square(40, 40, 9))]
    assert measure(slices, found, [1, 1, 0]) == pytest.approx([1.0])
    assert np.isnan(measure(slices[:1], found[:1], [0])).all()


def coco_precision(slices, detections, task):
    """Return the average precision at all thresholds by pycocotools alone: ``(T, categories)``."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_dataset(slices)
        truth.createIndex()
        results = [
            {key: value for key, value in one.items() if key != ("bbox" if task == "segm" else "segmentation")}
            for one in to_results(detections)
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), task)
        evaluation.params.iouThrs = THRESHOLDS
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.where(precision > -1, precision, np.nan).mean(axis=1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_says_the_same(seed, task):
    slices, found = random_case(seed)
    expected = coco_precision(slices, make_detections(found), task)
    for category in range(2):
        own = measure(slices, found, task=task, rows=ROWS, category=category)
        assert own == pytest.approx(expected[:, category], nan_ok=True)
    assert 0.02 < expected[0].mean() < 0.98


def repeat(slices, found, times):
    """Return the case with the slices of patient k there ``times[k]`` times."""
    more_slices, more_found = [], []
    for number, one in enumerate(slices):
        for _ in range(times[int(one.patient[1:])]):
            more_found += [(len(more_slices), *rest) for place, *rest in found if place == number]
            more_slices.append(one)
    return more_slices, more_found


@pytest.mark.parametrize("seed", range(3))
def test_weight_is_the_number_of_times_a_patient_is_there(seed):
    slices, found = random_case(seed)
    times = np.random.default_rng(seed).integers(0, 4, 6)
    repeated = coco_precision(*(lambda more: (more[0], make_detections(more[1])))(repeat(slices, found, times)), "segm")
    own = measure(slices, found, times, rows=ROWS)
    assert own == pytest.approx(repeated[:, GGO], nan_ok=True)
