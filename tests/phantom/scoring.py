"""COCO mask AP50 of detections on phantoms."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lung_d2.categories import CATEGORIES
from lung_d2.phantom.patient import PhantomPatient
from studies.threshold_rule import RuleDetection

Detect = Callable[[PhantomPatient, int], Iterable[RuleDetection]]


def score_ap50(patients: Iterable[PhantomPatient], detect: Detect) -> dict[str, float]:
    """Return the mask AP50 (0..100) of each category, and ``overall``."""
    images, truth, results = [], [], []
    ids = {category.name: category.coco_id for category in CATEGORIES}
    for patient in patients:
        for index, plane in enumerate(patient.volume.hu):
            image_id = len(images) + 1
            images.append({"id": image_id, "height": plane.shape[0], "width": plane.shape[1]})
            for name, instances in patient.instances.items():
                for value in np.unique(instances[index])[1:]:
                    truth.append(_annotation(len(truth) + 1, image_id, ids[name], instances[index] == value))
            for found in detect(patient, index):
                entry = _annotation(0, image_id, ids[found.category], found.mask)
                results.append({**entry, "score": found.score})
    return _evaluate(images, truth, results)


def _annotation(number: int, image_id: int, category_id: int, mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    area = float(coco_mask.area(rle))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle,
        "area": area,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "iscrowd": 0,
    }


def _evaluate(images: list, truth: list, results: list) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": truth,
            "categories": [{"id": category.coco_id, "name": category.name} for category in CATEGORIES],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 2]
    scores = {category.name: 100 * float(precision[:, k].mean()) for k, category in enumerate(CATEGORIES)}
    return {**scores, "overall": float(np.mean(list(scores.values())))}
