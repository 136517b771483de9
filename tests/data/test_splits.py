from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.splits import PatientLoad, assign_patients, read_split_file, split_by_patient, split_stratified
from lung_d2.errors import DatasetError
from lung_d2.files import hash_identity

TEN = [f"p{index}" for index in range(10)]
GGO, BRONCHI = GROUND_GLASS_OPACITY.name, BRONCHIECTASIS.name
TWO, THREE = {"train": 0.8, "val": 0.2}, {"train": 0.7, "val": 0.15, "test": 0.15}


def counts(fractions, patients=TEN):
    return Counter(split_by_patient(patients, fractions).values())


def test_same_seed_gives_the_same_splits_in_any_order():
    fractions = {"train": 0.8, "val": 0.2}
    assert split_by_patient(TEN, fractions, 3) == split_by_patient(reversed([*TEN, *TEN]), fractions, 3)


def test_other_seed_gives_other_splits():
    fractions = {"train": 0.5, "val": 0.5}
    assert split_by_patient(TEN, fractions, 1) != split_by_patient(TEN, fractions, 2)


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        ({"train": 0.8, "val": 0.2}, {"train": 8, "val": 2}),
        ({"train": 0.7, "val": 0.2, "test": 0.1}, {"train": 7, "val": 2, "test": 1}),
        ({"train": 1.0, "val": 0.0}, {"train": 10}),
        ({"train": 0.5, "val": 0.5}, {"train": 5, "val": 5}),
        ({"train": 0.99, "val": 0.01}, {"train": 9, "val": 1}),  # at least one
    ],
)
def test_shares_are_of_the_patients(fractions, expected):
    assert counts(fractions) == expected


def test_every_split_gets_a_patient_though_there_are_few():
    assert counts({"train": 0.8, "val": 0.1, "test": 0.1}, TEN[:3]) == {"train": 1, "val": 1, "test": 1}


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.8, "val": 0.3},
        {"train": 1.2, "val": -0.2},
        {"train": 1, "val": 1},
        {"train": float("nan"), "val": 0.2},
        {},
    ],
)
def test_shares_that_do_not_sum_to_one_are_refused(fractions):
    with pytest.raises(DatasetError, match="shares that sum to 1"):
        counts(fractions)


def test_too_few_patients_are_refused_with_the_way_out():
    with pytest.raises(DatasetError, match=r"1 patient\(s\) for 2 splits.*--val-fraction 0"):
        counts({"train": 0.8, "val": 0.2}, ["only"])


def cohort(patients, seed, ggo=0.6, bronchi=0.3):
    """Patients of whom 60 % and 30 % have the categories, with lesion areas that vary by a factor of a thousand."""
    rng = np.random.default_rng(seed)
    return {
        f"p{index}": PatientLoad(
            {
                name: float(np.exp(rng.normal(6, 1.5)))
                for name, share in ((GGO, ggo), (BRONCHI, bronchi))
                if rng.random() < share
            }
        )
        for index in range(patients)
    }


def imbalance(loads, split_of):
    """Return how far the shares of the two categories, of no lesions and of heavy loads are off, at most."""
    ids = sorted(loads)
    areas = np.array([[loads[patient].areas.get(name, 0.0) for name in (GGO, BRONCHI)] for patient in ids])
    total = areas.sum(axis=1)
    heavy = total > np.median(total[total > 0])
    traits = np.column_stack([areas > 0, total == 0, heavy])
    splits = np.array([split_of[patient] for patient in ids])
    return max(np.abs(traits[splits == one].mean(axis=0) - traits.mean(axis=0)).max() for one in set(splits))


def with_category(loads, split_of, name):
    return Counter(split_of[patient] for patient, load in loads.items() if load.areas.get(name))


@pytest.mark.parametrize(("patients", "times"), [(20, 1.8), (60, 3.0), (200, 5.0)])
@pytest.mark.parametrize("fractions", [TWO, THREE])
def test_stratified_splits_are_far_more_even_than_random_ones(patients, times, fractions):
    stratified, by_chance = [], []
    for seed in range(12):
        loads = cohort(patients, seed)
        stratified.append(imbalance(loads, split_stratified(loads, fractions, seed)))
        by_chance.append(imbalance(loads, split_by_patient(loads, fractions, seed)))
    assert np.mean(stratified) * times < np.mean(by_chance)


@pytest.mark.parametrize(
    ("patients", "fractions"), [(2, TWO), (3, TWO), (3, THREE), (7, THREE), (50, TWO), (50, THREE)]
)
def test_stratified_splits_have_the_same_sizes(patients, fractions):
    loads = cohort(patients, seed=0)
    assert Counter(split_stratified(loads, fractions).values()) == counts(fractions, loads)


def test_lesion_load_alone_is_shared_out():
    loads = {f"p{index}": PatientLoad({GGO: 10.0**index}) for index in range(20)}
    for seed in range(20):
        ranks = [int(patient[1:]) for patient, split in split_stratified(loads, TWO, seed).items() if split == "val"]
        assert 7 < np.mean(ranks) < 12  # of 0..19: 9.5; at random, one in three is outside
        assert sum(rank >= 10 for rank in ranks) == 2


def test_stratified_split_goes_by_seed_and_not_by_order():
    loads = cohort(30, seed=1)
    backwards = dict(reversed(loads.items()))
    assert split_stratified(loads, THREE, 5) == split_stratified(backwards, THREE, 5)
    assert split_stratified(loads, THREE, 5) != split_stratified(loads, THREE, 6)


@pytest.mark.parametrize("seed", range(20))
def test_every_split_gets_a_rare_category(seed):
    loads = cohort(100, seed, bronchi=0.0) | {f"rare{index}": PatientLoad({BRONCHI: 5.0}) for index in range(3)}
    assert with_category(loads, split_stratified(loads, THREE, seed), BRONCHI) == {"train": 1, "val": 1, "test": 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_split_of_one_patient_gets_the_one_who_has_both_categories(seed):
    loads = {f"p{index}": PatientLoad({GGO: 5.0}) for index in range(4)}
    loads |= {"both": PatientLoad({GGO: 1.0, BRONCHI: 1.0}), "other": PatientLoad({BRONCHI: 9.0})}
    split_of = split_stratified(loads, {"train": 0.9, "val": 0.1}, seed)
    assert [patient for patient, split in split_of.items() if split == "val"] == ["both"]


def test_patients_without_lesions_are_shared_out():
    loads = {f"p{index}": PatientLoad({GGO: 3.0} if index < 10 else {}) for index in range(20)}
    assert with_category(loads, split_stratified(loads, TWO), GGO) == {"train": 8, "val": 2}


def test_thousands_of_patients_are_dealt():
    loads = cohort(5000, seed=0)
    split_of = split_stratified(loads, THREE)
    assert Counter(split_of.values()) == {"train": 3500, "val": 750, "test": 750}
    assert imbalance(loads, split_of) < 0.002


def test_patients_who_are_alike_are_dealt_at_random():
    in_val = Counter(
        patient for seed in range(300) for patient, split in split_by_patient(TEN, TWO, seed).items() if split == "val"
    )
    assert set(in_val) == set(TEN)
    assert all(30 < count < 95 for count in in_val.values())  # 60 each, give or take 7


@pytest.mark.parametrize("area", [-1.0, float("nan"), float("inf")])
def test_load_that_is_no_area_is_refused(area):
    with pytest.raises(DatasetError, match="lesion load of bronchiectasis: an area of"):
        PatientLoad({BRONCHI: area})


def test_patients_of_a_category_of_their_own_are_shared_out_too():
    loads = {f"p{index}": PatientLoad({"nodule": 3.0} if index < 10 else {}) for index in range(20)}
    split_of = split_stratified(loads, {"train": 0.8, "val": 0.2})
    assert sum(split_of[f"p{index}"] == "val" for index in range(10)) == 2


DICOM, ISSUED, PICTURES = (hash_identity("patient", key) for key in ("\0" + "A-1", "HOSPITAL\0" + "B-2", "run07"))


@pytest.mark.parametrize(
    ("patient", "name"),
    [(DICOM, "A-1"), (PICTURES, "run07"), (ISSUED, "case_3"), ("0123456789abcdef", "0123456789abcdef")],
    ids=["DICOM id", "picture's patient", "case name", "hash"],
)
def test_split_file_names_patients_in_any_of_these_ways(patient, name):
    assert assign_patients([(patient, "case_3")], {name: "val"}) == {patient: "val"}


def test_another_case_of_a_patient_follows_the_named_one():
    cases = [("aa", "unnamed"), ("aa", "first"), ("bb", "second")]
    assert assign_patients(cases, {"first": "train", "second": "val"}) == {"aa": "train", "bb": "val"}


def test_patient_id_goes_before_a_case_that_has_the_same_name():
    cases = [(hash_identity("patient", "1"), "2"), (hash_identity("patient", "2"), "1")]
    assert list(assign_patients(cases, {"1": "train", "2": "val"}).values()) == ["train", "val"]


def test_case_without_a_split_is_named():
    with pytest.raises(DatasetError, match=r"^case_9: no split in split\.csv; expected one for each patient"):
        assign_patients([("aa", "case_1"), ("bb", "case_9")], {"case_1": "train"}, "split.csv")


def test_cases_of_a_patient_in_two_splits_are_refused():
    with pytest.raises(DatasetError, match="case_2: in val, another case of its patient in train"):
        assign_patients([("aa", "case_1"), ("aa", "case_2")], {"case_1": "train", "case_2": "val"})


def test_patient_of_the_split_file_who_is_not_here_is_counted_and_not_named(caplog):
    assert assign_patients([(DICOM, "case_1")], {"A-1": "train", "Miller": "val"}) == {DICOM: "train"}
    assert "1 of its 2 patients have no case here" in caplog.text
    assert "Miller" not in caplog.text


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "split.csv"
    path.write_text(text, encoding)
    return path


@pytest.mark.parametrize("column", ["patient", "volume", "series", "case"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_split_file_names_the_split_of_patients_and_the_patient_of_files(tmp_path, column, encoding):
    path = csv(tmp_path, f"file,{column},split\na.png,p1,train\nb.png,p1,train\nc.png,p2,val\n", encoding)
    assert read_split_file(path) == {
        "split": {"p1": "train", "p2": "val"},
        "patient": {"a.png": "p1", "b.png": "p1", "c.png": "p2"},
    }


def test_columns_of_a_split_file_may_be_in_any_case(tmp_path):
    assert read_split_file(csv(tmp_path, "Patient, SPLIT\np1,val\n"))["split"] == {"p1": "val"}


def test_folder_as_split_file_is_called_one(tmp_path):
    with pytest.raises(DatasetError, match=f"^{tmp_path}: a folder; expected a CSV"):
        read_split_file(tmp_path)


def test_file_without_a_patient_is_its_own(tmp_path):
    path = csv(tmp_path, "file,split\na.png,train\nb.png,val\n")
    assert read_split_file(path)["patient"] == {"a.png": "a.png", "b.png": "b.png"}


def test_patient_in_two_splits_is_refused(tmp_path):
    path = csv(tmp_path, "patient,split\np1,train\np2,val\np1,val\n")
    with pytest.raises(DatasetError, match=r"row 4 in val, an earlier row of the same patient in train") as caught:
        read_split_file(path)
    assert "p1" not in str(caught.value)  # no message names a patient


@pytest.mark.parametrize("text", ["patient,fold\np1,train\n", "split\ntrain\n", "", "patient,split\n"])
def test_missing_columns_are_refused(tmp_path, text):
    with pytest.raises(DatasetError, match="expected split, and patient or file"):
        read_split_file(csv(tmp_path, text))


@pytest.mark.parametrize("text", ["patient,split\np1\n", "patient,split\np1,\n", "patient,split\n,val\n"])
def test_row_without_a_value_is_refused(tmp_path, text):
    with pytest.raises(DatasetError, match=r"split\.csv: row 2"):
        read_split_file(csv(tmp_path, text))


def test_split_that_is_no_file_name_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"row 2 .* with the split '\.\./x'"):
        read_split_file(csv(tmp_path, "patient,split\np1,../x\n"))


def test_missing_split_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.csv: no such file"):
        read_split_file(tmp_path / "none.csv")


def test_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"split\.csv: no CSV"):
        read_split_file(path)
