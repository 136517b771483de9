"""Reading the plan of an ablation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lung_d2.ablation.plan import read_plan
from lung_d2.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "tools" / "ablation.yaml"
FINAL = ("plain", "base", "ct", "recipe", "plain_nms_03", "plain_tta", "recipe_class_scores", "recipe_tta")
CONFIGS = SHIPPED.parents[1] / "configs"
SMALL = {
    "configs": str(CONFIGS),
    "base": "Base-LungCT-RCNN-FPN.yaml",
    "dataset": "tiny",
    "prepare": ["slices"],
    "folds": [["a"], ["b"]],
    "starts": {"ct": {"path": "ct_{split}.pth"}},
    "arms": {"base": {"about": "the base"}, "other": {"about": "more", "start": "ct", "against": "base"}},
}


def of_base(**more: object) -> dict[str, object]:
    """Return arms of which a third is of the base."""
    return SMALL["arms"] | {"third": {"about": "", "of": "base"} | more}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def test_shipped_plan_is_read_whole():
    plan = read_plan(SHIPPED)
    assert plan.starts["distilled"].make == plan.starts["sampled"].make
    assert {name for name, arm in plan.arms.items() if arm.final} == set(FINAL)


def test_shipped_plan_holds_out_every_training_patient_once(data_root):
    lines = (data_root / "covid_slices" / "split.csv").read_text().splitlines()[1:]
    trained = {volume for _, volume, split in (line.split(",") for line in lines) if split == "train"}
    held_out = [patient for fold in read_plan(SHIPPED).folds for patient in fold]
    assert sorted(held_out) == sorted(trained)


def test_patients_that_are_one_are_held_out_together():
    plan = read_plan(SHIPPED)
    fold_of = {patient: number for number, fold in enumerate(plan.folds) for patient in fold}
    assert all(fold_of[one] == fold_of[other] for one, other in plan.same.items())


def test_arm_over_another_adds_to_it(tmp_path):
    part, second = "variants/sigmoid.yaml", "variants/mask_14.yaml"
    lower = {"about": "a start", "start": "ct", "parts": [part], "against": "base"}
    arms = {"ct": lower, "mask": {"about": "more", "over": "ct", "parts": [second]}}
    arms["top"] = {"about": "", "over": "mask", "against": "base"}
    plan = read_plan(write(tmp_path, arms=SMALL["arms"] | arms))
    assert (plan.arms["mask"].parts, plan.arms["mask"].start, plan.arms["mask"].against) == ([part, second], "ct", "ct")
    assert (plan.arms["top"].parts, plan.arms["top"].against) == ([part, second], "base")


def test_arm_over_another_may_start_elsewhere(tmp_path):
    lower = {"about": "", "start": "ct", "datasets": ["more"], "plain": True}
    arms = {"lower": lower, "upper": {"about": "", "over": "lower", "start": "other", "datasets": ["most"]}}
    made = {"path": "made"}
    plan = read_plan(
        write(tmp_path, arms=arms, starts={"ct": made, "other": made}, datasets={"more": made, "most": made})
    )
    upper = plan.arms["upper"]
    assert (upper.start, upper.datasets, upper.plain) == ("other", ["more", "most"], True)


def test_arm_of_another_has_its_parts_and_start_and_is_compared_with_it(tmp_path):
    parts = ["variants/sigmoid.yaml", "ablation/nms_03.yaml"]
    arms = {
        "ct": {"about": "", "start": "ct", "parts": parts[:1]},
        "nms": {"about": "", "of": "ct", "parts": parts[1:]},
    }
    nms = read_plan(write(tmp_path, arms=arms)).arms["nms"]
    assert (nms.parts, nms.start, nms.against, nms.of) == (parts, "ct", "ct", "ct")


def test_configs_are_relative_to_the_plan(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "base.yaml").touch()
    plan = read_plan(write(tmp_path, configs="own", base="base.yaml"))
    assert plan.configs == str(tmp_path / "own")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"colour": "red"}, "colour"),
        ({"arms": {"base": {"abut": "a word wrong"}}}, "abut"),
        ({"arms": {"base": {"about": None}}}, "about"),
        ({"arms": {"base": {"about": "", "against": "none"}}}, "against none in arm base; expected base"),
        ({"arms": {"base": {"about": "", "over": "later"}, "later": {"about": ""}}}, "over later .* above it: none"),
        ({"arms": {"base": {"about": "", "of": "later"}, "later": {"about": ""}}}, "of later .* above it: none"),
        ({"arms": of_base(over="other")}, "third of base, over other; expected one of both"),
        ({"arms": of_base(start="ct")}, "third of base, start ct; expected none"),
        ({"arms": of_base(plain=True)}, "third of base, plain; expected no mapper"),
        ({"arms": of_base(final=True)}, "third of base, final; expected base final too"),
        ({"arms": of_base() | {"upper": {"about": "", "of": "third"}}}, "third itself of base; .*; name base"),
        ({"arms": {"base": {"about": "", "start": "imagenet"}}}, "start imagenet in arm base; expected ct"),
        ({"arms": {"base": {"about": "", "parts": ["no.yaml"]}}}, r"part no\.yaml in arm base"),
        ({"arms": {"base": {"about": "", "datasets": ["more"]}}}, "data set more in arm base; expected none"),
        ({"arms": ["base"]}, "list"),
        ({"folds": None}, "folds"),
        ({"seeds": 3}, "Invalid"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"starts": ["ct"]}, "merge"),
        ({"starts": {"ct": {"path": "", "needs": ["later"]}, "later": {"path": ""}}}, "ct: later, which"),
        ({"datasets": {"more": {"path": "", "needs": ["ct"]}}}, "needs of more: ct, which is not above it"),
        ({"datasets": {"ct": {"path": ""}}}, "ct as a start and as a data set"),
        ({"datasets": {"data": {"path": ""}}}, "data as a name; expected none of split, train, data"),
        ({"starts": {"ct": {"path": "{train}.pth"}}}, "{train} in path of ct; expected split"),
        ({"starts": {"ct": {"path": "", "make": [["a.py", "{other}"]]}}}, "{other} in ct; .*; add it to needs"),
        ({"datasets": {"more": {"path": "{"}}}, "{ in path of more; expected pairs of braces"),
        ({"settings": ["SEED"]}, "merge"),
    ],
)
def test_wrong_plan_is_one_line_that_says_what(tmp_path, changes, finding):
    with pytest.raises(ConfigError, match=finding) as caught:
        read_plan(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.getcwd []", "- 1", "1"])
def test_file_that_is_no_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.yaml"):
        read_plan(path)


def test_missing_plan_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_plan(tmp_path / "none.yaml")
