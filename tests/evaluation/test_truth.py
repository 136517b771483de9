"""What is there: slices, lesions, patients of prepared data sets."""

from __future__ import annotations

from evaluation.samples import BRONCHIECTASIS, GGO, Slice, make_truth, square, to_dataset, write_source
from lung_d2.evaluation.truth_reading import read_truth

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
