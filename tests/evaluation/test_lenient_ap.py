"""AP at lenient IoU: what COCO calls a miss may lead a reader to the lesion."""

from __future__ import annotations

import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, block, make_case, perfect, square, weigh
from lung_d2.evaluation.lenient_ap import LenientAP
from lung_d2.evaluation.matching import TASKS, match


def measure(slices, found):
    truth, detections = make_case(slices, found)
    metric = LenientAP(truth, {task: match(truth, detections, task) for task in TASKS})
    return metric, metric.at(weigh(truth))


@pytest.mark.parametrize("task", TASKS)
def test_a_third_of_iou_is_right_at_five_of_nine_thresholds(task):
    """Two blocks of 20 columns that share 10: IoU 10 / 30 is enough for 0.10, 0.15, 0.20, 0.25 and 0.30."""
    slices = [Slice([(GGO, block(10, 10, 8, 20))])]
    _, figures = measure(slices, [(0, GGO, 0.7, block(10, 20, 8, 20))])
    assert figures[task, "AP10", "ground_glass_opacity"] == pytest.approx(100)
    assert figures[task, "AP10:50", "ground_glass_opacity"] == pytest.approx(100 * 5 / 9)
    assert figures[task, "AP10:50", "all"] == pytest.approx(100 * 5 / 9)


def test_truth_scores_100_and_nothing_0():
    slices = [Slice([(GGO, square(4, 4, 20)), (BRONCHIECTASIS, square(40, 40, 9))])]
    assert list(measure(slices, perfect(slices))[1].values()) == pytest.approx([100] * 12)
    assert list(measure(slices, [])[1].values()) == [0.0] * 12


def test_undecided_regions_are_ignored():
    slices = [Slice([(GGO, square(4, 4, 10))], undecided=[(GGO, square(30, 30, 30))])]
    _, figures = measure(slices, [(0, GGO, 0.99, square(35, 35, 10)), *perfect(slices)])
    assert figures["segm", "AP10:50", "ground_glass_opacity"] == pytest.approx(100)


def test_figures_rest_on_the_patients_with_lesions():
    metric, _ = measure([Slice([(GGO, square(0, 0, 9))], patient="a"), Slice(patient="b")], [])
    names = ("all", "ground_glass_opacity", "bronchiectasis")
    assert [len(metric.patients_of(("segm", "AP10", name))) for name in names] == [1, 1, 0]
