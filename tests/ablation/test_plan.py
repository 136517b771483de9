"""Reading the plan of an ablation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lung_d2.ablation.plan import read_plan
from lung_d2.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "tools" / "ablation.yaml"
SMALL = {
    "configs": "configs",
    "base": "base.yaml",
    "dataset": "tiny",
    "prepare": ["slices"],
    "folds": [["a"], ["b"]],
    "starts": {"ct": "ct_{split}.pth"},
    "arms": {"base": {"about": "the base"}, "other": {"about": "more", "start": "ct", "against": "base"}},
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def test_shipped_plan_names_files_that_are_there():
    plan = read_plan(SHIPPED)
    assert plan.base.is_file()
    assert all(part.is_file() for arm in plan.arms for part in arm.parts)


def test_shipped_plan_holds_out_every_training_patient_once(data_root):
    lines = (data_root / "covid_slices" / "split.csv").read_text().splitlines()[1:]
    trained = {volume for _, volume, split in (line.split(",") for line in lines) if split == "train"}
    held_out = [patient for fold in read_plan(SHIPPED).folds for patient in fold]
    assert sorted(held_out) == sorted(trained)


def test_paths_are_relative_to_the_plan(tmp_path):
    assert read_plan(write(tmp_path)).base == tmp_path / "configs" / "base.yaml"


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"colour": "red"}, "colour"),
        ({"arms": {"base": {"abut": "a word wrong"}}}, "abut"),
        ({"arms": {"base": {"about": "", "against": "none"}}}, "arm none"),
        ({"arms": {"base": {"about": "", "start": "imagenet"}}}, "start imagenet"),
        ({"arms": ["base"]}, "list"),
    ],
)
def test_wrong_plan_is_one_line_that_says_what(tmp_path, changes, finding):
    with pytest.raises(ConfigError, match=finding) as caught:
        read_plan(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.getcwd []", "- 1"])
def test_file_that_is_no_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.yaml"):
        read_plan(path)


def test_missing_plan_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_plan(tmp_path / "none.yaml")


def test_unknown_arm_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="base, other"):
        read_plan(write(tmp_path)).arm("third")
