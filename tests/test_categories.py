from __future__ import annotations

import pytest

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, category_by_coco_id, category_by_name
from lung_d2.errors import DatasetError


def test_coco_ids_count_from_one_in_order():
    assert [category.coco_id for category in CATEGORIES] == [1, 2]


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_category_is_found_by_its_name(category):
    assert category_by_name(category.name) is category


def test_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(DatasetError, match="'ggo': unknown; expected one of ground_glass_opacity, bronchiectasis"):
        category_by_name("ggo")


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_category_is_found_by_its_coco_id(category):
    assert category_by_coco_id(category.coco_id) is category


def test_unknown_coco_id_is_refused_with_the_ids_there_are():
    with pytest.raises(DatasetError, match="category_id 0: unknown; expected one of 1, 2"):
        category_by_coco_id(0)


def test_dicom_codes_are_those_of_the_standard():
    assert GROUND_GLASS_OPACITY.code[:2] == ("112120", "DCM")
    assert BRONCHIECTASIS.code[:2] == ("12295008", "SCT")


def test_colours_are_warm_and_cold():
    """Red-green blindness leaves yellow against blue."""
    red, _, blue = GROUND_GLASS_OPACITY.color
    assert red - blue > 100
    red, _, blue = BRONCHIECTASIS.color
    assert blue - red > 100
