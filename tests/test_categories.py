from __future__ import annotations

import pytest

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, Categories, describe_category
from lung_d2.errors import DatasetError


def test_coco_ids_count_from_one_in_order():
    assert [category.coco_id for category in CATEGORIES] == [1, 2]


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_category_is_found_by_its_name(category):
    assert CATEGORIES.by_name(category.name) is category


def test_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(DatasetError, match="'ggo': unknown; expected one of ground_glass_opacity, bronchiectasis"):
        CATEGORIES.by_name("ggo")


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_category_is_found_by_its_coco_id(category):
    assert CATEGORIES.by_coco_id(category.coco_id) is category


def test_unknown_coco_id_is_refused_with_the_ids_there_are():
    with pytest.raises(DatasetError, match="category_id 0: unknown; expected one of 1, 2"):
        CATEGORIES.by_coco_id(0)


def test_dicom_codes_are_those_of_the_standard():
    assert GROUND_GLASS_OPACITY.code[:2] == ("112120", "DCM")
    assert BRONCHIECTASIS.code[:2] == ("12295008", "SCT")


def test_colours_are_warm_and_cold():
    """Red-green blindness leaves yellow against blue."""
    red, _, blue = GROUND_GLASS_OPACITY.color
    assert red - blue > 100
    red, _, blue = BRONCHIECTASIS.color
    assert blue - red > 100


def test_records_of_other_tools_and_of_before_load_with_the_rest_derived():
    found = Categories.from_coco([{"id": 3, "name": "consolidation"}, {"id": 1, "name": "ground_glass_opacity"}], "x")
    assert found.names == ["ground_glass_opacity", "consolidation"]
    assert found[0] == GROUND_GLASS_OPACITY
    assert (found[1].short_name, found[1].code[1]) == ("CON", "99LUNGD2")
    assert found[1].color not in (GROUND_GLASS_OPACITY.color, BRONCHIECTASIS.color)
    assert Categories.from_coco(found.to_coco(), "x") == found


@pytest.mark.parametrize(
    "records",
    [
        7,
        [],
        [{"id": 1}],
        [{"id": 0, "name": "a"}],
        [{"id": 1, "name": "../a"}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        [{"id": 1, "name": "a", "color": [1, 2]}],
        [{"id": 1, "name": "a", "code": {"value": "x" * 17, "scheme": "s", "meaning": "m"}}],
    ],
)
def test_broken_records_are_one_error(records):
    with pytest.raises(DatasetError, match=r"made\.json"):
        Categories.from_coco(records, "made.json")


def test_description_defaults_to_the_two():
    assert describe_category("bronchiectasis", 2) == BRONCHIECTASIS
