from __future__ import annotations

import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.labels import Label, LabelTable, meanings_of_names, parse_labels, parse_meaning
from lung_d2.errors import DatasetError


def test_values_and_names_mean_what_the_table_says():
    table = parse_labels(["1=ground_glass_opacity", "Consolidation=background", "7=ignore", "a=b=bronchiectasis"])
    assert table.meaning(1, where="x") == GROUND_GLASS_OPACITY
    assert table.meaning("consolidation", where="x") is Label.BACKGROUND
    assert table.meaning(7, "seven", where="x") is Label.IGNORE
    assert table.meaning("a=b", where="x") == BRONCHIECTASIS


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("ground_glass_opacity", GROUND_GLASS_OPACITY),
        ("Ground-Glass Opacity", GROUND_GLASS_OPACITY),
        ("GGO", GROUND_GLASS_OPACITY),
        (" bronchiectasis ", BRONCHIECTASIS),
        ("Traction bronchiectasis", BRONCHIECTASIS),
    ],
)
def test_names_of_ours_need_no_table(name, category):
    assert LabelTable().meaning(name, where="x") == category


def test_the_table_comes_before_our_names():
    assert parse_labels(["GGO=background"]).meaning("ggo", where="x") is Label.BACKGROUND


def test_the_first_name_that_is_known_counts():
    assert parse_labels(["2=bronchiectasis"]).meaning("Segment_1", 2, where="x") == BRONCHIECTASIS


def test_unknown_label_is_refused_with_the_option():
    with pytest.raises(
        DatasetError, match=r"scan\.nii: label '4' without a category.*--label '4=ground_glass_opacity'"
    ):
        LabelTable().meaning(4, "Segment_4", where="scan.nii")


@pytest.mark.parametrize("entry", ["=bronchiectasis", "bronchiectasis", "0=bronchiectasis", "1=tumour", "1="])
def test_entry_that_says_nothing_is_refused(entry):
    with pytest.raises(DatasetError):
        parse_labels([entry])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [(" GGO ", GROUND_GLASS_OPACITY), ("bronchiectasis ", BRONCHIECTASIS), ("Ignore", Label.IGNORE)],
)
def test_meaning_is_known_by_common_spellings(name, meaning):
    assert parse_meaning(name) == meaning


@pytest.mark.parametrize("name", ["", "*", "nodule"])
def test_meaning_of_another_name_is_refused(name):
    with pytest.raises(DatasetError, match="unknown; expected one of ground_glass_opacity"):
        parse_meaning(name)


def test_label_given_twice_is_refused():
    with pytest.raises(DatasetError, match="same label twice"):
        parse_labels(["GGO=background", "ggo=bronchiectasis"])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("background", Label.BACKGROUND), ("_background_", Label.BACKGROUND), ("__ignore__", Label.IGNORE)],
)
def test_names_of_what_is_no_lesion_are_known(name, meaning):
    assert LabelTable().meaning(name, where="x") is meaning


def test_star_stands_for_all_that_nothing_else_names():
    table = parse_labels(["*=background", "Nodule=ignore"])
    assert table.meaning("Lung", 7, where="x") is Label.BACKGROUND
    assert table.meaning("nodule", where="x") is Label.IGNORE
    assert table.meaning("GGO", where="x") == GROUND_GLASS_OPACITY


def test_many_labels_are_looked_up_at_once():
    named = {1: ("Lung", 1), 2: ("", "GGO"), 3: ("Segment 3", 3)}
    assert meanings_of_names(named, parse_labels(["lung=background", "3=bronchiectasis"]), "x") == {
        1: Label.BACKGROUND,
        2: GROUND_GLASS_OPACITY,
        3: BRONCHIECTASIS,
    }


def test_all_unknown_labels_are_listed_once():
    named = {number: (f"Organ {number % 25}", number) for number in range(50)}
    with pytest.raises(DatasetError) as caught:
        meanings_of_names(named, LabelTable(), "some.dcm")
    message = str(caught.value)
    assert message.startswith("some.dcm: 25 label(s) without a category: 'Organ 0', 'Organ 1', ")
    assert "'Organ 19' and 5 more" in message
    assert message.endswith("--label '*=background' for all that are no lesion")
    assert "\n" not in message
