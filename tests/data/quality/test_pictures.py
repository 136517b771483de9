"""Pictures of a prepared data set."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.data.quality.pictures import DatasetPictures, Picture
from lung_d2.errors import DatasetError
from tiny import write_tiny_dataset

PLENTY = 10_000_000
EXAMPLE = {"file_name": "series0/0001.png", "split": "train", "note": "odd"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"))


def decode(picture: Picture) -> np.ndarray:
    head, _, data = picture.source.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def edit(folder: Path, tmp_path: Path, change: Any) -> Path:
    """Return a copy of the annotations that is changed, with an empty folder of images."""
    for json_file in (folder / "annotations").glob("*.json"):
        content = json.loads(json_file.read_text())
        change(content)
        target = tmp_path / "annotations" / json_file.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_examples_show_the_lesion_in_its_color_and_as_it_is(dataset: Path, category) -> None:
    for picture in DatasetPictures(dataset, PLENTY).examples(category, 3):
        slice_tile, close_up, bare = np.array_split(decode(picture), 3, axis=1)
        assert slice_tile.shape[0] > 200
        for tile, colored in ((close_up, True), (bare, False)):
            distance = np.abs(tile - category.color).sum(axis=2).min()
            assert (distance < 90) == colored


def test_examples_are_of_several_patients(dataset: Path) -> None:
    pictures = list(DatasetPictures(dataset, PLENTY).examples(GROUND_GLASS_OPACITY, 4))
    assert {picture.place.split("/")[0].split()[-1] for picture in pictures} == {f"series{n}" for n in range(4)}


def test_no_more_examples_than_lesions(dataset: Path, tmp_path: Path) -> None:
    def keep_one(content: dict[str, Any]) -> None:
        mine = [one for one in content["annotations"] if one["category_id"] == BRONCHIECTASIS.coco_id]
        content["annotations"] = mine[:1] if len(content["images"]) > 4 else []

    folder = edit(dataset, tmp_path, keep_one)
    (folder / "images").symlink_to(dataset / "images")
    pictures = DatasetPictures(folder, PLENTY)
    assert len(list(pictures.examples(BRONCHIECTASIS, 6))) == 1
    assert list(pictures.examples(GROUND_GLASS_OPACITY, 6)) == []


def test_example_names_area_and_density(dataset: Path) -> None:
    picture = next(DatasetPictures(dataset, PLENTY).examples(GROUND_GLASS_OPACITY, 1))
    assert picture.note.startswith("143 mm²")  # 16 x 16 pixels of 0.56 mm2
    assert picture.note.endswith("HU")


def test_undecided_regions_are_no_examples(dataset: Path, tmp_path: Path) -> None:
    def make_undecided(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1

    folder = edit(dataset, tmp_path, make_undecided)
    (folder / "images").symlink_to(dataset / "images")
    pictures = DatasetPictures(folder, PLENTY)
    assert list(pictures.examples(GROUND_GLASS_OPACITY, 6)) == []
    assert len(list(pictures.slice_of(EXAMPLE))) == 1


def test_slice_without_a_record_is_drawn_without_outlines(dataset: Path, tmp_path: Path) -> None:
    def forget(content: dict[str, Any]) -> None:
        content["images"], content["annotations"] = [], []

    folder = edit(dataset, tmp_path, forget)
    (folder / "images").symlink_to(dataset / "images")
    drawn = decode(next(iter(DatasetPictures(folder, PLENTY).slice_of(EXAMPLE))))
    assert np.ptp(drawn, axis=2).max() < 12  # grey but for what JPEG makes of it


def test_pictures_end_with_their_bytes(dataset: Path) -> None:
    first = next(DatasetPictures(dataset, PLENTY).examples(BRONCHIECTASIS, 6))
    size = len(base64.b64decode(first.source.partition(",")[2]))
    pictures = DatasetPictures(dataset, int(2.5 * size))
    assert 1 <= len(list(pictures.examples(BRONCHIECTASIS, 6))) <= 3
    assert len(list(DatasetPictures(dataset, 10).slice_of(EXAMPLE))) == 0


def test_missing_picture_is_an_error(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"0999\.png"):
        list(DatasetPictures(dataset, PLENTY).slice_of(EXAMPLE | {"file_name": "series0/0999.png"}))


def test_picture_outside_the_data_set_is_refused(dataset: Path) -> None:
    with pytest.raises(DatasetError, match="outside the data set"):
        list(DatasetPictures(dataset, PLENTY).slice_of(EXAMPLE | {"file_name": "../../secret.png"}))


def test_broken_annotations_are_an_error(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train\.json.*no COCO JSON"):
        DatasetPictures(edit(dataset, tmp_path, lambda content: content.pop("images")), PLENTY)
