"""COCO's figures: those of Detectron2's evaluator."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from evaluation.samples import (
    BRONCHIECTASIS,
    GGO,
    SIZE,
    Slice,
    make_case,
    make_detections,
    perfect,
    random_case,
    square,
    to_dataset,
    weigh,
)
from lung_d2 import register_lung_datasets
from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.coco import LungCOCOEvaluator
from lung_d2.evaluation.coco_ap import CocoAP
from lung_d2.evaluation.matching import TASKS, match


def measure(slices, found):
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
    _, figures = measure(slices, perfect(slices))
    for metric in ("AP", "AP50", "AP75", "APs"):
        for name in ("all", "ground_glass_opacity", "bronchiectasis"):
            assert figures[task, metric, name] == pytest.approx(100)
    assert figures[task, "APm", "all"] == pytest.approx(100)
    assert np.isnan(figures[task, "APm", "bronchiectasis"])
    assert np.isnan(figures[task, "APl", "all"])


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found_scores_0(task):
    _, figures = measure(two_patients(), [])
    assert [figures[task, "AP", name] for name in ("all", "ground_glass_opacity", "bronchiectasis")] == [0, 0, 0]


def test_mean_is_over_categories_that_have_lesions():
    slices = [Slice([(GGO, square(4, 4, 20))])]
    _, figures = measure(slices, [*perfect(slices), (0, BRONCHIECTASIS, 0.9, square(30, 30, 9))])
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
    metric, _ = measure(two_patients(), [])
    names = [("AP", "all"), ("AP", "bronchiectasis"), ("APm", "ground_glass_opacity"), ("APl", "all")]
    assert [len(metric.patients_of(("segm", *name))) for name in names] == [1, 1, 1, 0]  # of all, those of the rarest


def test_curve_is_of_categories_with_lesions():
    slices = [Slice([(GGO, square(4, 4, 20))])]
    metric, _ = measure(slices, perfect(slices))
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
    _, figures = measure(slices, found)
    for task in TASKS:
        for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            assert figures[task, metric, "all"] == pytest.approx(expected[task][metric], nan_ok=True)
        for name in (category.name for category in CATEGORIES):
            for metric in ("AP", "AP50"):
                assert figures[task, metric, name] == pytest.approx(expected[task][f"{metric}-{name}"])
    assert 1 < expected["segm"]["AP"] < 90
