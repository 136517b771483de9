"""The table of an ablation: what each arm reaches, and what it adds to the arm that it is compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from lung_d2.ablation.folds import FINAL
from lung_d2.ablation.plan import Plan
from lung_d2.ablation.runs import Run
from lung_d2.data.register import register_lung_datasets
from lung_d2.errors import DatasetError
from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.catalog import find_sources
from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.headline import Row, say_interval
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth_reading import read_truth
from lung_d2.files import create_folder, write_json, write_text

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TABLE_NAME, FIGURES_NAME = "ablation.md", "ablation.json"
_COLUMNS = {
    "segm/AP50": Row("mask AP50", "coco", ("segm", "AP50", ALL), 1),
    "segm/AP": Row("mask AP", "coco", ("segm", "AP", ALL), 1),
    "bbox/AP50": Row("box AP50", "coco", ("bbox", "AP50", ALL), 1),
    "segm/AP10": Row("mask AP10", "lenient", ("segm", "AP10", ALL), 1),
    "froc/1": Row("found", "froc", ("slice_per_image", ALL, "1"), 2),
}
_COMPARED = ("segm/AP50", "segm/AP10")
_HEAD = ["arm", "what it changes", "runs", "patients", *(column.label for column in _COLUMNS.values())]
_HEAD += [head for key in _COMPARED for head in (f"{_COLUMNS[key].label} against", "p")]
_READING = f"""AP in percent, with 95 % intervals by bootstrap over patients; from fewer than {FEW_PATIENTS}
patients they are too narrow, and marked (few). An interval and p say what other patients might change, not what another
seed would; p is not corrected for the number of comparisons, and too small from few patients. The slices of all folds
of an arm are pooled. AP10 is AP at IoU 0.1; found is the share of lesions found at 1 false positive a slice.
"""


def describe(plan: Plan, runs: Sequence[Run], configs: Sequence[CfgNode], *, reduced: bool) -> str:
    """Return how runs are trained and measured, for the head of the table.

    Args:
        plan: The plan.
        runs: Its runs.
        configs: Their configs, in the same order.
        reduced: As in :func:`lung_d2.ablation.runs.build_config`.
    """
    less = ""
    if reduced:
        on_val = f"; on val {_join(plan.reduced_final)}" if plan.reduced_final else ""
        less = f"Reduced: the first fold alone, whose starts serve val too, and {_join(plan.reduced)}{on_val}.\n\n"
    length = {run.split == FINAL: cfg.SOLVER.MAX_ITER for run, cfg in zip(runs, configs, strict=True)}
    long = " and ".join(f"{count} iterations {'for val' if final else 'on folds'}" for final, count in length.items())
    cfg = configs[0]
    return (
        f"{less}Each arm {long}, of {cfg.SOLVER.IMS_PER_BATCH} slices at "
        f"{' or '.join(map(str, cfg.INPUT.MIN_SIZE_TRAIN))} px, measured at {cfg.INPUT.MIN_SIZE_TEST} px, with "
        f"{cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE} proposals a slice learnt from and at most "
        f"{cfg.TEST.DETECTIONS_PER_IMAGE} detections; seed {cfg.SEED} unless said.\n"
    )


def _join(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def write_table(
    plan: Plan, runs: Sequence[Run], folder: Path, about: str, settings: EvaluationSettings | None = None
) -> None:
    """Measure the runs that have ended, and write a Markdown table and its figures as JSON.

    Args:
        plan: The plan.
        runs: Its runs, ended or not.
        folder: Where to write.
        about: How they were trained, as :func:`describe` says it.
        settings: How they are measured.

    Raises:
        DatasetError: No run has ended, or what one found is broken.
    """
    settings = settings or EvaluationSettings()
    register_lung_datasets()
    ended = [run for run in runs if run.has_ended]
    if not ended:
        raise DatasetError(folder, found="no run that has ended", expected="one or more", remedy="train first")
    if silent := sum(not run.says_split for run in ended):
        logger.warning("%d runs of an earlier version did not note their split: taken for the plan's", silent)
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
    about = f"{arm.about} (weights of {arm.of})" if arm.of else arm.about
    row: dict[str, Any] = {"arm": runs[0].name, "about": about, "splits": [run.split for run in runs]}
    row |= {key: column.find(content["metrics"], ALL) for key, column in _COLUMNS.items()}
    if content["comparison"]:
        compared = content["comparison"]["metrics"]
        row["against"] = {"arm": arm.against} | {key: _COLUMNS[key].find(compared, ALL) for key in _COMPARED}
    return row


def _tabulate(rows: Sequence[dict[str, Any]]) -> str:
    return tabulate([_cells(row) for row in rows], headers=_HEAD, tablefmt="github", disable_numparse=True)


def _cells(row: dict[str, Any]) -> list[str]:
    patients = row["segm/AP50"]["patients"]
    few = " (few)" if patients < FEW_PATIENTS else ""
    figures = [_say(row[key], "value", column.digits) for key, column in _COLUMNS.items()]
    cells = [row["arm"], row["about"], str(len(row["splits"])), f"{patients}{few}", *figures]
    for key in _COMPARED:
        if "against" not in row:
            cells += ["", ""]
            continue
        difference = row["against"][key]
        said = _say(difference, "difference", _COLUMNS[key].digits, "+")
        cells += [f"{row['against']['arm']}: {said}", "" if difference["p"] is None else f"{difference['p']:.3f}"]
    return cells


def _say(figure: dict[str, Any], key: str, digits: int, sign: str = "") -> str:
    if figure[key] is None:
        return ""
    return f"{figure[key]:{sign}.{digits}f}{say_interval(figure, digits)}"


def _over_seeds(plan: Plan, figures: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a table of the arms that were measured with several seeds: mean, least and greatest."""
    rows = []
    for name in plan.arms:
        own = [row for title, part in figures.items() if title.startswith("Val") for row in part if row["arm"] == name]
        if len(own) > 1:
            spreads = [_spread([row[key]["value"] for row in own], column.digits) for key, column in _COLUMNS.items()]
            rows.append([name, len(own), *spreads, *(_spread_against(own, key) for key in _COMPARED)])
    headers = ["arm", "seeds", *(column.label for column in _COLUMNS.values())]
    headers += [f"{_COLUMNS[key].label} against" for key in _COMPARED]
    return [f"## Val, over the seeds\n\n{tabulate(rows, headers=headers, tablefmt='github')}\n"] if rows else []


def _spread_against(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Say by how much an arm differs from another of the same seed, and of how many where the other has fewer."""
    paired = [row["against"] for row in rows if "against" in row]
    if not paired:
        return ""
    fewer = f" ({len(paired)} of {len(rows)} seeds)" if len(paired) < len(rows) else ""
    differences = [against[key]["difference"] for against in paired]
    return f"{paired[0]['arm']}{fewer}: {_spread(differences, _COLUMNS[key].digits, '+')}"


def _spread(values: Sequence[float | None], digits: int, sign: str = "") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{mean(known):{sign}.{digits}f} ({min(known):{sign}.{digits}f} to {max(known):{sign}.{digits}f})"
