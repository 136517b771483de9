from __future__ import annotations

from collections import Counter

import pytest

from lung_d2.data.splits import read_split_file, split_by_patient
from lung_d2.errors import DatasetError

TEN = [f"p{index}" for index in range(10)]


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


@pytest.mark.parametrize("fractions", [{"train": 0.8, "val": 0.3}, {"train": 1.2, "val": -0.2}, {"train": 1, "val": 1}])
def test_shares_that_do_not_sum_to_one_are_refused(fractions):
    with pytest.raises(DatasetError, match="shares that sum to 1"):
        counts(fractions)


def test_too_few_patients_are_refused_with_the_way_out():
    with pytest.raises(DatasetError, match=r"1 patient\(s\) for 2 splits.*--val-fraction 0"):
        counts({"train": 0.8, "val": 0.2}, ["only"])


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
