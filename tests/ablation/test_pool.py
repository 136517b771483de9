"""Runs in processes of their own: those that fail are named, those that have ended are not run again."""

from __future__ import annotations

from pathlib import Path

from lung_d2.ablation.plan import Arm, Plan
from lung_d2.ablation.pool import carry_out_all
from lung_d2.ablation.runs import build_config, list_runs
from tiny import CONFIGS, TINY_OPTS

PLAN = Plan(
    configs=str(CONFIGS),
    base="Base-LungCT-RCNN-FPN.yaml",
    dataset="none",
    prepare=["slices"],
    folds=[["a"]],
    arms={"base": Arm("ours")},
    settings=dict(zip(TINY_OPTS[::2], TINY_OPTS[1::2], strict=True)),
)


def test_run_that_fails_is_named_and_says_why_in_its_log(tmp_path: Path):
    (run,) = list_runs(PLAN, tmp_path)
    assert carry_out_all([(run, build_config(PLAN, run))], 1) == ["base, 0, seed 1"]
    assert "none_fold0_train" in (run.folder / "log.txt").read_text()


def test_run_that_has_ended_is_not_run_again(tmp_path: Path):
    (run,) = list_runs(PLAN, tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "ended.json").write_text('{"iterations": 1}')
    assert carry_out_all([(run, build_config(PLAN, run))], 2) == []
    assert not (run.folder / "log.txt").exists()
