"""What a data set writes of patients and series: pseudonyms under its key."""

from __future__ import annotations

import json
from functools import partial

import pytest

from lung_d2.data import dataset
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
