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
from lung_d2.categories import CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.data.dataset import write_dataset
from lung_d2.evaluation.coco import LungCOCOEvaluator
from lung_d2.masks import build_annotation, decode_mask
from tiny import square, tiny_cases

TASKS = ("bbox", "segm")
UNDECIDED = square(64, 0, 0, 32)


def only_ggo(case):
    for item in case.load():
        yield replace(item, instances=tuple(pair for pair in item.instances if pair[0] is GROUND_GLASS_OPACITY))


@pytest.fixture(scope="module", autouse=True)
def data_sets(tmp_path_factory):
    """Register one patient with three GGO and three bronchi, ``eval_val``, and one without bronchi, ``ggo_val``.

    ``both_val`` is the first with a square of slice 0 left undecided for both categories, ``one_val`` for GGO alone.
    """
    root = tmp_path_factory.mktemp("datasets")
    cases = tiny_cases(patients=1)
    write_dataset(root, "eval", cases, {"patient0": "val"})
    for name, categories in (("both", CATEGORIES), ("one", [GROUND_GLASS_OPACITY])):
        folder = write_dataset(root, name, cases, {"patient0": "val"})
        leave_undecided(folder / "annotations" / "val.json", UNDECIDED, categories)
    without = [replace(case, load=partial(only_ggo, case)) for case in cases]
    write_dataset(root, "ggo", without, {"patient0": "val"})
    register_lung_datasets(root)


def leave_undecided(path, mask, categories):
    """Mark a region of slice 0 as undecided for these categories in a prepared data set."""
    content = json.loads(path.read_text())
    slice_id = next(image["id"] for image in content["images"] if image["slice_index"] == 0)
    for number, category in enumerate(categories, 1 + max(one["id"] for one in content["annotations"])):
        annotation = build_annotation(mask, category) | {"id": number, "image_id": slice_id, "iscrowd": 1}
        content["annotations"].append(annotation)
    path.write_text(json.dumps(content))


def perfect(record):
    """Return the truth of a slice as ``(class, score, mask)``."""
    return [
        (annotation["category_id"], 0.9, decode_mask(annotation["segmentation"]))
        for annotation in record["annotations"]
        if not annotation["iscrowd"]
    ]


def perfect_but_for(*alarms):
    """Return a prediction of the truth that finds alarms ``(class, mask)`` in slice 0, surer of them than of it."""

    def predict(record):
        found = [(category, 0.99, mask) for category, mask in alarms]
        return perfect(record) + (found if record["slice_index"] == 0 else [])

    return predict


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
    names = ("AP", "AP50", "AP75", "APs", "AP50-ground_glass_opacity", "AP50-bronchiectasis", "AP-bronchiectasis")
    assert [results[name] for name in names] == [0.0] * 7
    assert np.isnan([results["APm"], results["APl"]]).all()  # no lesion is so large


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

    results = evaluate(tmp_path, perfect_but_for((1, square(64, 0, 0, 4))))[task]
    assert results["AP50-bronchiectasis"] == pytest.approx(75)
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100)


@pytest.mark.parametrize("task", TASKS)
def test_detections_in_an_undecided_region_are_no_false_alarms(tmp_path, task):
    """Several of them may lie in one region."""
    alarms = [(category, square(64, top, 10, 8)) for category in (0, 1) for top in (10, 20)]
    results = evaluate(tmp_path, perfect_but_for(*alarms), "both_val")[task]
    names = ("AP", "AP50", "AP50-ground_glass_opacity", "AP50-bronchiectasis")
    assert [results[name] for name in names] == [pytest.approx(100)] * 4
    counted = evaluate(tmp_path, perfect_but_for(*alarms), "eval_val")[task]
    # Without the region, two alarms come before the three: precision is 1/3, 2/4 and 3/5.
    assert [counted[name] for name in names] == [pytest.approx(60)] * 4


@pytest.mark.parametrize("task", TASKS)
def test_undecided_region_is_nothing_to_be_found(tmp_path, task):
    assert evaluate(tmp_path, perfect, "both_val")[task]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("task", TASKS)
def test_region_excuses_alarms_of_its_own_category_alone(tmp_path, task):
    alarms = [(category, square(64, 10, 10, 8)) for category in (0, 1)]
    results = evaluate(tmp_path, perfect_but_for(*alarms), "one_val")[task]
    assert results["AP50-ground_glass_opacity"] == pytest.approx(100)
    assert results["AP50-bronchiectasis"] == pytest.approx(75)


@pytest.mark.parametrize("task", TASKS)
def test_alarm_is_excused_by_its_share_in_the_region(tmp_path, task):
    """Of 16 columns 10 are undecided, a share of 0.625: enough at 3 of COCO's 10 thresholds, and at the first."""
    results = evaluate(tmp_path, perfect_but_for((1, square(64, 8, 22, 16))), "both_val")[task]
    assert results["AP50-bronchiectasis"] == pytest.approx(100)
    assert results["AP-bronchiectasis"] == pytest.approx((3 * 100 + 7 * 75) / 10)


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
