from __future__ import annotations

import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY, PRIVATE_SCHEME, Category
from lung_d2.data.labels import Label, LabelTable, parse_labels, split_assignment
from lung_d2.errors import DatasetError

CODE = "95436008|SCT|Lung consolidation"
CONSOLIDATION = Category("consolidation", 3, (204, 121, 167), ("95436008", "SCT", "Lung consolidation"), "CON")
DEFINED = f"consolidation,code={CODE},color=#CC79A7,short=CON"


@pytest.mark.parametrize(
    ("entries", "names", "meaning"),
    [
        (["1=ground_glass_opacity"], (1,), GROUND_GLASS_OPACITY),
        (["Consolidation=background"], ("consolidation",), Label.BACKGROUND),
        (["7=ignore"], (7, "seven"), Label.IGNORE),
        (["a=b=bronchiectasis"], ("a=b",), BRONCHIECTASIS),
        (["GGO=background"], ("ggo",), Label.BACKGROUND),  # an entry comes before the names of categories
        (["2=bronchiectasis"], ("Segment_1", 2), BRONCHIECTASIS),  # the first name that is known counts
        (["*=background", "Nodule=ignore"], ("Lung", 7), Label.BACKGROUND),
        (["*=background", "Nodule=ignore"], ("nodule",), Label.IGNORE),
        (["*=background"], ("GGO",), GROUND_GLASS_OPACITY),
        ([], ("ground_glass_opacity",), GROUND_GLASS_OPACITY),
        ([], ("Ground-Glass Opacity",), GROUND_GLASS_OPACITY),
        ([], (" bronchiectasis ",), BRONCHIECTASIS),
        ([], ("Traction bronchiectasis",), BRONCHIECTASIS),
        ([], ("background",), Label.BACKGROUND),
        ([], ("_background_",), Label.BACKGROUND),
        ([], ("__ignore__",), Label.IGNORE),
        ([f"3={DEFINED}"], (3,), CONSOLIDATION),
        ([f"3={DEFINED}"], ("Consolidation",), CONSOLIDATION),
        ([f"3={DEFINED}", "4=consolidation"], (4,), CONSOLIDATION),
        (["4=consolidation", f"3={DEFINED}"], (4,), CONSOLIDATION),
        ([f"3={DEFINED}", f"4={DEFINED}"], (4,), CONSOLIDATION),
        ([f"3=Consolidation, short=CON, color=cc79a7, code={CODE}"], (3,), CONSOLIDATION),
    ],
)
def test_a_label_means_what_table_and_names_say(entries, names, meaning):
    assert parse_labels(entries).meaning(*names, where="x") == meaning


def test_what_a_definition_leaves_out_is_derived():
    airway = parse_labels([f"3={DEFINED}", "4=airway_wall,short=AW"]).categories.by_name("airway_wall")
    assert (airway.coco_id, airway.color, airway.short_name) == (4, (0, 158, 115), "AW")
    assert airway.code == ("airway_wall", PRIVATE_SCHEME, "Airway wall")


def test_a_code_may_hold_a_comma():
    meaning = parse_labels(["3=fibrosis,code=51615001|SCT|Fibrosis, lung,short=F"]).categories.by_name("fibrosis").code
    assert meaning == ("51615001", "SCT", "Fibrosis, lung")


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (["=bronchiectasis"], "no label"),
        (["bronchiectasis"], "no label"),
        (["0=bronchiectasis"], "no label"),
        (["1="], "unknown; expected one of ground_glass_opacity"),
        (["1=tumour"], "or define it: NAME,code=VALUE"),
        (["GGO=background", "ggo=bronchiectasis"], "the same label twice"),
        (["3=consolidation,colour=#CC79A7"], "the part 'colour'"),
        (["3=consolidation,short=A,short=B"], "'short' twice"),
        (["3=consolidation,color=red"], "the color 'red'"),
        (["3=consolidation,code=1|SCT"], r"the code '1\|SCT'"),
        (["3=consolidation,short=MUCHTOOLONG"], "short name 'MUCHTOOLONG'"),
        (["3=1st,short=A"], "name '1st'"),
        (["3=background,short=A"], "background, which has a meaning already"),
        (["3=ggo,short=A"], "ggo, which has a meaning already"),
        ([f"3={DEFINED}", "4=consolidation,short=C"], "two different definitions of consolidation"),
        (["3=ground_glass_opacity,short=X"], "two different definitions of ground_glass_opacity"),
        (["3=haze,code=112120|DCM|Haze"], "two different definitions of ground_glass_opacity or its code"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(entries, found):
    with pytest.raises(DatasetError, match=found) as caught:
        parse_labels(entries)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("masks=ggo", ("masks", "ggo")),
        ("a=b=ggo", ("a=b", "ggo")),
        ("ct/*.nii.gz", ("", "ct/*.nii.gz")),
        (f"masks={DEFINED}", ("masks", DEFINED)),
    ],
)
def test_an_assignment_is_split_before_the_meaning(text, parts):
    assert split_assignment(text) == parts


@pytest.mark.parametrize(
    "code", [("95436008", "SCT"), ("112120", "DCM"), ("19325002", "SCT"), ("125040", "DCM"), ("1", "X")]
)
def test_codes_name_what_they_stand_for(code):
    names = ["consolidation", "ground_glass_opacity", "bronchiectasis", "background", ""]
    known = dict(zip(["95436008", "112120", "19325002", "125040", "1"], names, strict=True))
    assert parse_labels([f"3={DEFINED}"]).name_of_code(*code) == known[code[0]]


@pytest.mark.parametrize("name", ["", "*", "nodule"])
def test_another_name_is_unknown(name):
    with pytest.raises(DatasetError, match="unknown; expected one of ground_glass_opacity"):
        LabelTable().parse(name)


def test_unknown_label_is_refused_with_the_option():
    with pytest.raises(DatasetError, match=r"scan\.nii: 1 label\(s\) without a category: '4'.*--label '4=ground_glass"):
        LabelTable().meaning(4, "Segment_4", where="scan.nii")


def test_many_labels_are_looked_up_at_once():
    named = {1: ("Lung", 1), 2: ("", "GGO"), 3: ("Segment 3", 3)}
    assert parse_labels(["lung=background", "3=bronchiectasis"]).meanings(named, "x") == {
        1: Label.BACKGROUND,
        2: GROUND_GLASS_OPACITY,
        3: BRONCHIECTASIS,
    }


def test_all_unknown_labels_are_listed_once():
    named = {number: (f"Organ {number % 25}", number) for number in range(50)}
    with pytest.raises(DatasetError) as caught:
        LabelTable().meanings(named, "some.dcm")
    message = str(caught.value)
    assert message.startswith("some.dcm: 25 label(s) without a category: 'Organ 0', 'Organ 1', ")
    assert "'Organ 19' and 5 more" in message
    assert message.endswith("--label '*=background' for all labels that are not lesions")
    assert "\n" not in message
