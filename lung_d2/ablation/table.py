"""The table of an ablation: what each arm reaches, and what it adds to the arm that it is compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tabulate import tabulate

from lung_d2.ablation.plan import Plan
from lung_d2.ablation.runs import FINAL, Run
from lung_d2.data.folders import create_folder, write_json, write_text
from lung_d2.data.register import register_lung_datasets
from lung_d2.errors import DatasetError
from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.catalog import find_sources
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth_reading import read_truth

logger = logging.getLogger(__name__)

TABLE_NAME, FIGURES_NAME = "ablation.md", "ablation.json"
_FIGURES = (("segm", "AP50"), ("segm", "AP"), ("bbox", "AP50"))
_HEAD = ("arm", "what it changes", "runs", "patients", "mask AP50", "mask AP", "box AP50", "mask AP50 against", "p")
_READING = f"""In percent, with 95 % intervals by bootstrap over patients; from fewer than {FEW_PATIENTS} patients they
are too narrow, and marked (few). An interval and p say what other patients might change, not what another seed would; p
is not corrected for the number of comparisons. The slices of all folds of an arm are pooled.
"""


def write_table(
    plan: Plan, runs: Sequence[Run], folder: Path, about: str, settings: EvaluationSettings | None = None
) -> None:
    """Measure the runs that have ended, and write a Markdown table and its figures as JSON.

    Args:
        plan: The plan.
        runs: Its runs, ended or not.
        folder: Where to write.
        about: How they were trained, in a line.
        settings: How they are measured.

    Raises:
        DatasetError: No run has ended, or what one found is broken.
    """
    settings = settings or EvaluationSettings()
    register_lung_datasets()
    ended = [run for run in runs if run.has_ended]
    if not ended:
        raise DatasetError(folder, found="no run that has ended", expected="one or more", remedy="train first")
    sections = {"Folds over the training patients": [run for run in ended if run.split != FINAL]}
    sections |= {
        f"Val, seed {seed}": [run for run in ended if (run.split, run.seed) == (FINAL, seed)] for seed in plan.seeds
    }
    figures = {title: list(_rows(plan, own, settings)) for title, own in sections.items() if own}
    create_folder(folder)
    write_json({"about": about, "sections": figures}, folder / FIGURES_NAME, indent=1)
    parts = [about, _READING, *(f"## {title}\n\n{_tabulate(rows)}\n" for title, rows in figures.items())]
    write_text("\n".join([*parts, *_over_seeds(plan, figures)]), folder / TABLE_NAME)
    logger.info("written to %s", folder / TABLE_NAME)


def _rows(plan: Plan, ended: Sequence[Run], settings: EvaluationSettings) -> Iterator[dict[str, Any]]:
    for name, arm in plan.arms.items():
        own = [run for run in ended if run.name == name]
        if own:
            yield _measure(plan, own, [run for run in ended if run.name == arm.against], settings)


def _measure(plan: Plan, runs: Sequence[Run], others: Sequence[Run], settings: EvaluationSettings) -> dict[str, Any]:
    arm = runs[0].arm
    truth = read_truth(find_sources([f"{run.dataset(plan.dataset)}_val" for run in runs]))
    found = read_results([run.results(plan.dataset) for run in runs], truth)
    same = {run.split: run for run in others}
    paired = [same[run.split].results(plan.dataset) for run in runs if run.split in same]
    # An arm of which a fold is still missing is compared once that has ended.
    against = read_results(paired, truth) if len(paired) == len(runs) else None
    content = evaluate(truth, found, settings, against)
    figures = content["metrics"]["coco"]["figures"]
    row: dict[str, Any] = {"arm": runs[0].name, "about": arm.about, "splits": [run.split for run in runs]}
    row |= {f"{task}/{name}": figures[task][name][ALL] for task, name in _FIGURES}
    if content["comparison"]:
        compared = content["comparison"]["metrics"]["coco"]["figures"]
        row["against"] = {"arm": arm.against, "segm/AP50": compared["segm"]["AP50"][ALL]}
    return row


def _tabulate(rows: Sequence[dict[str, Any]]) -> str:
    return tabulate([_cells(row) for row in rows], headers=_HEAD, tablefmt="github", disable_numparse=True)


def _cells(row: dict[str, Any]) -> list[str]:
    patients = row["segm/AP50"]["patients"]
    few = " (few)" if patients < FEW_PATIENTS else ""
    figures = [_say(row[f"{task}/{name}"], "value") for task, name in _FIGURES]
    cells = [row["arm"], row["about"], str(len(row["splits"])), f"{patients}{few}", *figures]
    if "against" not in row:
        return [*cells, "", ""]
    difference = row["against"]["segm/AP50"]
    p = "" if difference["p"] is None else f"{difference['p']:.3f}"
    return [*cells, f"{row['against']['arm']}: {_say(difference, 'difference', '+')}", p]


def _say(figure: dict[str, Any], key: str, sign: str = "") -> str:
    if figure[key] is None:
        return ""
    interval = "" if figure["low"] is None else f" [{figure['low']:.1f}, {figure['high']:.1f}]"
    return f"{figure[key]:{sign}.1f}{interval}"


def _over_seeds(plan: Plan, figures: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a table of the arms that were trained with several seeds: mean, least and greatest."""
    rows = []
    for name in plan.arms:
        own = [row for title, part in figures.items() if title.startswith("Val") for row in part if row["arm"] == name]
        if len(own) > 1:
            values = [[row[f"{task}/{metric}"]["value"] for row in own] for task, metric in _FIGURES]
            rows.append([name, len(own), *(f"{mean(one):.1f} ({min(one):.1f} to {max(one):.1f})" for one in values)])
    headers = ["arm", "seeds", "mask AP50", "mask AP", "box AP50"]
    return [f"## Val, over the seeds\n\n{tabulate(rows, headers=headers, tablefmt='github')}\n"] if rows else []
