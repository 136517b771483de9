"""What a data set writes of patients and series: pseudonyms under its key."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from lung_d2.data import dataset
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.dataset import choose_key
from lung_d2.errors import DatasetError
from lung_d2.files import pseudonym, read_key, write_key
from tiny import tiny_cases

# Small pictures of squares look alike.
write_dataset = partial(dataset.write_dataset, allow_duplicates=True)


def test_patients_and_series_get_pseudonyms_that_the_key_decides(tmp_path):
    names = []
    for root, key in ((tmp_path / "a", b"a" * 32), (tmp_path / "b", b"a" * 32), (tmp_path / "c", b"c" * 32)):
        folder = write_dataset(root, "made", tiny_cases(2), {"patient0": "train", "patient1": "val"}, key=key)
        images = json.loads((folder / "annotations" / "train.json").read_text())["images"]
        names.append({(image["patient"], image["series"], image["file_name"]) for image in images})
        assert all((folder / "images" / image["file_name"]).is_file() for image in images)
        assert all((folder / "images" / name).is_file() for image in images for name in image["neighbours"])
        assert not any(
            hidden in path.read_text() for path in folder.rglob("*.json") for hidden in ("patient0", "series0")
        )
        assert read_key(folder / "pseudonym.key") == key
    assert names[0] == names[1]
    assert not names[0] & names[2]


def test_key_is_that_of_a_file_else_the_earlier_one_else_new(tmp_path):
    write_key(b"f" * 32, tmp_path / "other.key")
    assert choose_key(tmp_path, "made", tmp_path / "other.key") == b"f" * 32
    folder = write_dataset(tmp_path, "made", tiny_cases(1), {"patient0": "train"}, key=b"e" * 32)
    assert choose_key(tmp_path, "made") == b"e" * 32
    assert (folder / "pseudonym.key").stat().st_mode & 0o777 == 0o600
    assert choose_key(tmp_path, "new") != choose_key(tmp_path, "new")


def test_interrupted_call_goes_on_with_its_pseudonyms(tmp_path):
    def fail(folder):
        raise DatasetError(folder, found="a full disk", remedy="make room")

    split = {"patient0": "train", "patient1": "val"}
    with pytest.raises(DatasetError, match="full disk"):
        write_dataset(tmp_path, "made", tiny_cases(2), split, key=b"k" * 32, finish=fail)
    assert choose_key(tmp_path, "made") == b"k" * 32
    folder = write_dataset(tmp_path, "made", tiny_cases(2), split, key=b"k" * 32)
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(
        pseudonym("series", f"series{number}", b"k" * 32) for number in range(2)
    )


def test_no_name_of_the_source_is_left_in_a_report_of_copies(tmp_path):
    (case, *_) = tiny_cases(patients=1, size=48)
    plane = next(iter(case.load())).plane
    copies = [AnnotatedSlice(plane=plane, instances=(), slice_index=index) for index in range(2)]
    folder = write_dataset(
        tmp_path, "tiny", [replace(case, load=partial(tuple, copies))], {case.patient: "train"}, key=b"k" * 32
    )
    report = json.loads((folder / "report.json").read_text())
    assert "duplicate" in [one["kind"] for one in report["suspicions"]], "it tests nothing"
    names = (case.patient, case.series)
    assert not [name for name in names if name in (folder / "report.json").read_text()]


@pytest.mark.parametrize("key", [b"b" * 32, None])
def test_call_that_ended_after_the_renaming_is_taken_up_under_another_key(tmp_path, key):
    write = partial(write_dataset, name="made", cases=tiny_cases(2), split={"patient0": "train", "patient1": "val"})

    def end(_folder):
        raise DatasetError("page", found="torn", remedy="again")

    with pytest.raises(DatasetError, match="torn"):
        write(tmp_path, key=b"a" * 32, finish=end)
    folder, whole = write(tmp_path, key=key), write(tmp_path / "whole", key=key)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
