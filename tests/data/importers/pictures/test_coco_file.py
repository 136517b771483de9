from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data.importers.drawn import make_request
from lung_d2.data.importers.pictures.coco import find_cases
from lung_d2.data.importers.pictures.coco_file import decode_segmentation, read_coco, split_of_file
from lung_d2.data.importers.pictures.shapes import Canvas
from lung_d2.data.importers.registry import PatientRule
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity
from lung_d2.masks import encode_mask

SIZE = (16, 20)
CANVAS = Canvas(SIZE)
SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4 pixels from (2, 3) on


def rle(counts):
    return {"size": list(SIZE), "counts": counts}


def decode(segmentation):
    return decode_segmentation(segmentation, CANVAS, "coco.json: annotation 5")


@pytest.mark.parametrize("seed", range(5))
def test_compressed_rle_is_read_as_it_was_written(seed):
    mask = np.random.default_rng(seed).random(SIZE) < (0.02, 0.3, 0.5, 0.9, 1.0)[seed]
    assert np.array_equal(decode(encode_mask(mask)), mask)


def test_long_runs_are_read():
    mask = np.zeros((900, 1100), bool)
    mask[3:890, 5:1090] = True
    mask[400:500, 20:30] = False
    assert np.array_equal(decode_segmentation(encode_mask(mask), Canvas(mask.shape), "x"), mask)


def test_runs_go_by_columns_and_begin_with_background():
    mask = decode(rle([17, 2, 16 * 20 - 19]))
    assert np.argwhere(mask).tolist() == [[1, 1], [2, 1]]


def test_polygons_add_up():
    """Where they overlap, too: the even-odd rule goes for each alone."""
    assert decode([SQUARE, [4, 3, 10, 3, 10, 7, 4, 7]])[3:7, 2:10].all()


def test_polygon_is_nearly_that_of_pycocotools():
    ring = [1.2, 2.4, 15.8, 3.6, 11.2, 13.8, 4.4, 9.2]
    wanted = coco_mask.decode(coco_mask.frPyObjects([ring], *SIZE))[..., 0] > 0
    assert np.count_nonzero(decode([ring]) != wanted) <= 2
    assert wanted.sum() > 80


NAN, INFINITE = float("nan"), float("inf")
HOSTILE = {
    "flat polygon": (SQUARE, "a segmentation of another form"),
    "text": ("abc", "a segmentation of another form"),
    "number": (5, "a segmentation of another form"),
    "texts in a polygon": ([["1"] * 6], "a polygon of other than numbers"),
    "odd polygon": ([SQUARE[:-1]], "a polygon of 7 numbers; expected an even number"),
    "empty polygon": ([[]], r"0 point\(s\)"),
    "two points": ([SQUARE[:4]], r"2 point\(s\)"),
    "no area": ([[1, 1, 5, 5, 9, 9]], "no area"),
    "NaN": ([[1, 1, NAN, 5, 9, 2]], "a coordinate that is not finite"),
    "infinite": ([[1, 1, INFINITE, 5, 9, 2]], "a coordinate that is not finite"),
    "huge number": ([[1, 1, 10**400, 5, 9, 2]], "a coordinate that is not finite"),
    "outside": ([[30, 1, 40, 1, 40, 9]], "a polygon outside"),
    "RLE of another size": (encode_mask(np.ones((20, 16), bool)), r"RLE of size \[20, 16\]; expected \[16, 20\]"),
    "RLE without size": ({"counts": [320]}, "RLE of size None"),
    "RLE without counts": ({"size": list(SIZE)}, "broken RLE"),
    "short RLE": (rle([5, 5]), "RLE of 10 pixels; expected 320"),
    "short compressed RLE": (rle("55"), "RLE of 10 pixels"),
    "empty compressed RLE": (rle(""), "RLE of 0 pixels"),
    "long RLE": (rle([0, 10**12]), "RLE of 1000000000000 pixels"),
    "negative RLE": (rle([-5, 325]), "broken RLE"),
    "RLE of fractions": (rle([0.5, 319.5]), "broken RLE"),
    "RLE that breaks off": (rle("o"), "truncated RLE counts"),
    "RLE of other letters": (rle("é~"), "broken RLE"),
    "endless RLE": (rle("o" * 50), "broken RLE"),
}


@pytest.mark.parametrize(("segmentation", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_mask_is_refused(segmentation, message):
    with pytest.raises(DatasetError, match=f"^coco.json: annotation 5: {message}"):
        decode(segmentation)


def test_file_of_labelme_is_sent_to_its_importer(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [], "imagePath": "a.png"}))
    with pytest.raises(DatasetError, match=r"a\.json: a file of labelme; .*give the subcommand labelme"):
        read_coco(tmp_path / "a.json")


def test_export_as_cvat_is_sent_to_its_importer(tmp_path):
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(DatasetError, match=r"no JSON file; .*give the subcommand cvat"):
        find_cases(make_request(tmp_path))


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


OWN = {
    "id": 99,
    "name": "consolidation",
    "color": [204, 121, 167],
    "code": {"value": "95436008", "scheme": "SCT", "meaning": "Lung consolidation"},
}


def test_a_category_with_code_and_color_is_taken_over(tmp_path):
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, "segmentation": [SQUARE]}
        for number, category in enumerate((99, 1))
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "patient": "p"}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "GGO"}, OWN, {"id": 7, "name": "of another tool", "color": "#ff0000"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros(SIZE, np.uint8))
    (case,) = find_cases(make_request(tmp_path, patients=PatientRule()))
    assert case.categories.names == ["ground_glass_opacity", "bronchiectasis", "consolidation"]
    (item,) = case.load()
    assert [(category.coco_id, category.name) for category, _ in item.instances] == [
        (1, "ground_glass_opacity"),
        (3, "consolidation"),
    ]
    told = make_request(tmp_path, {"consolidation": Label.BACKGROUND}, patients=PatientRule())
    assert len(find_cases(told)[0].categories) == 2
