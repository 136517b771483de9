"""What is there: slices, lesions, patients of prepared data sets."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from evaluation.samples import (
    BRONCHIECTASIS,
    GGO,
    SIZE,
    Slice,
    make_detections,
    make_truth,
    square,
    to_dataset,
    write_source,
)
from lung_d2 import register_lung_datasets
from lung_d2.categories import CATEGORIES
from lung_d2.errors import DatasetError
from lung_d2.evaluation.evaluate import evaluate
from lung_d2.evaluation.page import render_evaluation_page
from lung_d2.evaluation.truth import Source, check_folder, find_sources, is_number, read_truth
from tiny import write_tiny_dataset

SLICES = [
    Slice([(GGO, square(0, 0, 10)), (BRONCHIECTASIS, square(20, 20, 6))], patient="a"),
    Slice(undecided=[(GGO, square(0, 0, 30))], patient="a"),
    Slice([(GGO, square(5, 5, 8))], patient="b", series="b2", spacing_mm=None),
]


def test_lesions_and_undecided_regions_are_apart(tmp_path):
    truth = read_truth([write_source(tmp_path, to_dataset(SLICES))])
    assert {place: len(regions) for place, regions in truth.lesions.items()} == {(0, 0): 1, (0, 1): 1, (2, 0): 1}
    assert {place: len(regions) for place, regions in truth.undecided.items()} == {(1, 0): 1}
    (region,) = truth.lesions[0, BRONCHIECTASIS]
    assert (region.box, region.area) == ((20, 20, 6, 6), 36)


def test_slices_know_patient_series_and_place(tmp_path):
    truth = read_truth([write_source(tmp_path, to_dataset(SLICES))])
    assert (truth.patients, truth.series) == (("a", "b"), ("a", "b2"))
    assert truth.patient_of_slice.tolist() == [0, 0, 1]
    assert truth.series_of_slice.tolist() == [0, 0, 1]
    assert truth.patient_of_series.tolist() == [0, 1]
    last = truth.slices[-1]
    assert (last.path, last.pixel_spacing_mm) == (tmp_path / "images" / "2.png", None)


def test_patients_with_lesions_are_counted(tmp_path):
    truth = read_truth([write_source(tmp_path, to_dataset(SLICES))])
    assert [truth.patients_with_lesions(category) for category in (GGO, BRONCHIECTASIS, None)] == [2, 1, 2]


def test_slices_are_in_the_order_of_their_ids(tmp_path):
    content = to_dataset(SLICES)
    content["images"].reverse()
    assert [one.image_id for one in read_truth([write_source(tmp_path, content)]).slices] == [1, 2, 3]


def test_data_sets_are_pooled_and_a_patient_of_both_is_one(tmp_path):
    sources = [write_source(tmp_path, to_dataset(SLICES)), write_source(tmp_path, to_dataset(SLICES[2:]), "two_val")]
    truth = read_truth(sources)
    assert [one.dataset for one in truth.slices] == ["one_val"] * 3 + ["two_val"]
    assert truth.patients == ("a", "b")
    assert (3, GGO) in truth.lesions


def test_series_of_two_patients_are_two_though_their_names_are_one():
    truth = make_truth([Slice(patient="a", series="s"), Slice(patient="b", series="s"), Slice(patient="a", series="s")])
    assert truth.series == ("s", "s")
    assert truth.series_of_slice.tolist() == [0, 1, 0]
    assert truth.patient_of_series.tolist() == [0, 1]


READ = [Slice([(GGO, square(0, 0, 10)), (BRONCHIECTASIS, square(20, 20, 6))], patient="a")]
CORNERS = [20, 20, 26, 20, 26, 26, 20, 26]


def content_with(**annotation):
    """Return a data set whose second annotation has other values; None takes a key away."""
    content = to_dataset(READ)
    changed = content["annotations"][1] | annotation
    content["annotations"][1] = {key: value for key, value in changed.items() if value is not None}
    return content


def image_with(**image):
    content = to_dataset(READ)
    content["images"][0] |= image
    return content


def region_of(tmp_path, **annotation):
    (region,) = read_truth([write_source(tmp_path, content_with(**annotation))]).lesions[0, BRONCHIECTASIS]
    return region


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [SIZE, SIZE], "counts": [20 * 65, 6, *[58, 6] * 5, SIZE * SIZE - 20 * 65 - 6 * 6 - 5 * 58]},
        [CORNERS],
        [CORNERS[:8], [20, 20, 23, 20, 23, 26, 20, 26]],
    ],
    ids=["uncompressed RLE", "polygon", "polygons that overlap"],
)
def test_other_forms_of_a_mask_are_the_same_mask(tmp_path, segmentation):
    region = region_of(tmp_path, segmentation=segmentation, area=None, bbox=None)
    assert np.array_equal(coco_mask.decode(region.mask) > 0, square(20, 20, 6))
    assert (region.box, region.area) == ((20, 20, 6, 6), 36)


def test_what_is_given_is_not_measured_again(tmp_path):
    region = region_of(tmp_path, area=35.5, bbox=[19.5, 20, 7, 6])
    assert (region.box, region.area) == ((19.5, 20, 7, 6), 35.5)


def test_annotation_without_iscrowd_is_a_lesion(tmp_path):
    assert region_of(tmp_path, iscrowd=None).area == 36


def test_category_may_be_missing(tmp_path):
    content = to_dataset([Slice([(GGO, square(0, 0, 10))])])
    content["categories"].pop()
    assert len(read_truth([write_source(tmp_path, content)]).lesions) == 1


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ([], "no COCO JSON of ours"),
        ({"images": []}, "no COCO JSON of ours"),
        (to_dataset(READ) | {"images": []}, "no slice"),
        (to_dataset(READ) | {"images": [7]}, "images that are not a list of objects"),
        (
            to_dataset(READ) | {"images": to_dataset(READ)["images"] * 2},
            "two images of one id",
        ),
        (image_with(patient=None), "image 1: patient None"),
        (image_with(slice_index=None), "slice_index None"),
        (image_with(height=0), "height 0"),
        (image_with(height=8193), "height 8193"),
        (image_with(pixel_spacing_mm=[1]), "pixel_spacing_mm [1]"),
        (image_with(pixel_spacing_mm=[1, float("nan")]), "pixel_spacing_mm [1, nan]"),
        (content_with(image_id=77), "annotation 1: image_id 77"),
        (content_with(image_id=[]), "image_id []"),
        (content_with(image_id=1.0), "image_id 1.0"),
        (content_with(category_id=True), "category_id True"),
        (to_dataset(READ) | {"categories": []}, "ids []"),
        (content_with(category_id=9), "category_id 9"),
        (content_with(iscrowd=2), "iscrowd 2"),
        (content_with(area=float("nan")), "area nan"),
        (content_with(bbox=[0, 0, 10**400, 1]), "bbox [0, 0, 1000"),
        (content_with(segmentation=None), "no mask"),
        (content_with(segmentation="mask"), "a mask of another form"),
        (content_with(segmentation=[[1, 1, 5, 5]]), "a mask of another form"),
        (content_with(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "a mask of another form"),
        (content_with(segmentation=[[0, 0, 9e4, 9e4] * 30]), "a mask of another form"),
        (content_with(segmentation=[[70, 70, 80, 70, 80, 80]]), "a mask without a pixel"),
        (content_with(segmentation={"size": [SIZE, SIZE], "counts": "12"}), "RLE of"),
        (content_with(segmentation={"size": [SIZE, SIZE], "counts": "zzz!!"}), "broken RLE counts"),
        (content_with(segmentation={"size": [SIZE, SIZE], "counts": [True, SIZE * SIZE - 1]}), "broken RLE counts"),
        (content_with(segmentation={"size": [32, 32], "counts": [1024]}), "RLE of size [32, 32]"),
        (content_with(segmentation={"size": [SIZE, SIZE], "counts": [SIZE * SIZE]}), "a mask without a pixel"),
    ],
)
def test_broken_data_set_is_named_with_what_is_wrong(tmp_path, content, finding):
    with pytest.raises(DatasetError) as caught:
        read_truth([write_source(tmp_path, content)])
    message = str(caught.value)
    assert "one_val.json" in message
    assert finding in message
    assert "\n" not in message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.json"):
        read_truth([Source("gone_val", tmp_path / "gone.json", tmp_path)])


def test_data_set_given_twice_is_refused(tmp_path):
    source = write_source(tmp_path, to_dataset(READ))
    with pytest.raises(DatasetError, match="one_val: given twice"):
        read_truth([source, source])


@pytest.mark.parametrize("value", [True, None, "1", float("inf"), float("nan"), 10**400, -(10**400)])
def test_what_is_no_finite_number(value):
    assert not is_number(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = write_tiny_dataset(root, "catalogued", slices=2)
    register_lung_datasets(root)
    return folder


def test_source_is_where_the_data_set_lies(folder):
    (source,) = find_sources(["catalogued_val"])
    assert (source.name, source.json_file) == ("catalogued_val", folder / "annotations" / "val.json")
    assert source.image_root == folder / "images"


def test_unknown_data_set_is_named(folder):
    with pytest.raises(DatasetError, match="data set nowhere_val: not prepared"):
        find_sources(["catalogued_val", "nowhere_val"])


def test_folder_of_another_data_set_is_refused(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"results of catalogued_train.*give --dataset catalogued_train"):
        check_folder(tmp_path / "catalogued_train" / "results.json", "catalogued_val")


@pytest.mark.parametrize("name", ["catalogued_val", "anything"])
def test_other_folders_are_accepted(folder, tmp_path, name):
    check_folder(tmp_path / name / "results.json", "catalogued_val")


def test_third_category_of_a_data_set_is_measured(tmp_path):
    content = to_dataset([Slice([(GGO, square(2, 2, 9)), (BRONCHIECTASIS, square(20, 20, 9))])])
    content["categories"] = [*CATEGORIES.to_coco(), {"id": 3, "name": "consolidation"}]
    content["annotations"][1]["category_id"] = 3
    truth = read_truth([write_source(tmp_path, content)])
    assert truth.categories.names == ["ground_glass_opacity", "bronchiectasis", "consolidation"]
    assert set(truth.lesions) == {(0, 0), (0, 2)}
    found = evaluate(truth, make_detections([(0, 2, 0.9, square(20, 20, 9))]))
    assert found["metrics"]["coco"]["figures"]["segm"]["AP50"]["consolidation"]["value"] == pytest.approx(100)
    assert "consolidation" in render_evaluation_page(found, truth, make_detections([]))


def test_data_sets_that_call_an_id_differently_are_refused(tmp_path):
    contents = [to_dataset([Slice([(GGO, square(2, 2, 9))])]) for _ in range(2)]
    contents[0]["categories"] = [{"id": 3, "name": "consolidation"}, *CATEGORIES.to_coco()]
    contents[1]["categories"] = [{"id": 3, "name": "honeycombing"}, *CATEGORIES.to_coco()]
    sources = [
        write_source(tmp_path, content, name) for content, name in zip(contents, ("a_val", "b_val"), strict=True)
    ]
    with pytest.raises(DatasetError, match="category 3 named honeycombing; expected consolidation"):
        read_truth(sources)
