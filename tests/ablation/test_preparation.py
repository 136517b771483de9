"""What an ablation prepares: the splits of its folds, and the steps that are still to be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2.ablation.plan import Arm, Plan
from lung_d2.ablation.preparation import list_steps, write_fold_file
from lung_d2.ablation.runs import FINAL, list_runs
from lung_d2.data.splits import read_split_file
from lung_d2.errors import ConfigError

PLAN = Plan(
    configs=Path(),
    base=Path("base.yaml"),
    dataset="tiny",
    prepare=("slices", "--images", "ct"),
    folds=(("a",), ("b",)),
    arms=(Arm("base", "ours", final=True), Arm("ct", "knows CT", start="ct", final=True)),
    starts={"ct": "starts/split_{split}/net.pth"},
    backbone=("INPUT.CT.GREY", "minmax_clahe"),
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = ["file,volume,split", "0.png,a,train", "1.png,a,train", "2.png,b,train", "3.png,c,val"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps_of(source: Path, *, reduced: bool = False) -> list[tuple[str, ...]]:
    runs = list(list_runs(PLAN, source / "out", reduced=reduced))
    return [step.command for step in list_steps(PLAN, runs, source, source / "out", reduced=reduced)]


def test_fold_holds_out_its_patients_and_keeps_val_away(source):
    write_fold_file(source / "split.csv", ["a"], source / "fold.csv")
    assert read_split_file(source / "fold.csv")["split"] == {"a": "val", "b": "train", "c": "test"}
    assert read_split_file(source / "fold.csv")["patient"]["3.png"] == "c"


@pytest.mark.parametrize("patient", ["c", "d"])
def test_fold_of_patients_that_are_not_trained_on_is_refused(source, patient):
    with pytest.raises(ConfigError, match=f"fold patient {patient}"):
        write_fold_file(source / "split.csv", [patient], source / "fold.csv")


def test_every_split_is_prepared_once_and_then_every_backbone(source):
    names = [command[-1] for command in steps_of(source)]
    assert names[:3] == ["tiny_fold0", "tiny_fold1", "tiny"]
    assert names[3:] == ["('tiny_fold0_train',)", "('tiny_fold1_train',)", "('tiny_train',)"]


def test_backbone_of_a_reduced_ablation_is_taught_on_the_first_fold_alone(source):
    taught = [command for command in steps_of(source, reduced=True) if command[0] == "make_ct_backbone.py"]
    (command,) = taught
    assert command[1:3] == ("--output", "starts/split_0")
    assert command[-4:] == ("INPUT.CT.GREY", "minmax_clahe", "DATASETS.TRAIN", "('tiny_fold0_train',)")


def test_what_is_there_is_not_made_again(source):
    done = source / "datasets" / "lung_ct" / "tiny" / "annotations" / "val.json"
    done.parent.mkdir(parents=True)
    done.touch()
    (source / "starts" / f"split_{FINAL}").mkdir(parents=True)
    (source / "starts" / f"split_{FINAL}" / "net.pth").touch()
    commands = steps_of(source)
    assert all(command[-1] not in ("tiny", "('tiny_train',)") for command in commands)
    assert len(commands) == 4
