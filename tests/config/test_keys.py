from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY

from lung_d2 import load_config
from lung_d2.config.checks import value_of
from lung_d2.config.keys import RETIRED_KEYS, ignores_undecided
from lung_d2.config.loading import choose_loader_workers, parse_config
from lung_d2.engine.weights.names import find_weights
from lung_d2.errors import ConfigError
from lung_d2.modeling import LungRPN
from tiny import CONFIGS

BASE = CONFIGS / "Base-LungCT-RCNN-FPN.yaml"
LEAVES = sorted({*CONFIGS.rglob("*.yaml")} - {BASE})


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("place", ["file", "base"])
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system"])
def test_python_tag_is_refused_and_nothing_runs(tmp_path, place, tag):
    sentinel = tmp_path / "ran"
    path = write(tmp_path / "evil.yaml", f"MODEL:\n  WEIGHTS: {tag} ['touch {sentinel}']\n")
    if place == "base":
        path = write(tmp_path / "leaf.yaml", "_BASE_: evil.yaml\n")
    with pytest.raises(ConfigError, match=r"a YAML tag that is not data.*remove the tag"):
        load_config(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("MODEL: {NO_SUCH_KEY: 1}\n", "MODEL.NO_SUCH_KEY"),
        ("SOLVER: {MAX_ITER: many}\n", "Type mismatch"),
        ("MODEL: [\n", "not a config"),
        ("- a list\n", "not a config"),
        ("", "not a config"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml"),
        ("_BASE_: config.yaml\n", "not a config"),  # its own base
        ("MODEL: 3\n", "not a config"),
    ],
)
def test_broken_file_is_one_line_that_names_it(tmp_path, text, finding):
    path = write(tmp_path / "config.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("opts", "finding"),
    [
        (["SOLVER.MAX_ITER"], "expected KEY VALUE pairs"),
        (["SOLVER.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["SOLVER.MAX_ITER", "many"], "Type mismatch"),
        (["SOLVER.MAX_ITER.DEEPER", "1"], "MAX_ITER"),
        (["MODEL.DEVICE.c", "1"], "MODEL.DEVICE.c"),
    ],
)
def test_bad_opts_are_one_line(opts, finding):
    with pytest.raises(ConfigError) as caught:
        load_config(BASE, opts)
    assert str(caught.value).startswith("command line")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


SOLVER = """
_BASE_: {base}
SOLVER: {{MAX_ITER: 600, STEPS: [400, 501], WARMUP_ITERS: 100, CHECKPOINT_PERIOD: 50,
  CONVERGENCE: {{WINDOW: 20, PATIENCE: 80}}}}
TEST: {{EVAL_PERIOD: 0}}
"""


@pytest.mark.parametrize(
    ("opts", "rate", "iterations", "steps", "warmup", "rest"),
    [
        ([], 0.02, 600, (400, 501), 100, [50, 20, 80]),
        (["SOLVER.IMS_PER_BATCH", 4], 0.005, 2400, (1600, 2004), 400, [200, 80, 320]),  # 0.02 is for 16 images
        (["SOLVER.IMS_PER_BATCH", 32], 0.04, 300, (200, 250), 50, [25, 10, 40]),
        (["SOLVER.IMS_PER_BATCH", 4, "SOLVER.REFERENCE_BATCH", 0], 0.02, 600, (400, 501), 100, [50, 20, 80]),
        (["SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 0.03], 0.03, 2400, (1600, 2004), 400, [200, 80, 320]),
        (["SOLVER.IMS_PER_BATCH", 4, "SOLVER.WARMUP_ITERS", 7], 0.005, 2400, (1600, 2004), 7, [200, 80, 320]),
        (["SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 20], 0.005, 20, (400, 501), 100, [50, 20, 80]),
    ],
    ids=["16 images", "4 images", "32 images", "off", "rate given", "warm-up given", "length given"],
)
def test_rate_and_schedule_go_with_the_batch(tmp_path, opts, rate, iterations, steps, warmup, rest):
    cfg = load_config(write(tmp_path / "leaf.yaml", SOLVER.format(base=BASE)), opts)
    solver, stop = cfg.SOLVER, cfg.SOLVER.CONVERGENCE
    assert rate == pytest.approx(solver.BASE_LR)
    assert (solver.MAX_ITER, tuple(solver.STEPS), solver.WARMUP_ITERS) == (iterations, steps, warmup)
    assert rest == [solver.CHECKPOINT_PERIOD, stop.WINDOW, stop.PATIENCE]
    assert (solver.REFERENCE_BATCH, cfg.TEST.EVAL_PERIOD) == (0, 0)


@pytest.mark.parametrize(
    ("opts", "logged"),
    [
        ((), "SOLVER.BASE_LR 0.005, SOLVER.MAX_ITER 2400, SOLVER.STEPS (1600, 2004)"),
        (("SOLVER.MAX_ITER", 20), "SOLVER.BASE_LR 0.005"),
        (("SOLVER.MAX_ITER", 20, "SOLVER.BASE_LR", 0.01), ""),
    ],
    ids=["all", "length given", "length and rate given"],
)
def test_log_names_only_what_was_scaled(tmp_path, caplog, opts, logged):
    caplog.set_level("INFO", "lung_d2.config.keys")
    load_config(write(tmp_path / "leaf.yaml", SOLVER.format(base=BASE)), ["SOLVER.IMS_PER_BATCH", 4, *opts])
    lines = [record.message for record in caplog.records if record.name == "lung_d2.config.keys"]
    assert lines == [f"scaled from 16 to 4 images a batch: {logged}"] * bool(logged)


def test_end_of_the_schedule_goes_with_the_rate():
    opts = ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.IMS_PER_BATCH", 4]
    assert load_config(BASE, [*opts, "SOLVER.BASE_LR_END", 0.001]).SOLVER.BASE_LR_END == 0.001
    with pytest.raises(ConfigError, match=r"BASE_LR_END: 0\.1; expected 0 to BASE_LR, 0\.005"):
        load_config(BASE, [*opts, "SOLVER.BASE_LR_END", 0.1])


def test_end_of_the_schedule_in_a_file_is_scaled(tmp_path):
    path = write(tmp_path / "leaf.yaml", f"_BASE_: {BASE}\nSOLVER: {{BASE_LR_END: 0.004}}\n")
    assert pytest.approx(0.001) == load_config(path, ["SOLVER.IMS_PER_BATCH", 4]).SOLVER.BASE_LR_END


def test_dumped_config_reloads_to_the_same(tmp_path):
    cfg = load_config(BASE, ["SOLVER.IMS_PER_BATCH", 4])
    again = load_config(write(tmp_path / "config.yaml", cfg.dump()))
    assert (again.SOLVER.BASE_LR, again.SOLVER.REFERENCE_BATCH) == (cfg.SOLVER.BASE_LR, 0)
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_dumped_config_runs_with_another_batch_at_the_same_rate(tmp_path):
    path = write(tmp_path / "config.yaml", load_config(BASE, ["SOLVER.IMS_PER_BATCH", 4]).dump())
    rate = load_config(path, ["SOLVER.IMS_PER_BATCH", 8]).SOLVER.BASE_LR
    assert rate == pytest.approx(0.005)


def test_dumped_config_of_an_older_run_keeps_its_region_network(tmp_path):
    dumped = load_config(BASE, ["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"]).dump()
    older = load_config(write(tmp_path / "config.yaml", dumped))
    assert older.MODEL.PROPOSAL_GENERATOR.NAME == "RPN"
    assert not ignores_undecided(older)


class DerivedRPN(LungRPN):
    """What a user derives from ours."""


def build_some_rpn(cfg, input_shape):
    """Stand for a registered function: what it builds cannot be told."""


@pytest.mark.parametrize(
    ("generator", "ignored"), [(DerivedRPN, True), (build_some_rpn, False)], ids=["derived from ours", "function"]
)
def test_what_is_derived_from_ours_ignores_undecided_regions_too(monkeypatch, generator, ignored):
    monkeypatch.setitem(PROPOSAL_GENERATOR_REGISTRY._obj_map, "Users", generator)
    assert ignores_undecided(load_config(BASE, ["MODEL.PROPOSAL_GENERATOR.NAME", "Users"])) == ignored


@pytest.mark.parametrize(("there", "device"), [(False, "cpu"), (True, "cuda")])
def test_device_is_one_that_is_there(monkeypatch, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    chosen = load_config(BASE, ["MODEL.DEVICE", "cuda"]).MODEL.DEVICE
    assert chosen == device


def test_cpu_is_kept_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config(BASE, ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"


@pytest.mark.parametrize("path", [BASE, *LEAVES], ids=lambda path: path.stem)
def test_config_describes_the_method(path):
    cfg = load_config(path)
    assert (cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.ROI_HEADS.NAME) == ("LungRPN", "LungROIHeads")
    assert ignores_undecided(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.MODEL.MASK_ON
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MASK_FORMAT) == ("BGR", "bitmask")
    assert not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert cfg.MODEL.PIXEL_STD[0] > 1  # a real standard deviation, not the 1 of the MSRA weights


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_leaf_freezes_only_what_is_loaded(path):
    """Frozen batch norm with random weights diverges at once."""
    model = load_config(path).MODEL
    if model.WEIGHTS:
        known = ("detectron2://", "lung_d2://", "datasets/ct_backbone/", "output/phantom_benchmark/")
        assert model.WEIGHTS.startswith(known)
        assert not model.WEIGHTS.startswith("lung_d2://") or find_weights(model.WEIGHTS)
        assert not model.RESNETS.STRIDE_IN_1X1
        assert model.RESNETS.NORM == "FrozenBN"
    else:
        assert (model.BACKBONE.FREEZE_AT, model.RESNETS.NORM) == (0, "GN")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "tools/README.md", "datasets/README.md"])
def test_keys_that_the_documents_name_are_there(name):
    text = (CONFIGS.parent / name).read_text(encoding="utf-8")
    cfg = load_config(BASE)
    keys = set(re.findall(r"\b(?:MODEL|INPUT|SOLVER|TEST|DATASETS|DATALOADER)(?:\.[A-Z][A-Z0-9_]*)+\b", text))
    for key in keys - set(RETIRED_KEYS):
        value_of(cfg, key)  # or KeyError, with the part that is not there


def test_steps_end_before_the_training():
    for path in LEAVES:
        solver = load_config(path).SOLVER
        if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
            assert max(solver.STEPS) < solver.MAX_ITER, path


def test_base_that_would_be_fetched_is_refused(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text('_BASE_: "https://127.0.0.1:9/base.yaml"\n')
    (tmp_path / "near.yaml").write_text('_BASE_: "far.yaml"\n')
    for name in ("far.yaml", "near.yaml"):
        with pytest.raises(ConfigError, match=r"far\.yaml: _BASE_ https.*local file"):
            load_config(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("_BASE_: other.yaml", "_BASE_"),
        ("MODEL: &a {}\nINPUT: *a", "a YAML alias"),
        ("[" * 1000, "more than 20 levels"),
        ("#" * 100_000, "100000 letters"),
        ("OUTPUT_DIR: !!python/name:os.system", "a YAML tag that is not data"),
        ("", "not a mapping"),
    ],
)
def test_config_in_another_file_is_data_alone(text, finding):
    with pytest.raises(ConfigError, match=rf"there: .*{finding}"):
        parse_config(text, "there")


def test_config_in_another_file_is_read_as_one_on_disk():
    cfg = load_config(BASE, ["MODEL.DEVICE", "cpu"])
    text = json.dumps(yaml.safe_load(cfg.dump()))  # JSON is YAML without aliases
    assert yaml.safe_load(parse_config(text, "there").dump()) == yaml.safe_load(cfg.dump())
    assert parse_config(text, "there", ["SEED", "5"]).SEED == 5


@pytest.mark.parametrize("path", sorted((CONFIGS / "quick_schedules").glob("*.yaml")), ids=lambda path: path.stem)
def test_quick_schedule_is_augmented_near_the_size_of_its_test(path: Path) -> None:
    cfg = load_config(path)
    assert all(abs(size / cfg.INPUT.MIN_SIZE_TEST - 1) <= 0.15 for size in cfg.TEST.AUG.MIN_SIZES)
    assert max(cfg.TEST.AUG.MIN_SIZES) <= cfg.TEST.AUG.MAX_SIZE


@pytest.mark.parametrize("name", ["both", "phantom_benchmark", "phantom_cpu", "covid_slices_recipe"])
def test_quick_schedule_repeats_itself(name: str) -> None:
    assert load_config(CONFIGS / "quick_schedules" / f"mask_rcnn_R_50_FPN_{name}.yaml").SEED >= 0


RETIRED = """
MODEL: {CT_BACKBONE: {TEACHER: deep.pth, TEACHER_DEPTH: 152}, MASK_ON: True, ROI_HEADS: {NUM_CLASSES: 2}}
INPUT: {MASK_FORMAT: bitmask}
VERSION: 2
"""


def test_config_with_keys_of_an_earlier_version_loads_and_says_so(tmp_path, caplog):
    cfg = load_config(write(tmp_path / "config.yaml", RETIRED), ["MODEL.CT_BACKBONE.TEACHER", "other.pth"])
    assert "CT_BACKBONE" not in cfg.MODEL
    assert "MODEL.CT_BACKBONE" in caplog.text


def test_file_of_another_kind_with_keys_of_an_earlier_version_loads_in_silence(caplog):
    caplog.set_level("INFO")
    assert "CT_BACKBONE" not in parse_config(RETIRED, "there").MODEL
    assert not caplog.records


@pytest.mark.parametrize("path", sorted((CONFIGS / "quick_schedules").glob("*.yaml")), ids=lambda path: path.stem)
def test_expected_results_are_of_one_data_set(path: Path) -> None:
    cfg = load_config(path)
    for task, metric, value, tolerance in cfg.TEST.EXPECTED_RESULTS:
        assert (task, metric, len(cfg.DATASETS.TEST)) == ("segm", "AP50", 1)
        assert 0 < tolerance < value < 100


@pytest.mark.parametrize(
    ("given", "device", "gpus", "expected"),
    [(-1, "cpu", 0, 1), (-1, "cuda", 2, 6), (-1, "cuda", 1, 8), (3, "cuda", 1, 3)],
)
def test_loader_workers_come_from_the_machine(
    given: int, device: str, gpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lung_d2.config.loading.count_cores", lambda: 12)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.DATALOADER.NUM_WORKERS = device, given
    choose_loader_workers(cfg)
    assert cfg.DATALOADER.NUM_WORKERS == expected  # noqa: SIM300
