"""The table of an ablation, from results that are known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lung_d2.ablation.folds import FINAL
from lung_d2.ablation.plan import Arm, Plan
from lung_d2.ablation.runs import Run, list_runs
from lung_d2.ablation.table import FIGURES_NAME, TABLE_NAME, write_table
from lung_d2.categories import CATEGORIES, Category, category_by_coco_id
from lung_d2.data import register_lung_datasets
from lung_d2.errors import DatasetError
from lung_d2.evaluation.evaluate import EvaluationSettings
from tiny import write_tiny_dataset

FAST = EvaluationSettings(draws=5)
PLAN = Plan(
    configs="",
    base="base.yaml",
    dataset="tiny",
    prepare=["slices"],
    folds=[["a"], ["b"]],
    arms={"blind": Arm("finds nothing"), "seer": Arm("finds all", against="blind", final=True)},
    seeds=[1, 2],
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("tiny_fold0", "tiny_fold1", "tiny"):
        write_tiny_dataset(tmp_path / "data", name=name)
    register_lung_datasets(tmp_path / "data")
    return tmp_path


def write_results(root: Path, run: Run, found: Sequence[Category] = CATEGORIES) -> None:
    """Write what an arm finds: each lesion of these categories as it is, or nothing."""
    name = run.dataset(PLAN.dataset)
    truth = json.loads((root / "data" / "lung_ct" / name / "annotations" / "val.json").read_text())
    keys = ("image_id", "category_id", "bbox", "segmentation")
    lesions = [{key: lesion[key] for key in keys} | {"score": 0.9} for lesion in truth["annotations"]]
    lesions = [lesion for lesion in lesions if category_by_coco_id(lesion["category_id"]) in found]
    path = run.results(PLAN.dataset)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(lesions if run.name == "seer" else []))
    (run.folder / "ended.json").write_text(json.dumps({"of": {"iterations": 1}} if run.arm.of else {"iterations": 1}))


def runs_of(root: Path) -> list[Run]:
    return list(list_runs(PLAN, root / "out"))


def read(root: Path) -> dict[str, list[dict]]:
    return json.loads((root / "out" / FIGURES_NAME).read_text())["sections"]


def test_arms_are_measured_on_all_folds_and_compared_on_them(root):
    for run in runs_of(root):
        write_results(root, run)
    write_table(PLAN, runs_of(root), root / "out", "how", FAST)
    blind, seer = read(root)["Folds over the training patients"]
    assert (blind["segm/AP50"]["value"], seer["segm/AP50"]["value"]) == (0, 100)
    assert seer["splits"] == ["0", "1"]
    assert seer["against"]["arm"] == "blind"
    assert [seer["against"][key]["difference"] for key in ("segm/AP50", "segm/AP10")] == [100, 100]
    assert (blind["froc/1"]["value"], seer["froc/1"]["value"]) == (0, 1)
    text = (root / "out" / TABLE_NAME).read_text()
    assert text.startswith("how\n")
    assert "(few)" in text  # two patients


def test_val_has_a_table_of_its_own_for_each_seed(root):
    for run in runs_of(root):
        write_results(root, run)
    write_table(PLAN, runs_of(root), root / "out", "how", FAST)
    for seed in (1, 2):
        (row,) = read(root)[f"Val, seed {seed}"]
        assert row["splits"] == ["final"]
    assert "100.0 (100.0 to 100.0)" in (root / "out" / TABLE_NAME).read_text()


@pytest.mark.parametrize(
    ("blind_seeds", "said"),
    [
        ([1, 2], "blind: +75.0 (+50.0 to +100.0)"),
        ([1], "blind (1 of 2 seeds): +100.0 (+100.0 to +100.0)"),
        ([2], "blind (1 of 2 seeds): +50.0 (+50.0 to +50.0)"),
        ([], "75.0 (50.0 to 100.0)"),
    ],
)
def test_seeds_of_two_arms_are_compared_one_by_one(root, blind_seeds, said):
    """By hand: with seed 1 all lesions are found, with seed 2 those of one of the two categories."""
    plan = replace(PLAN, arms=PLAN.arms | {"blind": Arm("finds nothing", final=True)})
    runs = [run for run in list_runs(plan, root / "out") if run.split == FINAL]
    for run in runs:
        if run.name == "seer" or run.seed in blind_seeds:
            write_results(root, run, CATEGORIES[: 3 - run.seed])
    write_table(plan, runs, root / "out", "how", FAST)
    seer = (root / "out" / TABLE_NAME).read_text().splitlines()[-1]
    assert seer.startswith("| seer")
    assert said in seer
    assert ("blind" in seer) == ("blind" in said)


def test_arm_of_another_says_whose_weights_it_has(root):
    plan = replace(PLAN, arms=PLAN.arms | {"again": Arm("less overlap", of="seer", against="seer")})
    for run in list_runs(plan, root / "out", splits=["0"], arms=["again"]):
        write_results(root, run)
    write_table(plan, list_runs(plan, root / "out"), root / "out", "how", FAST)
    assert "less overlap (weights of seer)" in (root / "out" / TABLE_NAME).read_text()


def test_arm_is_compared_on_no_fold_that_the_other_lacks(root):
    for run in runs_of(root):
        if (run.name, run.split) != ("blind", "1"):
            write_results(root, run)
    write_table(PLAN, runs_of(root), root / "out", "how", FAST)
    blind, seer = read(root)["Folds over the training patients"]
    assert blind["splits"] == ["0"]
    assert "against" not in seer


def test_runs_that_do_not_say_their_split_are_counted(root, caplog):
    for run in runs_of(root)[:3]:
        write_results(root, run)
    (runs_of(root)[0].folder / "ended.json").write_text(json.dumps({"split": "0a"}))
    write_table(PLAN, runs_of(root), root / "out", "how", FAST)
    assert "2 runs of an earlier version did not note their split" in caplog.text


def test_results_of_a_run_that_has_not_ended_do_not_count(root):
    run = runs_of(root)[0]
    write_results(root, run)
    (run.folder / "ended.json").unlink()
    with pytest.raises(DatasetError, match="no run that has ended"):
        write_table(PLAN, runs_of(root), root / "out", "how", FAST)
    assert not (root / "out" / TABLE_NAME).exists()
