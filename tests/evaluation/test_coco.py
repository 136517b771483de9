from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from lung_d2 import register_lung_datasets
from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.data.annotations import decode_mask
from lung_d2.data.dataset import write_dataset
from lung_d2.evaluation.coco import LungCOCOEvaluator
from tiny import tiny_cases

TASKS = ("bbox", "segm")


def only_ggo(case):
    for item in case.load():
        yield replace(item, instances=tuple(pair for pair in item.instances if pair[0] is GROUND_GLASS_OPACITY))


@pytest.fixture(scope="module", autouse=True)
def data_sets(tmp_path_factory):
    """Register one patient with three GGO and three bronchi, ``eval_val``, and one without bronchi, ``ggo_val``."""
    root = tmp_path_factory.mktemp("datasets")
    cases = tiny_cases(patients=1)
    write_dataset(root, "eval", cases, {"patient0": "val"})
    without = [replace(case, load=partial(only_ggo, case)) for case in cases]
    write_dataset(root, "ggo", without, {"patient0": "val"})
    register_lung_datasets(root)


def perfect(record):
    """Return the truth of a slice as ``(class, score, mask)``."""
    return [
        (annotation["category_id"], 0.9, decode_mask(annotation["segmentation"]))
        for annotation in record["annotations"]
    ]


def moved(mask, columns):
    return np.roll(mask, columns, axis=1)


def evaluate(tmp_path, predict, name="eval_val"):
    """Evaluate what ``predict(record)`` returns for each slice."""
    evaluator = LungCOCOEvaluator(name, str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        found = predict(record)
        instances = Instances((64, 64))
        masks = np.array([mask for _, _, mask in found], bool).reshape(-1, 64, 64)
        boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in map(np.nonzero, masks)]
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.tensor([score for _, score, _ in found])
        instances.pred_classes = torch.tensor([category for category, _, _ in found], dtype=torch.int64)
        instances.pred_masks = torch.from_numpy(masks)
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()


@pytest.mark.parametrize("task", TASKS)
def test_truth_scores_100(tmp_path, task):
    results = evaluate(tmp_path, perfect)[task]
    names = ("AP", "AP50", "AP50-ground_glass_opacity", "AP50-bronchiectasis", "AP-bronchiectasis")
    assert [results[name] for name in names] == [pytest.approx(100)] * 5


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found_scores_0(tmp_path, task):
    results = evaluate(tmp_path, lambda record: [])[task]
    names = ("AP", "AP50", "AP75", "AP50-ground_glass_opacity", "AP50-bronchiectasis", "AP-bronchiectasis")
    assert [results[name] for name in names] == [0.0] * 6


def test_nothing_found_has_the_keys_of_something_found(tmp_path):
    nothing, something = evaluate(tmp_path, lambda record: []), evaluate(tmp_path, perfect)
    assert {task: set(metrics) for task, metrics in nothing.items()} == {task: set(something[task]) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_one_of_three_missed(tmp_path, task):
    """Precision 1 up to recall 2/3, that is at 67 of COCO's 101 recalls."""

    def predict(record):
        return [found for found in perfect(record) if not (record["slice_index"] == 1 and found[0] == 0)]

    results = evaluate(tmp_path, predict)[task]
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100 * 67 / 101)
    assert results["AP50-bronchiectasis"] == pytest.approx(100)
    assert results["AP50"] == pytest.approx((100 * 67 / 101 + 100) / 2)


@pytest.mark.parametrize("task", TASKS)
def test_one_false_alarm_before_three_right(tmp_path, task):
    """Precision is 1/2, 2/3 and 3/4 at the three: COCO takes the best to the right, 3/4 everywhere."""

    def predict(record):
        alarm = np.zeros((64, 64), bool)
        alarm[:4, :4] = True
        return perfect(record) + ([(1, 0.99, alarm)] if record["slice_index"] == 0 else [])

    results = evaluate(tmp_path, predict)[task]
    assert results["AP50-bronchiectasis"] == pytest.approx(75)
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100)


@pytest.mark.parametrize("task", TASKS)
def test_ap50_asks_less_than_ap(tmp_path, task):
    """A square of 16 pixels moved by 5 has an IoU of 176 / 336 = 0.524: right at the first of COCO's 10 thresholds."""
    results = evaluate(tmp_path, lambda r: [(c, s, moved(m, 5)) for c, s, m in perfect(r) if c == 0])[task]
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100)
    assert results["AP-ground_glass_opacity"] == pytest.approx(10)
    assert results["AP50-bronchiectasis"] == 0


@pytest.mark.parametrize("predict", [perfect, lambda record: []], ids=["found", "nothing found"])
def test_category_without_truth_is_nan(tmp_path, predict):
    results = evaluate(tmp_path, predict, "ggo_val")["segm"]
    assert np.isnan(results["AP50-bronchiectasis"])
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100 if predict is perfect else 0)


def test_results_on_disk_are_strict_json(tmp_path):
    evaluate(tmp_path, perfect, "ggo_val")
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["bbox"]["AP50-bronchiectasis"] is None
    assert json.loads(text)["segm"]["AP50-ground_glass_opacity"] == pytest.approx(100)
