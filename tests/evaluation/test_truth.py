"""What is there: slices, lesions, patients of prepared data sets."""

from __future__ import annotations

import json

import pytest

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, square, to_dataset
from lung_d2.errors import DatasetError
from lung_d2.evaluation.truth import Source, read_truth

SLICES = [
    Slice([(GGO, square(0, 0, 10)), (BRONCHIECTASIS, square(20, 20, 6))], patient="a"),
    Slice(undecided=[(GGO, square(0, 0, 30))], patient="a"),
    Slice([(GGO, square(5, 5, 8))], patient="b", series="b2", spacing_mm=None),
]


def write(folder, content, name="one_val"):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return Source(name, path, folder / "images")


def test_lesions_and_undecided_regions_are_apart(tmp_path):
    truth = read_truth([write(tmp_path, to_dataset(SLICES))])
    assert {place: len(regions) for place, regions in truth.lesions.items()} == {(0, 0): 1, (0, 1): 1, (2, 0): 1}
    assert {place: len(regions) for place, regions in truth.undecided.items()} == {(1, 0): 1}
    (region,) = truth.lesions[0, BRONCHIECTASIS]
    assert (region.box, region.area) == ((20, 20, 6, 6), 36)


def test_slices_know_patient_series_and_place(tmp_path):
    truth = read_truth([write(tmp_path, to_dataset(SLICES))])
    assert (truth.patients, truth.series) == (("a", "b"), ("a", "b2"))
    assert truth.patient_of_slice.tolist() == [0, 0, 1]
    assert truth.series_of_slice.tolist() == [0, 0, 1]
    assert truth.patient_of_series.tolist() == [0, 1]
    last = truth.slices[-1]
    assert (last.path, last.pixel_spacing_mm) == (tmp_path / "images" / "2.png", None)


def test_patients_with_lesions_are_counted(tmp_path):
    truth = read_truth([write(tmp_path, to_dataset(SLICES))])
    assert [truth.patients_with_lesions(category) for category in (GGO, BRONCHIECTASIS, None)] == [2, 1, 2]


def test_slices_are_in_the_order_of_their_ids(tmp_path):
    content = to_dataset(SLICES)
    content["images"].reverse()
    assert [one.image_id for one in read_truth([write(tmp_path, content)]).slices] == [1, 2, 3]


def test_data_sets_are_pooled_and_a_patient_of_both_is_one(tmp_path):
    sources = [write(tmp_path, to_dataset(SLICES)), write(tmp_path, to_dataset(SLICES[2:]), "two_val")]
    truth = read_truth(sources)
    assert [one.dataset for one in truth.slices] == ["one_val"] * 3 + ["two_val"]
    assert truth.patients == ("a", "b")
    assert (3, GGO) in truth.lesions


def damaged(**changes):
    return to_dataset(SLICES) | changes


@pytest.mark.parametrize(
    "content",
    [
        [],
        damaged(images=[]),
        damaged(images=[{"id": 1}]),
        {"images": []},
        damaged(annotations=[{"image_id": 77, "category_id": 1, "iscrowd": 0}]),
        damaged(annotations=[{"image_id": 1, "category_id": 9, "iscrowd": 0}]),
    ],
    ids=["list", "no images", "bare image", "no annotations", "unknown image", "unknown category"],
)
def test_broken_data_set_is_named(tmp_path, content):
    with pytest.raises(DatasetError, match=r"one_val\.json.*prepare"):
        read_truth([write(tmp_path, content)])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.json"):
        read_truth([Source("gone_val", tmp_path / "gone.json", tmp_path)])


def test_data_set_given_twice_is_refused(tmp_path):
    source = write(tmp_path, to_dataset(SLICES))
    with pytest.raises(DatasetError, match="one_val: given twice"):
        read_truth([source, source])
