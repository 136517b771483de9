from __future__ import annotations

import json

import numpy as np
from pycocotools.coco import COCO

from lung_d2.findings.files import build_image_index, build_results
from lung_d2.lesions import SliceDetections
from lung_d2.masks import encode_mask
from tiny import ring, square

MASKS = (square(32, 4, 6, 8), ring(32, 20, 10, 7))


def detections(index=3):
    return SliceDetections(
        slice_index=index,
        boxes=np.array([[6, 4, 14, 12], [10, 20, 17, 27]], np.float32),
        scores=np.array([0.875, 0.5], np.float32),
        category_ids=np.array([2, 1]),
        masks=tuple(encode_mask(mask) for mask in MASKS),
    )


def test_results_by_hand():
    first, second = build_results([detections()])
    assert first == {
        "image_id": 3,
        "category_id": 2,
        "bbox": [6.0, 4.0, 8.0, 8.0],  # x, y, width, height
        "score": 0.875,
        "segmentation": encode_mask(MASKS[0]),
    }
    assert (second["category_id"], second["bbox"]) == (1, [10.0, 20.0, 7.0, 7.0])


def test_slices_follow_each_other():
    assert [result["image_id"] for result in build_results([detections(0), detections(1)])] == [0, 0, 1, 1]


def test_no_detection_is_an_empty_list():
    empty = detections().above(1.0)
    assert build_results([empty, empty]) == []


def test_pycocotools_loads_the_results_over_the_index(tmp_path):
    images = [{"id": index, "height": 32, "width": 32, "file_name": ""} for index in range(4)]
    (tmp_path / "slices.json").write_text(json.dumps(build_image_index(images)))
    (tmp_path / "detections.json").write_text(json.dumps(build_results([detections()])))
    loaded = COCO(str(tmp_path / "slices.json")).loadRes(str(tmp_path / "detections.json"))
    assert sorted(loaded.imgs) == [0, 1, 2, 3]
    annotations = loaded.imgToAnns[3]
    assert [loaded.cats[a["category_id"]]["name"] for a in annotations] == ["bronchiectasis", "ground_glass_opacity"]
    for annotation, mask in zip(annotations, MASKS, strict=True):
        assert np.array_equal(loaded.annToMask(annotation).astype(bool), mask)
