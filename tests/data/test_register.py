from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from lung_d2 import register_lung_datasets
from lung_d2.categories import describe_category
from lung_d2.data.register import check_registered
from lung_d2.errors import DatasetError
from tiny import SPACING_MM, write_tiny_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(path, "regular", slices=3)
    return path


@pytest.fixture
def broken(tmp_path):
    """Give a data set and a function that changes its val.json."""
    json_file = write_tiny_dataset(tmp_path, "broken", slices=2) / "annotations" / "val.json"

    def change(edit):
        content = json.loads(json_file.read_text())
        edit(content)
        json_file.write_text(json.dumps(content))
        register_lung_datasets(tmp_path)

    return json_file, change


def test_every_split_is_found(root):
    assert register_lung_datasets(root) == ["regular_train", "regular_val"]
    assert len(DatasetCatalog.get("regular_train")) == 9


def test_root_comes_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert register_lung_datasets() == ["regular_train", "regular_val"]


def test_folder_without_data_sets_registers_none(tmp_path):
    assert register_lung_datasets(tmp_path / "none") == []


def test_unfinished_data_set_is_not_registered(tmp_path):
    write_tiny_dataset(tmp_path, "half", slices=1).rename(tmp_path / "lung_ct" / ".half.partial")
    assert register_lung_datasets(tmp_path) == []


def test_metadata_is_there_before_the_data_set_is_read(root):
    register_lung_datasets(root)
    metadata = MetadataCatalog.get("regular_val")
    assert metadata.thing_classes == ["ground_glass_opacity", "bronchiectasis"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
    assert metadata.evaluator_type == "coco"
    assert metadata.thing_colors == [(230, 159, 0), (86, 180, 233)]


def test_slice_without_a_lesion_is_kept(root):
    register_lung_datasets(root)
    counts = [len(record["annotations"]) for record in DatasetCatalog.get("regular_val")]
    assert counts == [0, 2, 2]


def test_record_holds_what_detectron2_leaves_out(root):
    register_lung_datasets(root)
    last = DatasetCatalog.get("regular_val")[-1]
    images = root / "lung_ct" / "regular" / "images"
    assert last["hu"] is True
    assert last["pixel_spacing_mm"] == list(SPACING_MM)
    assert (last["slice_index"], last["slice_position_mm"]) == (2, 4.0)
    assert last["neighbours"] == [str(images / last["series"] / name) for name in ("0001.png", "0002.png")]


def test_other_root_replaces_a_data_set_of_the_same_name(root, tmp_path):
    register_lung_datasets(root)
    DatasetCatalog.get("regular_val")
    write_tiny_dataset(tmp_path, "regular", slices=5)
    register_lung_datasets(tmp_path)
    assert len(DatasetCatalog.get("regular_val")) == 5
    assert MetadataCatalog.get("regular_val").json_file.startswith(str(tmp_path))


def test_torn_json_is_named(broken):
    json_file, change = broken
    change(lambda content: None)
    json_file.write_text(json_file.read_text()[:100])
    with pytest.raises(DatasetError, match=r"val\.json: no COCO JSON"):
        DatasetCatalog.get("broken_val")


@pytest.mark.parametrize(
    ("edit", "finding"),
    [
        (lambda content: content.pop("images"), "no COCO JSON"),
        (lambda content: content["images"][0].pop("hu"), "no COCO JSON"),
        (lambda content: content["categories"].clear(), "expected one of each"),
        (lambda content: content["categories"][0].pop("name"), "categories that cannot be read"),
        (
            lambda content: content["annotations"][0].update(category_id=7),
            "annotations of category_id 7; expected one of",
        ),
    ],
    ids=["no images", "no hu", "no category", "no name", "unknown id"],
)
def test_json_that_is_not_ours_is_named(broken, edit, finding):
    _, change = broken
    change(edit)
    with pytest.raises(DatasetError, match=r"val\.json") as caught:
        DatasetCatalog.get("broken_val")
    assert finding in str(caught.value)


def test_a_data_set_brings_its_own_categories(broken):
    _, change = broken
    own = describe_category("consolidation", 7, color=(204, 121, 167), short_name="CON")
    change(lambda content: content["categories"].append(own.to_coco()))
    metadata = MetadataCatalog.get("broken_val")
    assert metadata.categories[2] == own
    assert metadata.thing_classes == ["ground_glass_opacity", "bronchiectasis", "consolidation"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 7: 2}
    assert len(DatasetCatalog.get("broken_val")) == 2


def test_data_set_that_was_not_prepared_is_named(root):
    register_lung_datasets(root)
    check_registered(["regular_train"])
    with pytest.raises(DatasetError, match=r"data set none_train: not prepared.*prepare_dataset"):
        check_registered(["regular_train", "none_train"])
