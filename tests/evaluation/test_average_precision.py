"""Average precision by hand, against pycocotools, and for weighted patients."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.samples import (
    BRONCHIECTASIS,
    GGO,
    SIZE,
    Slice,
    block,
    make_case,
    make_detections,
    make_truth,
    perfect,
    random_case,
    square,
    to_dataset,
    to_results,
    weigh,
)
from lung_d2 import register_lung_datasets
from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.average_precision import CocoAP, LenientAP, PrecisionRecall
from lung_d2.evaluation.coco import LungCOCOEvaluator
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


def measure_coco(slices, found):
    truth, detections = make_case(slices, found)
    metric = CocoAP(truth, {task: match(truth, detections, task) for task in TASKS})
    return metric, metric.at(weigh(truth))


def two_patients():
    return [
        Slice([(GGO, square(4, 4, 20)), (BRONCHIECTASIS, square(40, 40, 9))], patient="a"),
        Slice([(GGO, square(4, 4, 40))], patient="b"),
        Slice(patient="b"),
    ]


@pytest.mark.parametrize("task", TASKS)
def test_truth_scores_100(task):
    slices = two_patients()
    _, figures = measure_coco(slices, perfect(slices))
    for metric in ("AP", "AP50", "AP75", "APs"):
        for name in ("all", "ground_glass_opacity", "bronchiectasis"):
            assert figures[task, metric, name] == pytest.approx(100)
    assert figures[task, "APm", "all"] == pytest.approx(100)
    assert np.isnan(figures[task, "APm", "bronchiectasis"])
    assert np.isnan(figures[task, "APl", "all"])


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found_scores_0(task):
    _, figures = measure_coco(two_patients(), [])
    assert [figures[task, "AP", name] for name in ("all", "ground_glass_opacity", "bronchiectasis")] == [0, 0, 0]


def test_mean_is_over_categories_that_have_lesions():
    slices = [Slice([(GGO, square(4, 4, 20))])]
    _, figures = measure_coco(slices, [*perfect(slices), (0, BRONCHIECTASIS, 0.9, square(30, 30, 9))])
    assert figures["segm", "AP", "all"] == pytest.approx(100)
    assert np.isnan(figures["segm", "AP", "bronchiectasis"])


def test_mean_of_a_draw_without_a_category_is_not_that_of_the_other():
    """Patient b alone has bronchiectasis, and it is missed: without b there is no mean of both."""
    slices = [Slice([(GGO, square(5, 5, 10))], patient="a"), Slice([(BRONCHIECTASIS, square(5, 5, 10))], patient="b")]
    truth, detections = make_case(slices, perfect(slices[:1]))
    metric = CocoAP(truth, {task: match(truth, detections, task) for task in TASKS})
    assert metric.at(np.array([1.0, 1.0]))["segm", "AP50", "all"] == pytest.approx(50)
    assert np.isnan(metric.at(np.array([2.0, 0.0]))["segm", "AP50", "all"])


def test_figures_rest_on_the_patients_who_have_such_lesions():
    metric, _ = measure_coco(two_patients(), [])
    names = [("AP", "all"), ("AP", "bronchiectasis"), ("APm", "ground_glass_opacity"), ("APl", "all")]
    assert [len(metric.patients_of(("segm", *name))) for name in names] == [1, 1, 1, 0]  # of all, those of the rarest


def test_curve_is_of_categories_with_lesions():
    slices = [Slice([(GGO, square(4, 4, 20))])]
    metric, _ = measure_coco(slices, perfect(slices))
    curves = metric.curves()
    assert list(curves["precision_at_iou_50"]) == ["ground_glass_opacity"]
    assert curves["precision_at_iou_50"]["ground_glass_opacity"] == pytest.approx([1.0] * 101)
    assert len(curves["recall"]) == 101


def detectron2_says(tmp_path, slices, found):
    """Evaluate the same detections with our evaluator, which is Detectron2's."""
    annotations = tmp_path / "lung_ct" / "made" / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "val.json").write_text(json.dumps(to_dataset(slices)))
    register_lung_datasets(tmp_path)
    evaluator = LungCOCOEvaluator("made_val", str(tmp_path / "out"))
    evaluator.reset()
    detections = make_detections(found)
    for number in range(len(slices)):
        own = np.flatnonzero(detections.slices == number)
        instances = Instances((SIZE, SIZE))
        corners = detections.boxes[own] @ np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
        instances.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32))
        instances.scores = torch.tensor(detections.scores[own])
        instances.pred_classes = torch.tensor(detections.categories[own])
        masks = np.array([found[index][3] for index in own], bool).reshape(-1, SIZE, SIZE)
        instances.pred_masks = torch.from_numpy(masks)
        evaluator.process([{"image_id": number + 1, "height": SIZE, "width": SIZE}], [{"instances": instances}])
    return evaluator.evaluate()


@pytest.mark.parametrize("seed", [5, 6])
def test_detectron2_says_the_same(tmp_path, seed):
    slices, found = random_case(seed)
    expected = detectron2_says(tmp_path, slices, found)
    _, figures = measure_coco(slices, found)
    for task in TASKS:
        for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            assert figures[task, metric, "all"] == pytest.approx(expected[task][metric], nan_ok=True)
        for name in (category.name for category in CATEGORIES):
            for metric in ("AP", "AP50"):
                assert figures[task, metric, name] == pytest.approx(expected[task][f"{metric}-{name}"])
    assert 1 < expected["segm"]["AP"] < 90


def measure_lenient(slices, found):
    truth, detections = make_case(slices, found)
    metric = LenientAP(truth, {task: match(truth, detections, task) for task in TASKS})
    return metric, metric.at(weigh(truth))


@pytest.mark.parametrize("task", TASKS)
def test_a_third_of_iou_is_right_at_five_of_nine_thresholds(task):
    """Two blocks of 20 columns that share 10: IoU 10 / 30 is enough for 0.10, 0.15, 0.20, 0.25 and 0.30."""
    slices = [Slice([(GGO, block(10, 10, 8, 20))])]
    _, figures = measure_lenient(slices, [(0, GGO, 0.7, block(10, 20, 8, 20))])
    assert figures[task, "AP10", "ground_glass_opacity"] == pytest.approx(100)
    assert figures[task, "AP10:50", "ground_glass_opacity"] == pytest.approx(100 * 5 / 9)
    assert figures[task, "AP10:50", "all"] == pytest.approx(100 * 5 / 9)


def test_truth_scores_100_and_nothing_0():
    slices = [Slice([(GGO, square(4, 4, 20)), (BRONCHIECTASIS, square(40, 40, 9))])]
    assert list(measure_lenient(slices, perfect(slices))[1].values()) == pytest.approx([100] * 12)
    assert list(measure_lenient(slices, [])[1].values()) == [0.0] * 12


def test_undecided_regions_are_ignored():
    slices = [Slice([(GGO, square(4, 4, 10))], undecided=[(GGO, square(30, 30, 30))])]
    _, figures = measure_lenient(slices, [(0, GGO, 0.99, square(35, 35, 10)), *perfect(slices)])
    assert figures["segm", "AP10:50", "ground_glass_opacity"] == pytest.approx(100)


def test_figures_rest_on_the_patients_with_lesions():
    metric, _ = measure_lenient([Slice([(GGO, square(0, 0, 9))], patient="a"), Slice(patient="b")], [])
    names = ("all", "ground_glass_opacity", "bronchiectasis")
    assert [len(metric.patients_of(("segm", "AP10", name))) for name in names] == [1, 1, 0]
