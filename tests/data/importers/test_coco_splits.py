from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.importers.drawn import make_request
from lung_d2.data.importers.coco_json import find_cases
from lung_d2.data.importers.coco_splits import split_of_file
from lung_d2.data.importers.registry import PatientRule
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("x/val.json", "val"),
        ("x/Validation.json", "val"),
        ("test/_annotations.coco.json", "test"),
        ("valid/_annotations.coco.json", "val"),
        ("train/instances_val.json", "val"),
    ],
)
def test_split_is_in_the_name_of_the_file_or_its_folder(path, split):
    assert split_of_file(Path(path)) == split


@pytest.mark.parametrize(
    ("path", "finding"),
    [("x/coco.json", "no split"), ("x/trained.json", "no split"), ("train/train_val.json", "several splits")],
)
def test_name_without_one_split_is_refused(path, finding):
    with pytest.raises(DatasetError, match=f"{Path(path).name}: a name of {finding}; .*--split-file"):
        split_of_file(Path(path))


def write_split(folder, split, *names):
    """Write pictures with a lesion each, and the COCO file of a split."""
    for name in names:
        cv2.imwrite(str(folder / name), np.full((9, 9), len(name), np.uint8))
    ring = [1, 1, 5, 1, 5, 5, 1, 5]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [ring]} for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "ggo"}],
    }
    (folder / f"instances_{split}.json").write_text(json.dumps(content))


def find(folder, **options):
    return find_cases(make_request(folder, patients=PatientRule("^(.)")), **options)


def test_cases_have_the_splits_of_their_files_on_request(tmp_path):
    write_split(tmp_path, "train", "a1.png", "a2.png", "b1.png")
    write_split(tmp_path, "val", "c1.png")
    assert {case.split for case in find(tmp_path)} == {""}
    expected = {hash_identity("patient", name): split for name, split in (("a", "train"), ("b", "train"), ("c", "val"))}
    assert {case.patient: case.split for case in find(tmp_path, splits_from_names=True)} == expected


def test_patient_in_two_splits_is_refused(tmp_path):
    write_split(tmp_path, "train", "a1.png")
    write_split(tmp_path, "val", "a2.png")
    finding = r"a2\.png: in split val, while a1\.png of the same patient is in train; .*leave --splits-from-names out"
    with pytest.raises(DatasetError, match=finding):
        find(tmp_path, splits_from_names=True)
    assert len(find(tmp_path)) == 1
