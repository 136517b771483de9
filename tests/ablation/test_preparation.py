"""What an ablation prepares: the steps that are due, and what is refused or taken as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lung_d2.ablation.plan import Arm, Made, Plan
from lung_d2.ablation.preparation import list_steps
from lung_d2.ablation.runs import list_runs
from lung_d2.ablation.steps import Making, Step
from lung_d2.errors import ConfigError, DatasetError

BACKBONE = [["make_ct_backbone.py", "--output", "starts/split_{split}", "DATASETS.TRAIN", "('{train}',)"]]
PLAN = Plan(
    configs="",
    base="base.yaml",
    dataset="tiny",
    prepare=["slices", "--images", "ct"],
    folds=[["a"], ["b", "e"]],
    same={"e": "b"},
    arms={"base": Arm("ours", final=True), "ct": Arm("knows CT", start="ct", datasets=["more_train"], final=True)},
    starts={"ct": Made("starts/split_{split}/net.pth", BACKBONE)},
    datasets={"more_train": Made("{datasets}/more.json", [["make_phantom.py", "--into", "{data}/series"]])},
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = ["file,volume,split", "0.png,a,train", "1.png,a,train", "2.png,b,train", "3.png,c,val", "4.png,e,train"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps_of(source: Path, plan: Plan = PLAN, *, reduced: bool = False) -> list[Step]:
    runs = list_runs(plan, source / "out", reduced=reduced)
    return list_steps(plan, runs, source, source / "out", reduced=reduced)


def finish(step: Step) -> None:
    """Leave what the step would leave."""
    step.result.parent.mkdir(parents=True, exist_ok=True)
    step.result.write_text(step.mark)
    if isinstance(step, Making):
        step.mark_file.write_text(step.mark)


def scripts(steps: list[Step]) -> list[str]:
    return [command[0] for step in steps for command in step.commands]


def test_every_split_is_prepared_once_and_then_what_arms_need(source):
    steps = steps_of(source)
    assert scripts(steps) == ["prepare_dataset.py"] * 3 + ["make_phantom.py"] + ["make_ct_backbone.py"] * 3
    assert [step.commands[0][-2] for step in steps[:3]] == ["tiny_fold0", "tiny_fold1", "tiny"]
    assert steps[3].commands == (("make_phantom.py", "--into", f"{source}/series"),)


def test_start_of_a_reduced_ablation_has_seen_the_first_fold_alone(source):
    (step,) = [step for step in steps_of(source, reduced=True) if "make_ct_backbone.py" in step.commands[0]]
    assert step.result == Path("starts/split_0/net.pth")
    assert step.commands[0][1:] == ("--output", "starts/split_0", "DATASETS.TRAIN", "('tiny_fold0_train',)")


def test_split_that_a_start_has_seen_is_prepared_where_no_run_is_of_it(source):
    runs = list_runs(PLAN, source / "out", reduced=True, splits=["final"])
    steps = list_steps(PLAN, runs, source, source / "out", reduced=True)
    prepared = [step.commands[0][-2] for step in steps if step.commands[0][0] == "prepare_dataset.py"]
    assert prepared == ["tiny", "tiny_fold0"]
    steps = list_steps(PLAN, runs[:1], source, source / "out", reduced=True)
    assert [step.commands[0][-2] for step in steps] == ["tiny"]


def test_what_a_start_needs_is_made_before_it_and_once(source):
    more = Made("more.json", [["make_phantom.py"]])
    on_both = Made("both_{split}.pth", [["train_net.py", "MODEL.WEIGHTS", "{ct}"]], needs=["ct", "more_train"])
    arms = {"both": Arm("of both", start="both", datasets=["more_train"])}
    plan = replace(PLAN, arms=arms, datasets={"more_train": more}, starts=PLAN.starts | {"both": on_both})
    runs = list_runs(plan, source / "out", splits=["0"])
    steps = list_steps(plan, runs, source, source / "out", reduced=False)
    assert scripts(steps) == ["prepare_dataset.py", "make_phantom.py", "make_ct_backbone.py", "train_net.py"]
    assert steps[-1].result == Path("both_0.pth")
    assert steps[-1].commands[0][-1] == "starts/split_0/net.pth"
    finish(steps[-1])
    plan = replace(plan, arms={"both": Arm("", start="both")})
    steps = list_steps(plan, list_runs(plan, source / "out", splits=["0"]), source, source / "out", reduced=False)
    assert scripts(steps) == ["prepare_dataset.py"]  # a start that is there needs nothing more


def test_what_is_there_is_not_made_again(source):
    for step in steps_of(source):
        finish(step)
    assert steps_of(source) == []


def test_data_set_of_another_split_is_prepared_again(source):
    plan = replace(PLAN, arms={"base": PLAN.arms["base"]})
    for step in steps_of(source, plan):
        finish(step)
    text = (source / "split.csv").read_text()
    (source / "split.csv").write_text(text.replace("2.png,b", "2.png,f").replace("4.png,e", "4.png,b"))
    (source / "split.csv").write_text((source / "split.csv").read_text() + "\n5.png,e,train")
    assert scripts(steps_of(source, plan)) == ["prepare_dataset.py"] * 3


def test_start_of_a_fold_that_was_swapped_is_refused_by_name(source):
    for step in steps_of(source):
        finish(step)
    with pytest.raises(ConfigError, match=r"split_0/net\.pth: made from split \w+; expected split \w+; delete it"):
        steps_of(source, replace(PLAN, folds=PLAN.folds[::-1]))


def test_start_of_other_rows_of_the_split_file_is_refused(source):
    for step in steps_of(source):
        finish(step)
    (source / "split.csv").write_text((source / "split.csv").read_text().replace("3.png,c,val", "3.png,c,train"))
    with pytest.raises(ConfigError, match=r"split_final/net\.pth: made from split"):
        list_steps(PLAN, list_runs(PLAN, source, splits=["final"], arms=["ct"]), source, source, reduced=False)


def test_folder_of_the_data_may_move(source):
    for step in steps_of(source):
        finish(step)
    runs, output = list_runs(PLAN, source / "out"), source / "out"
    assert not list_steps(PLAN, runs, Path(), output, reduced=False)  # the same by another name
    other = source / "other"
    other.mkdir()
    (source / "split.csv").rename(other / "split.csv")
    due = list_steps(PLAN, runs, other, output, reduced=False)
    assert scripts(due) == ["prepare_dataset.py"] * 3  # what is made in seconds is made again


def test_data_set_that_another_ablation_has_taken_is_prepared_again(source):
    for step in steps_of(source):
        finish(step)
    assert not steps_of(source)
    other = replace(PLAN, folds=PLAN.folds[::-1], starts={}, arms={"base": PLAN.arms["base"]})
    for step in list_steps(other, list_runs(other, source / "theirs"), source, source / "theirs", reduced=False):
        finish(step)
    assert [step.commands[0][-2] for step in steps_of(source)] == ["tiny_fold0", "tiny_fold1"]


def test_start_made_by_other_commands_is_refused(source):
    for step in steps_of(source):
        finish(step)
    other = [[*BACKBONE[0], "SOLVER.MAX_ITER", "9"]]
    with pytest.raises(ConfigError, match=r"net\.pth: made from .*; expected .* SOLVER\.MAX_ITER; delete"):
        steps_of(source, replace(PLAN, starts={"ct": Made("starts/split_{split}/net.pth", other)}))


def test_start_without_a_mark_is_taken_with_a_word(source, caplog):
    for step in steps_of(source):
        finish(step)
        if isinstance(step, Making):
            step.mark_file.unlink()
    swapped = steps_of(source, replace(PLAN, folds=PLAN.folds[::-1]))
    assert scripts(swapped) == ["prepare_dataset.py"] * 2
    assert "starts/split_0/net.pth: taken as it is" in caplog.text


def test_file_that_nothing_makes_has_to_be_there(source):
    plan = replace(PLAN, starts={"ct": Made("given.pth")}, datasets={"more_train": Made("given.json")})
    with pytest.raises(DatasetError, match=r"given\.json"):
        list_steps(plan, list_runs(plan, source / "out"), source, source / "out", reduced=False)
