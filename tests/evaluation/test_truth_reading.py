"""The COCO JSON of a data set, right, wrong and hostile."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from evaluation.samples import BRONCHIECTASIS, GGO, SIZE, Slice, square, to_dataset, write_source
from lung_d2.errors import DatasetError
from lung_d2.evaluation.truth import Source
from lung_d2.evaluation.truth_reading import is_number, read_truth

SLICES = [Slice([(GGO, square(0, 0, 10)), (BRONCHIECTASIS, square(20, 20, 6))], patient="a")]
CORNERS = [20, 20, 26, 20, 26, 26, 20, 26]


def content_with(**annotation):
    """Return a data set whose second annotation has other values; None takes a key away."""
    content = to_dataset(SLICES)
    changed = content["annotations"][1] | annotation
    content["annotations"][1] = {key: value for key, value in changed.items() if value is not None}
    return content


def image_with(**image):
    content = to_dataset(SLICES)
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
        (to_dataset(SLICES) | {"images": []}, "no slice"),
        (to_dataset(SLICES) | {"images": [7]}, "images that are no list of objects"),
        (to_dataset(SLICES) | {"images": to_dataset(SLICES)["images"] * 2}, "two images of one id"),
        (
            to_dataset(SLICES) | {"categories": [{"id": 1, "name": "bronchiectasis"}]},
            "categories {1: 'bronchiectasis'}",
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
        (to_dataset(SLICES) | {"categories": []}, "annotation 0: category_id 1"),
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
    source = write_source(tmp_path, to_dataset(SLICES))
    with pytest.raises(DatasetError, match="one_val: given twice"):
        read_truth([source, source])


@pytest.mark.parametrize("value", [True, None, "1", float("inf"), float("nan"), 10**400, -(10**400)])
def test_what_is_no_finite_number(value):
    assert not is_number(value)
