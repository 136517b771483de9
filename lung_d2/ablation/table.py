"""The table of an ablation: what each arm reaches, and what it adds to the arm that it is compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lung_d2.ablation.plan import Arm, Plan
from lung_d2.ablation.runs import FINAL, Run
from lung_d2.data.folders import create_folder, write_json, write_text
from lung_d2.data.register import register_lung_datasets
from lung_d2.evaluation.catalog import find_sources
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth import read_truth

logger = logging.getLogger(__name__)

TABLE_NAME, FIGURES_NAME = "ablation.md", "ablation.json"
_FIGURES = (("segm", "AP50"), ("segm", "AP"), ("bbox", "AP50"))
_HEAD = (
    "| arm | what it changes | runs | patients | mask AP50 | mask AP | box AP50 | mask AP50 against | p |",
    "|---|---|---|---|---|---|---|---|---|",
)


def write_table(plan: Plan, runs: Sequence[Run], folder: Path, settings: EvaluationSettings | None = None) -> None:
    """Measure the runs that have ended, and write a Markdown table and its figures as JSON.

    The slices of an arm's folds are pooled, and an arm is compared with another on the folds that both have. Intervals
    are 95 % by bootstrap over patients (:mod:`lung_d2.evaluation.bootstrap`).

    Args:
        plan: The plan.
        runs: Its runs, ended or not.
        folder: Where to write.
        settings: How they are measured.
    """
    settings = settings or EvaluationSettings()
    register_lung_datasets()
    ended = [run for run in runs if run.results(plan.dataset).is_file()]
    folds = [run for run in ended if run.split != FINAL]
    sections = [("Folds over the training patients", list(_rows(plan, folds, settings)))]
    for seed in plan.seeds:
        rows = list(_rows(plan, [run for run in ended if run.split == FINAL and run.seed == seed], settings))
        sections.append((f"Val, seed {seed}", rows))
    create_folder(folder)
    write_json({title: rows for title, rows in sections if rows}, folder / FIGURES_NAME, indent=1)
    lines = [line for title, rows in sections if rows for line in _section(title, rows)]
    write_text("\n".join(lines) + "\n", folder / TABLE_NAME)
    logger.info("written to %s", folder / TABLE_NAME)


def _rows(plan: Plan, ended: Sequence[Run], settings: EvaluationSettings) -> Iterator[dict[str, Any]]:
    by_arm = {arm.name: [run for run in ended if run.arm == arm] for arm in plan.arms}
    for arm in plan.arms:
        if by_arm[arm.name]:
            yield _measure(plan, arm, by_arm[arm.name], by_arm.get(arm.against, []), settings)


def _measure(
    plan: Plan, arm: Arm, runs: Sequence[Run], others: Sequence[Run], settings: EvaluationSettings
) -> dict[str, Any]:
    truth = read_truth(find_sources([f"{run.dataset(plan.dataset)}_val" for run in runs]))
    found = read_results([run.results(plan.dataset) for run in runs], truth)
    same = {run.split: run for run in others}
    paired = [same[run.split].results(plan.dataset) for run in runs if run.split in same]
    # An arm of which a fold is still missing is compared once that has ended.
    against = read_results(paired, truth) if len(paired) == len(runs) else None
    content = evaluate(truth, found, settings, against)
    figures = content["metrics"]["coco"]["figures"]
    row: dict[str, Any] = {"arm": arm.name, "about": arm.about, "splits": [run.split for run in runs]}
    row |= {f"{task}/{name}": figures[task][name][ALL] for task, name in _FIGURES}
    if content["comparison"]:
        compared = content["comparison"]["metrics"]["coco"]["figures"]
        row["against"] = {"arm": arm.against, "segm/AP50": compared["segm"]["AP50"][ALL]}
    return row


def _section(title: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from (f"## {title}", "", *_HEAD)
    for row in rows:
        figures = [_say(row[f"{task}/{name}"], "value") for task, name in _FIGURES]
        difference = row.get("against")
        change = (
            "" if difference is None else f"{difference['arm']}: {_say(difference['segm/AP50'], 'difference', '+')}"
        )
        p = difference["segm/AP50"]["p"] if difference else None
        yield (
            "| "
            + " | ".join(
                [
                    row["arm"],
                    row["about"],
                    str(len(row["splits"])),
                    str(row["segm/AP50"]["patients"]),
                    *figures,
                    change,
                    "" if p is None else f"{p:.3f}",
                ]
            )
            + " |"
        )
    yield ""


def _say(figure: dict[str, Any], key: str, sign: str = "") -> str:
    if figure[key] is None:
        return ""
    interval = "" if figure["low"] is None else f" [{figure['low']:.1f}, {figure['high']:.1f}]"
    return f"{figure[key]:{sign}.1f}{interval}"
