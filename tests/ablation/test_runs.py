"""The runs of an ablation: which there are, their configs, and carrying one out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lung_d2.ablation.folds import FINAL
from lung_d2.ablation.plan import Arm, Made, Plan, read_plan
from lung_d2.ablation.runs import Run, build_config, carry_out, list_runs
from lung_d2.config.checks import differences
from lung_d2.config.keys import load_config
from lung_d2.data import register_lung_datasets
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import write_dataset
from lung_d2.errors import ConfigError
from tiny import CONFIGS, TINY_OPTS, tiny_slices

SHIPPED = CONFIGS.parent / "tools" / "ablation.yaml"


def build_plan(**changes: object) -> Plan:
    arms = {
        "plain": Arm("Detectron2", ["ablation/plain_detectron2.yaml"], plain=True, final=True),
        "base": Arm("ours", against="plain"),
        "sigmoid": Arm("one each", ["variants/sigmoid.yaml"], start="ct", against="base"),
    }
    known = {
        "configs": str(CONFIGS),
        "base": "Base-LungCT-RCNN-FPN.yaml",
        "dataset": "tiny",
        "prepare": ["slices"],
        "folds": [["a"], ["b"]],
        "arms": arms,
        "seeds": [1, 2],
        "settings": dict(zip(TINY_OPTS[::2], TINY_OPTS[1::2], strict=True)) | {"SOLVER.MAX_ITER": 4},
        "reduced": {"SOLVER.MAX_ITER": 2, "SOLVER.WARMUP_ITERS": 1},
        "reduced_final": {"SOLVER.MAX_ITER": 3},
        "starts": {"ct": Made("ct_{split}.pth")},
    }
    return Plan(**(known | changes))


def names(**options: object) -> list[str]:
    return [str(run) for run in list_runs(build_plan(), Path("out"), **options)]


def test_every_arm_runs_on_every_fold_and_final_arms_once_more_for_every_seed():
    folds = [f"{arm}, {fold}, seed 1" for fold in (0, 1) for arm in ("plain", "base", "sigmoid")]
    assert names() == [*folds, "plain, final, seed 1", "plain, final, seed 2"]


def test_reduced_ablation_takes_the_first_fold():
    assert names(reduced=True, arms=["base"]) == ["base, 0, seed 1"]


def test_splits_arms_and_seeds_can_be_chosen():
    assert names(arms=["plain"], splits=[FINAL]) == ["plain, final, seed 1", "plain, final, seed 2"]
    assert names(seeds=[2]) == ["plain, final, seed 2"]
    assert names(arms=["plain"], splits=["1"], seeds=[1]) == ["plain, 1, seed 1"]


def config_of(arm: str, split: str, *, reduced: bool = False):
    plan = build_plan()
    run = list_runs(plan, Path("out"), arms=[arm], splits=[split])[0]
    return build_config(plan, run, reduced=reduced)


def test_config_is_the_base_with_the_arm_over_it():
    cfg = config_of("sigmoid", "1")
    assert cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE
    assert cfg.MODEL.RESNETS.NORM == "GN"  # of the plan's settings; the leaf's own base is not read
    assert cfg.DATASETS.TRAIN == ("tiny_fold1_train",)
    assert cfg.DATASETS.TEST == ("tiny_fold1_val",)
    assert cfg.MODEL.WEIGHTS == "ct_1.pth"
    assert cfg.SEED == 1


def test_val_is_measured_with_the_whole_training_split():
    assert config_of("plain", FINAL).DATASETS.TRAIN == ("tiny_train",)


def test_reduced_settings_lie_over_the_others_and_share_a_start():
    cfg = config_of("sigmoid", "1", reduced=True)
    assert cfg.SOLVER.MAX_ITER == 2
    assert cfg.MODEL.WEIGHTS == "ct_0.pth"


def test_reduced_ablation_trains_longer_for_val():
    assert config_of("plain", "0", reduced=True).SOLVER.MAX_ITER == 2
    longer = config_of("plain", FINAL, reduced=True).SOLVER
    assert (longer.MAX_ITER, longer.WARMUP_ITERS) == (3, 1)  # the other reduced keys stay
    assert config_of("plain", FINAL).SOLVER.MAX_ITER == 4


@pytest.mark.parametrize(
    "options", [{"arms": ["third"]}, {"splits": ["7"]}, {"splits": ["1"], "reduced": True}, {"seeds": [3]}]
)
def test_arm_split_or_seed_that_is_not_there_is_refused(options):
    with pytest.raises(ConfigError, match="not in the plan"):
        names(**options)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"arms": ["base"], "splits": [FINAL]}, "arm base"),
        ({"arms": ["plain", "base"], "splits": [FINAL]}, "arm base"),
        ({"splits": ["0"], "seeds": [2]}, "split 0"),
        ({"splits": ["0", FINAL], "seeds": [2]}, "split 0"),
        ({"arms": ["base"], "seeds": [1, 2]}, "seed 2"),
    ],
)
def test_choice_of_what_has_no_run_says_what_there_is(options, left_out):
    with pytest.raises(
        ConfigError, match=f"{left_out}: in no run chosen; expected folds with seed 1, or final for plain"
    ):
        names(**options)


def test_choice_where_no_arm_is_final_says_so():
    plan = build_plan(arms={"base": Arm("ours")})
    with pytest.raises(ConfigError, match="or final for no arm"):
        list_runs(plan, Path("out"), splits=[FINAL])


def plan_with(parts: list[str], of: str = "plain") -> Plan:
    """Return a plan in which an arm measures the weights of another, with these parts laid over it."""
    plan = build_plan(reduced={"SOLVER.MAX_ITER": 2, "INPUT.CT.GREY": "minmax_clahe"})
    arms = plan.arms | {"averaged": Arm("EMA", ["ablation/ema.yaml"], final=True)}
    measured = replace(arms[of], of=of, against=of, parts=[*arms[of].parts, *parts])
    return replace(plan, arms=arms | {"measured": measured})


def test_choice_of_an_arm_of_another_trains_that_too():
    runs = list_runs(plan_with([]), Path("out"), arms=["measured"], splits=["1"])
    assert [str(run) for run in runs] == ["plain, 1, seed 1", "measured, 1, seed 1"]


def test_arm_of_another_takes_its_weights_and_differs_in_the_test_alone():
    plan = plan_with(["ablation/nms_03.yaml", "ablation/tta.yaml"])
    plain, measured = (
        build_config(plan, run) for run in list_runs(plan, Path("out"), arms=["measured"], splits=[FINAL], seeds=[2])
    )
    assert measured.MODEL.WEIGHTS == "out/plain/final_seed2/model_final.pth"
    changed = {"OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "TEST.AUG.ENABLED"}
    assert {key for key, _, _ in differences(plain, measured)} == changed


@pytest.mark.parametrize(
    ("parts", "opts", "finding"),
    [
        (["ablation/rate_2.yaml"], [], "SOLVER.*which plain was trained with .*test alone"),
        ([], [], "no key that differs from plain"),
        (["ablation/nms_03.yaml"], ["MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.4"], "no key that differs from plain"),
    ],
)
def test_arm_of_another_that_differs_in_more_or_nothing_is_refused(parts, opts, finding):
    plan = plan_with(parts)
    run = list_runs(plan, Path("out"), arms=["measured"], splits=["0"])[1]
    with pytest.raises(ConfigError, match=f"arm measured: {finding}"):
        build_config(plan, run, opts=opts)


@pytest.mark.parametrize(("parts", "opts"), [(["ablation/tta.yaml"], []), ([], ["TEST.AUG.ENABLED", "True"])])
def test_augmentation_of_the_test_is_for_arms_of_another(parts, opts):
    plan = build_plan(arms={"base": Arm("ours", parts)})
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.ENABLED: True in arm base.*make it an arm of another"):
        build_config(plan, list_runs(plan, Path("out"))[0], opts=opts)


def test_folder_of_the_ablation_may_move(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_with(["ablation/nms_03.yaml"])
    for output in (Path("out"), tmp_path / "out"):
        _, measured = list_runs(plan, output, arms=["measured"], splits=["0"])
        cfg = build_config(plan, measured)
        measured.folder.mkdir(parents=True, exist_ok=True)
        (measured.folder / "config.yaml").write_text(cfg.dump())
    other = plan_with(["ablation/tta.yaml"])
    with pytest.raises(ConfigError, match=r"another MODEL\.ROI_HEADS\.NMS_THRESH_TEST"):
        build_config(other, list_runs(other, output, arms=["measured"], splits=["0"])[1])


def test_key_that_is_not_there_names_the_part(tmp_path):
    (tmp_path / "wrong.yaml").write_text("MODEL: {ATENTION: True}")
    (tmp_path / "base.yaml").write_text(f"_BASE_: {CONFIGS / 'Base-LungCT-RCNN-FPN.yaml'}")
    plan = build_plan(arms={"wrong": Arm("", ["wrong.yaml"])}, configs=str(tmp_path), base="base.yaml")
    with pytest.raises(ConfigError, match=r"wrong\.yaml"):
        build_config(plan, list_runs(plan, tmp_path)[0])


@pytest.mark.parametrize("reduced", [False, True])
def test_every_run_of_the_shipped_plan_has_a_config(tmp_path, reduced):
    plan = read_plan(SHIPPED)
    for run in list_runs(plan, tmp_path, reduced=reduced):
        cfg = build_config(plan, run, reduced=reduced)
        expected = {"0": 300, FINAL: 600}[run.split] if reduced else 1400
        assert expected == cfg.SOLVER.MAX_ITER
        assert max(cfg.SOLVER.STEPS) < expected


def test_recipe_is_the_config_of_its_name(tmp_path):
    plan = read_plan(SHIPPED)
    cfg = build_config(plan, list_runs(plan, tmp_path, arms=["recipe"], splits=[FINAL])[0])
    leaf = load_config(CONFIGS / "quick_schedules" / "mask_rcnn_R_50_FPN_covid_slices_recipe.yaml")
    assert {key for key, _, _ in differences(cfg, leaf)} == {"OUTPUT_DIR", "MODEL.WEIGHTS"}


def test_every_training_of_the_shipped_plans_starts_has_a_config():
    commands = [command for made in read_plan(SHIPPED).starts.values() for command in made.make]
    trainings = [command for command in commands if command[0] == "train_net.py"]
    assert len(trainings) == 2
    for command in trainings:
        path = command.index("--config-file") + 1
        cfg = load_config(CONFIGS.parent / command[path], command[path + 1 :])
        assert not cfg.DATASETS.TEST
        assert max(cfg.SOLVER.STEPS) < cfg.SOLVER.MAX_ITER


def test_run_begun_with_another_config_is_not_gone_on_with(tmp_path):
    plan = build_plan()
    run = list_runs(plan, tmp_path, arms=["base"])[0]
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(build_config(plan, run, opts=["DATALOADER.NUM_WORKERS", "1"]).dump())
    build_config(plan, run)  # workers change nothing
    with pytest.raises(ConfigError, match="another SOLVER"):
        build_config(plan, run, reduced=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "split.csv").write_text("patient,split\na,train\nb,train\nc,val\n")
    return tmp_path


def first_run(plan: Plan, source: Path, arm: str = "base") -> Run:
    return list_runs(plan, source / "out", source, arms=[arm])[0]


@pytest.mark.parametrize("record", ["begun.json", "ended.json"])
def test_run_of_a_fold_that_was_swapped_is_refused_by_name(source, record):
    run = first_run(build_plan(), source)
    run.folder.mkdir(parents=True)
    (run.folder / record).write_text(json.dumps(dict(run.made_from)))
    build_config(build_plan(), run)
    swapped = build_plan(folds=[["b"], ["a"]])
    with pytest.raises(ConfigError, match=r"base/0_seed1: a run with another split, \w+; expected \w+.*--output"):
        build_config(swapped, first_run(swapped, source))


def test_run_of_a_start_that_is_made_otherwise_is_refused(source):
    plans = [
        build_plan(starts={"ct": Made("ct_{split}.pth", [["train_net.py", "SOLVER.MAX_ITER", length]])})
        for length in ("6", "7")
    ]
    run = first_run(plans[0], source, "sigmoid")
    run.folder.mkdir(parents=True)
    (run.folder / "ended.json").write_text(json.dumps(dict(run.made_from)))
    build_config(plans[0], run)
    with pytest.raises(ConfigError, match="a run with another start"):
        build_config(plans[1], first_run(plans[1], source, "sigmoid"))


def test_run_of_an_earlier_version_is_kept(source):
    run = first_run(build_plan(), source)
    run.folder.mkdir(parents=True)
    (run.folder / "ended.json").write_text('{"iterations": 4}')
    build_config(build_plan(), run)
    assert run.has_ended
    assert not run.says_split


def grey_slices(patient: int) -> Iterator[AnnotatedSlice]:
    """Yield slices as 8-bit pictures, which Detectron2's own mapper reads too."""
    for item in tiny_slices(patient, slices=3, size=64, seed=0):
        yield replace(item, plane=np.clip((item.plane.astype(np.float64) + 1000) / 5, 0, 255).astype(np.uint8))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    patients = [f"patient{number}" for number in range(3)]
    cases = [Case(name, name, name, partial(grey_slices, number), False) for number, name in enumerate(patients)]
    split_of = dict(zip(patients, ["train", "train", "val"], strict=True))
    write_dataset(tmp_path / "data", "tiny_fold0", cases, split_of, allow_duplicates=True)
    register_lung_datasets(tmp_path / "data")
    return tmp_path


def carried_out(plan: Plan, output: Path, *arms: str, source: Path | None = None) -> list[Run]:
    runs = list_runs(plan, output, source, arms=arms, splits=["0"])
    for run in runs:
        if not run.has_ended:
            carry_out(run, build_config(plan, run, reduced=True), threads=1)
    return runs


@pytest.mark.parametrize("arm", ["plain", "base"])
def test_run_leaves_its_detections(prepared, arm):
    (run,) = carried_out(build_plan(reduced=plan_with([]).reduced), prepared / "out", arm)
    assert run.results("tiny").is_file()
    assert run.has_ended


def test_run_that_has_ended_says_what_it_was_made_from(prepared, source):
    plan = plan_with(["ablation/nms_03.yaml"])
    trained, measured = carried_out(plan, prepared / "out", "measured", source=source)
    own, of = (json.loads((run.folder / "ended.json").read_text()) for run in (trained, measured))
    assert own["split"] == dict(trained.made_from)["split"]
    assert of == {"of": own}
    assert measured.says_split


def test_run_begun_by_an_earlier_version_does_not_say_a_split_at_its_end(prepared, source):
    plan = build_plan(reduced=plan_with([]).reduced)
    run = first_run(plan, source)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(build_config(plan, run, reduced=True).dump())
    carry_out(run, build_config(plan, run, reduced=True), threads=1)
    assert run.has_ended
    assert not run.says_split


@pytest.mark.parametrize("trained", ["plain", "averaged"])
def test_run_of_another_measures_the_same_weights(prepared, trained):
    """By a threshold below every score: the same detections; with less overlap or augmentation others."""
    same, strict = prepared / "same.yaml", prepared / "strict.yaml"
    same.write_text("MODEL: {ROI_HEADS: {SCORE_THRESH_TEST: 0.0001}}")
    strict.write_text("MODEL: {ROI_HEADS: {NMS_THRESH_TEST: 0.01}}")
    found = {}
    for part in (str(same), str(strict), "ablation/tta.yaml"):
        runs = carried_out(plan_with([part], of=trained), prepared / "out", "measured")
        own, found[part] = (json.loads(run.results("tiny").read_text()) for run in runs)
        assert not list(runs[1].folder.glob("*.pth"))  # nothing is trained
        shutil.rmtree(runs[1].folder)
    assert len(own) > 0
    assert found[str(same)] == own
    assert found[str(strict)] not in ([], own)
    assert found["ablation/tta.yaml"] not in ([], own)


def test_score_of_class_and_objectness_needs_no_training(prepared):
    plan = plan_with(["variants/objectness.yaml"], of="averaged")
    own, measured = (json.loads(run.results("tiny").read_text()) for run in carried_out(plan, prepared, "measured"))
    assert max(one["score"] for one in own) != max(one["score"] for one in measured)


def test_what_was_measured_of_other_weights_is_measured_again(tmp_path):
    trained, measured = list_runs(plan_with([]), tmp_path, arms=["measured"], splits=["0"])
    ends = {run.name: run.folder / "ended.json" for run in (trained, measured)}
    for run in (trained, measured):
        run.folder.mkdir(parents=True)
    first, second = {"iterations": 2, "ended": "first"}, {"iterations": 2, "ended": "second"}
    assert not measured.is_trained
    ends["plain"].write_text(json.dumps(first))
    assert (trained.has_ended, measured.is_trained, measured.has_ended) == (True, True, False)
    ends["measured"].write_text(json.dumps({"of": first}))
    assert measured.has_ended
    ends["plain"].write_text(json.dumps(second))
    assert not measured.has_ended
    ends["plain"].unlink()
    assert not measured.has_ended
