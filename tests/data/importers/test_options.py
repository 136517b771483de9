from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from data.importers.drawn import make_request
from lung_d2.data.importers.coco_json import find_cases
from lung_d2.data.importers.options import parse_spacing
from lung_d2.data.importers.registry import PatientRule, list_importers
from lung_d2.errors import ConfigError, DatasetError

OUTLINE = [[2, 3, 8, 3, 8, 7, 2, 7]]  # 6 x 4 pixels


@pytest.mark.parametrize(("text", "spacing"), [(None, None), ("0.7", (0.7, 0.7)), ("0.7,0.65", (0.7, 0.65))])
def test_spacing_is_one_number_or_two(text, spacing):
    assert parse_spacing(text) == spacing


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "11", "1,2,3"])
def test_spacing_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=f"--spacing-mm {text}"):
        parse_spacing(text)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat"])
def test_tools_that_draw_have_the_same_options(name):
    own = set(list_importers()[name].find_cases.__kwdefaults__)
    assert {"images", "spacing_mm", "pixel_origin", "skip_shapes"} <= own


def write_coco(folder, *segmentations):
    """Write a picture with a lesion for each segmentation."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 20), np.uint8))
    records = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [2, 3, 6, 4], "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": records,
        "categories": [{"id": 1, "name": "ggo"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return make_request(folder, patients=PatientRule("(a)"))


def test_boxes_of_coco_are_refused_with_the_option_that_leaves_them_out(tmp_path):
    (case,) = find_cases(write_coco(tmp_path, OUTLINE, []))
    with pytest.raises(DatasetError, match=r"annotation 1: no segmentation, a box at most; .*--skip-shapes"):
        list(case.load())


def test_boxes_of_coco_are_left_out_with_a_count(tmp_path, caplog):
    (case,) = find_cases(write_coco(tmp_path, OUTLINE, [], None), skip_shapes=True)
    (item,) = case.load()
    assert [int(mask.sum()) for _, mask in item.instances] == [24]
    assert "coco.json" not in caplog.text
    assert f"{tmp_path}: left out shapes that give no mask: 2 box" in caplog.text


def test_coco_of_boxes_alone_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="boxes alone; expected one or more"):
        find_cases(write_coco(tmp_path, []), skip_shapes=True)
