"""Registered data sets as sources, and results in the folder of another."""

from __future__ import annotations

import pytest

from lung_d2 import register_lung_datasets
from lung_d2.errors import DatasetError
from lung_d2.evaluation.catalog import check_folder, find_sources
from tiny import write_tiny_dataset


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
