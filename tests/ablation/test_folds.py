"""The splits of an ablation: whom a fold holds out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2.ablation.folds import FINAL, dataset_of, split_rows
from lung_d2.ablation.plan import Plan
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = ["file,volume,split", "0.png,a,train", "1.png,a,train", "2.png,b,train", "3.png,c,val", "4.png,e,train"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    return tmp_path


def split_of(source: Path, held_out: list[str], split: str = "0", **same: str) -> dict[str, dict[str, str]]:
    plan = Plan(configs="", base="", dataset="tiny", prepare=[], folds=[held_out], arms={}, same=same)
    (source / "fold.csv").write_text(split_rows(plan, split, source))
    return read_split_file(source / "fold.csv")


def test_fold_holds_out_its_patients_and_keeps_val_away(source):
    found = split_of(source, ["a"])
    assert found["split"] == {"a": "val", "b": "train", "c": "test", "e": "train"}
    assert found["patient"]["3.png"] == "c"


def test_final_split_is_that_of_the_data(source):
    assert split_of(source, ["a"], FINAL) == read_split_file(source / "split.csv")


def test_patients_that_are_one_get_one_name(source):
    found = split_of(source, ["b", "e"], e="b")
    assert found["split"] == {"a": "train", "b": "val", "c": "test"}
    assert found["patient"]["4.png"] == "b"


def test_split_without_files_keeps_its_patients(tmp_path):
    (tmp_path / "split.csv").write_text("patient,split\na,train\nb,train\n")
    assert split_of(tmp_path, ["a"])["split"] == {"a": "val", "b": "train"}


@pytest.mark.parametrize("patient", ["c", "d"])
def test_fold_of_patients_that_are_not_trained_on_is_refused(source, patient):
    with pytest.raises(ConfigError, match=f"fold patient {patient}"):
        split_of(source, [patient])


def test_data_sets_are_named_by_their_split():
    assert [dataset_of("tiny", split) for split in ("1", FINAL)] == ["tiny_fold1", "tiny"]
