"""The ablation as it is called, on a tiny model, and its plan."""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lung_d2 import load_config
from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.errors import ConfigError
from studies.ablation import (
    FINAL,
    PLAN,
    Plan,
    carry_out_all,
    choose_runs,
    command_of,
    list_runs,
    over_seeds,
    read_plan,
    say,
    write_split,
)
from tiny import CONFIGS, TINY_OPTS, tiny_slices

TOOL = Path(__file__).resolve().parents[3] / "tools" / "studies" / "ablation.py"
TINY_PLAN = {
    "config": "Base-LungCT-RCNN-FPN.yaml",
    "dataset": "tiny",
    "prepare": ["slices", "--images", "ct", "--masks", "mask=ground_glass_opacity", "--allow-duplicates"],
    "folds": [["a"]],
    "settings": {key: str(value) for key, value in zip(TINY_OPTS[::2], TINY_OPTS[1::2], strict=True)},
    "reduced": {"SOLVER.MAX_ITER": 2, "INPUT.CT.GREY": "minmax_clahe"},
    "reduced_final": {"SOLVER.MAX_ITER": 3},
    "arms": {
        "plain": {"about": "Detectron2's mapper", "script": "studies/plain_train_net.py"},
        "strict": {"about": "less overlap", "weights_of": "plain", "keys": {"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "plan.yaml").write_text(yaml.safe_dump(TINY_PLAN, sort_keys=False))
    rows = ["file,patient,split"]
    for kind in ("ct", "mask"):
        (folder / kind).mkdir()
    for number, patient in enumerate("abcd"):
        for item in tiny_slices(number, slices=2, size=64, seed=0):
            name = f"{patient}{item.slice_index}.png"
            grey = np.clip((item.plane.astype(np.float64) + 1000) / 5, 0, 255).astype(np.uint8)
            opacity = next((mask for category, mask in item.instances if category == GROUND_GLASS_OPACITY), grey < 0)
            cv2.imwrite(str(folder / "ct" / name), grey)
            cv2.imwrite(str(folder / "mask" / name), np.uint8(255) * opacity)
            rows.append(f"{name},{patient},{'val' if patient == 'd' else 'train'}")
    (folder / "split.csv").write_text("\n".join(rows))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DETECTRON2_DATASETS": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOL), "--data", str(folder), "--output", str(folder / "out"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_runs_end_in_a_table_and_are_not_run_again(folder):
    done = run(folder, "--plan", str(folder / "plan.yaml"), "--reduced")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "out" / "ablation.csv").open()))
    assert [(row["measured on"], row["arm"], row["against"]) for row in rows] == [
        ("folds", "plain", ""),
        ("folds", "strict", "plain"),
    ]
    assert "| mask AP50 " in (folder / "out" / "ablation.md").read_text()
    plan = read_plan(folder / "plan.yaml")
    runs = list_runs(plan, folder / "out", reduced=True)
    assert all(one.is_done and one.results.is_file() for one in runs)
    args = argparse.Namespace(workers=1)  # which no command could be built from
    assert carry_out_all(plan, runs, args) == []


def test_failed_run_is_returned_and_its_weights_are_not_tested(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.ablation.TOOLS", tmp_path)  # without any script
    plan = read_plan(write_plan(tmp_path))
    args = argparse.Namespace(workers=1, reduced=True, opts=[])
    failed = carry_out_all(plan, list_runs(plan, tmp_path / "out", reduced=True), args)
    assert [one.name for one in failed] == ["plain"]
    assert "plain_train_net.py" in (failed[0].folder / "output.txt").read_text()
    assert not (tmp_path / "out" / "strict").exists()


def test_missing_plan_is_one_line_and_status_2(folder):
    done = run(folder, "--plan", str(folder / "none.yaml"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder / 'none.yaml'}")


def write_plan(folder: Path, **changes: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(TINY_PLAN | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"armz": {}}, "armz"),
        ({"arms": {"a": {"about": "x", "part": []}}}, "part"),
        ({"arms": {"a": {"about": "x", "extends": "b"}}}, "'b'"),
        ({"arms": {"a": {"about": "x", "start": "nowhere"}}}, "nowhere"),
        ({"arms": {"a": {}}}, "about"),
    ],
)
def test_wrong_plan_is_one_line_that_says_what(tmp_path, changes, finding):
    with pytest.raises(ConfigError, match=finding) as caught:
        read_plan(write_plan(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def shipped() -> Plan:
    return read_plan(PLAN)


def test_shipped_plan_holds_out_every_training_patient_once(data_root):
    rows = csv.DictReader((data_root / "covid_slices" / "split.csv").open())
    train = {row["volume"] for row in rows if row["split"] == "train"}
    held_out = [patient for fold in shipped().folds for patient in fold]
    assert sorted(held_out) == sorted(train)


@pytest.mark.parametrize("reduced", [False, True])
def test_every_run_of_the_shipped_plan_has_a_config(tmp_path, reduced):
    plan = shipped()
    runs = list_runs(plan, tmp_path, reduced=reduced)
    assert len(runs) == (35 + 8 * 3 if reduced else 35 * 3 + 8 * 3)
    for one in runs if reduced else runs[:35]:
        script, _, config, mode, *pairs = command_of(plan, one, reduced=reduced)
        cfg = load_config(config, pairs)
        assert (PLAN.parents[1] / script).is_file()
        assert (mode == "--eval-only") == bool(one.arm.weights_of)
        assert one.arm.keys.get("SOLVER.BASE_LR", 0.01) == cfg.SOLVER.BASE_LR
        assert str(one.folder) == cfg.OUTPUT_DIR
        expected = (600 if one.split == FINAL else 300) if reduced else 1400
        assert expected == cfg.SOLVER.MAX_ITER


def test_recipe_is_the_config_of_its_name(tmp_path):
    plan = shipped()
    recipe = next(one for one in list_runs(plan, tmp_path, reduced=False) if (one.name, one.split) == ("recipe", FINAL))
    _, _, config, _, *pairs = command_of(plan, recipe, reduced=False)
    found = load_config(config, pairs)
    named = load_config(CONFIGS / "quick_schedules" / "mask_rcnn_R_50_FPN_covid_slices_recipe.yaml")
    found.OUTPUT_DIR, found.MODEL.WEIGHTS = named.OUTPUT_DIR, named.MODEL.WEIGHTS
    named.TEST.EXPECTED_RESULTS = []
    assert found.dump() == named.dump()


def test_tests_of_other_weights_take_them_from_the_same_split_and_seed(tmp_path):
    plan = shipped()
    one = next(one for one in list_runs(plan, tmp_path, reduced=False) if (one.name, one.seed) == ("recipe_tta", 2))
    words = command_of(plan, one, reduced=False)
    assert words[words.index("MODEL.WEIGHTS") + 1] == str(tmp_path / "recipe" / "final_seed2" / "model_final.pth")
    assert one.results.parent.parent.name == "inference_TTA"


def test_start_of_a_reduced_run_has_seen_the_first_fold_alone(tmp_path):
    plan = shipped()
    for reduced, split in ((True, "0"), (False, FINAL)):
        runs = list_runs(plan, tmp_path, reduced=reduced)
        one = next(one for one in runs if (one.name, one.split) == ("ct", FINAL))
        words = command_of(plan, one, reduced=reduced)
        assert words[words.index("MODEL.WEIGHTS") + 1] == f"datasets/ct_backbone/split_{split}/ct_resnet50.pth"


def test_choice_of_runs_adds_those_whose_weights_are_tested(tmp_path):
    plan = shipped()
    args = argparse.Namespace(arms=["nms_03"], splits=["1"], seeds=[])
    chosen = choose_runs(plan, list_runs(plan, tmp_path, reduced=False), args)
    assert [(one.name, one.split) for one in chosen] == [("ct", "1"), ("nms_03", "1")]
    args.splits = [FINAL]  # on which it is not tested
    with pytest.raises(ConfigError, match="nms_03"):
        choose_runs(plan, list_runs(plan, tmp_path, reduced=False), args)


def test_fold_holds_out_its_patients_and_keeps_val_away(tmp_path):
    (tmp_path / "split.csv").write_text(
        "file,patient,split\n1.png,a,train\n2.png,b,train\n3.png,c,train\n4.png,d,val\n"
    )
    plan = Plan("", "tiny", [], [["a"], ["d"]], {}, same={"c": "b"})
    expected = {"0": ["1.png,a,val", "2.png,b,train", "3.png,b,train", "4.png,d,test"]}
    expected[FINAL] = ["1.png,a,train", "2.png,b,train", "3.png,b,train", "4.png,d,val"]
    for split, rows in expected.items():
        write_split(plan, split, tmp_path, tmp_path / "fold.csv")
        assert (tmp_path / "fold.csv").read_text().splitlines() == ["file,patient,split", *rows]
    with pytest.raises(ConfigError, match="d in fold 1"):
        write_split(plan, "1", tmp_path, tmp_path / "fold.csv")


def figure(value: float, **more: float) -> dict[str, float | None]:
    return {"value": value, "difference": None, "low": None, "high": None, "p": None} | more


def test_cells_of_the_table():
    row = {"arm": "a", "mask AP50": figure(12.34, low=1, high=20), "found at 1 FP": figure(0.5)}
    row["mask AP50 against"] = figure(12.34, difference=2.06, low=-1, high=3, p=0.25)
    assert [say(row, key) for key in row] == ["a", "12.3 [1.0, 20.0]", "0.50", "+2.1 [-1.0, 3.0], p 0.250"]
    assert say(row, "box AP50") == ""


def test_seeds_are_summed_up_by_mean_least_and_greatest():
    tables = [[{"arm": "a", "runs": 1, "mask AP50": figure(value)}] for value in (10.0, 14.0)] + [[{"arm": "b"}]]
    (merged,) = over_seeds(tables)
    assert merged["mask AP50"] == {"value": 12.0, "low": 10.0, "high": 14.0}
    assert merged["runs"] == 2
