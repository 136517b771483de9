"""Results files, right and wrong."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_detections, make_truth, square, to_results
from lung_d2.errors import DatasetError
from lung_d2.evaluation.results import read_results
from lung_d2.masks import decode_mask, encode_mask

TRUTH = make_truth([Slice(), Slice()])
MASK = square(3, 5, 7)
FOUND = make_detections(
    [(1, GGO, 0.4, MASK), (0, BRONCHIECTASIS, 0.7, square(9, 9, 4)), (1, GGO, 0.8, square(0, 0, 3))]
)


def read(tmp_path, content, truth=TRUTH):
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_results([path], truth)


def entry(**changes):
    return {key: value for key, value in (to_results(FOUND)[0] | changes).items() if value != "remove"}


def test_detections_are_read_as_they_are(tmp_path):
    found = read(tmp_path, to_results(FOUND))
    assert found.slices.tolist() == [1, 0, 1]
    assert found.categories.tolist() == [GGO, BRONCHIECTASIS, GGO]
    assert found.scores.tolist() == [0.4, 0.7, 0.8]
    assert found.boxes[0].tolist() == [5, 3, 7, 7]
    assert np.array_equal(decode_mask(found.masks[0]), MASK)


def test_groups_are_by_falling_score(tmp_path):
    groups = read(tmp_path, to_results(FOUND)).by_place
    assert {place: group.tolist() for place, group in groups.items()} == {(0, BRONCHIECTASIS): [1], (1, GGO): [2, 0]}


def test_no_detection_is_valid(tmp_path):
    found = read(tmp_path, [])
    assert (len(found), found.boxes.shape, dict(found.by_place)) == (0, (0, 4), {})


def test_digest_is_that_of_the_file(tmp_path):
    found = read(tmp_path, to_results(FOUND))
    assert found.digest == hashlib.sha256((tmp_path / "results.json").read_bytes()).hexdigest()


def test_runs_that_are_not_compressed_are_read(tmp_path):
    runs = [5 * 64 + 3, *([7, 57] * 6), 7]
    rle = {"size": [64, 64], "counts": [*runs, 64 * 64 - sum(runs)]}
    found = read(tmp_path, [entry(segmentation=rle)])
    assert np.array_equal(decode_mask(found.masks[0]), MASK)


def test_box_that_misses_is_that_of_the_mask(tmp_path):
    assert read(tmp_path, [entry(bbox="remove")]).boxes[0].tolist() == [5, 3, 7, 7]


def test_empty_mask_is_valid(tmp_path):
    found = read(tmp_path, [entry(segmentation=encode_mask(np.zeros((64, 64), bool)))])
    assert coco_mask.area(found.masks[0]) == 0


def test_files_of_pooled_data_sets_go_by_their_order(tmp_path):
    other = make_truth([Slice()], "other_val")
    pooled = type(TRUTH)((*TRUTH.sources, *other.sources), (*TRUTH.slices, *other.slices), {}, {})
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        path.write_text(json.dumps([entry(image_id=1)]))
    assert read_results(paths, pooled).slices.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON, or one that breaks off"),
        ("[" * 100_000, "no JSON, or one that breaks off"),
        ('{"annotations": []}', "a COCO data set; expected a COCO results file"),
        ('{"a": 1}', "JSON of another kind"),
        ("[7]", "detection 0: no object"),
        ([entry(), entry(image_id=3)], "detection 1: image_id 3; expected an image of made_val; give the --dataset"),
        ([entry(image_id="1")], "image_id '1'"),
        ([entry(image_id=True)], "image_id True"),
        ([entry(image_id="remove")], "image_id missing"),
        ([entry(category_id=0)], "category_id 0; expected 1 (ground_glass_opacity), 2 (bronchiectasis)"),
        ([entry(score=1.01)], "score 1.01; expected 0 to 1"),
        ([entry(score=-0.1)], "score -0.1"),
        ([entry(score=float("nan"))], "score nan"),
        ([entry(score="remove")], "score missing"),
        ([entry(bbox=[1, 2, 3])], "bbox [1, 2, 3]"),
        ([entry(bbox=[1, 2, 3, -1])], "bbox [1, 2, 3, -1]"),
        ([entry(bbox=[1, 2, 3, float("inf")])], "bbox [1, 2, 3, inf]"),
        ([entry(segmentation="remove")], "no segmentation; expected the mask as RLE"),
        ([entry(segmentation=[[1, 2, 3, 4, 5, 6]])], "a polygon; expected the mask as RLE"),
        ([entry(segmentation={"size": [32, 32], "counts": "0"})], "a mask of [32, 32] pixels; expected [64, 64]"),
        ([entry(segmentation={"size": [64, 64], "counts": "0"})], "RLE of 0 pixels; expected 4096"),
        ([entry(segmentation={"size": [64, 64], "counts": "\u00e9"})], "broken RLE counts"),
        ([entry(segmentation={"size": [64, 64], "counts": [-1, 4097]})], "broken RLE counts"),
    ],
)
def test_wrong_file_is_refused_in_one_line(tmp_path, content, said):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(tmp_path / "results.json"))
    assert "\n" not in message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.json: no such file"):
        read_results([tmp_path / "gone.json"], TRUTH)


def test_folder_is_no_file(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_results([tmp_path], TRUTH)
