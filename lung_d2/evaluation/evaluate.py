"""All metrics of one results file, with intervals, and against another: the content of ``evaluation.json``.

::

    schema_version
    categories   records as in COCO JSON
    data         names, patients, series, slices, slices_without_lesions, lesions and undecided regions by category
    results      files, sha256, detections by category, lowest_score, highest_score
    settings     score_threshold, hit_iou, draws, seed, false_positive_rates
    warnings     sentences
    metrics      GROUP: definition, figures, curves
    slices       best, worst: see lung_d2.evaluation.slice_level
    comparison   null, or results (as above, of the others) and metrics: GROUP: figures

``figures`` are nested by the names that each metric's module gives; the innermost holds ``value``, ``low`` and ``high``
(95 % over patients) and ``patients`` (on how many it rests). In a comparison it holds ``value``, ``against``,
``difference`` with its ``low`` and ``high``, ``p`` and ``patients``. Average precisions are in percent, volumes in ml,
all others are shares. What is not defined is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lung_d2.categories import Categories
from lung_d2.errors import ConfigError
from lung_d2.evaluation.average_precision import CocoAP, LenientAP
from lung_d2.evaluation.bootstrap import (
    DEFAULT_DRAWS,
    Draws,
    draw_patients,
    find_difference,
    find_interval,
    measure_draws,
    measure_once,
)
from lung_d2.evaluation.calibration import Calibration
from lung_d2.evaluation.dice import PixelCounts, SeriesVolume, count_pixels
from lung_d2.evaluation.figures import Key, Metric, nest, ones
from lung_d2.evaluation.froc import Froc
from lung_d2.evaluation.matching import TASKS, match
from lung_d2.evaluation.overlaps import HIT_IOU, Floats, measure_overlaps
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.slice_level import SliceLevel, rank_slices
from lung_d2.evaluation.truth import Truth
from lung_d2.evaluation.warnings import find_warnings


def describe_truth(truth: Truth) -> dict[str, Any]:
    """Return what there is to be found, counted."""

    def count(kind: Mapping[tuple[int, int], Sequence[Any]]) -> dict[str, int]:
        return {
            category.name: sum(len(regions) for (_, own), regions in kind.items() if own == number)
            for number, category in enumerate(truth.categories)
        }

    touched = {place[0] for place in (*truth.lesions, *truth.undecided)}
    return {
        "names": [source.name for source in truth.sources],
        "patients": len(truth.patients),
        "series": len(truth.series),
        "slices": len(truth.slices),
        "slices_without_lesions": len(truth.slices) - len(touched),
        "lesions": count(truth.lesions),
        "undecided": count(truth.undecided),
    }


def describe_results(detections: Detections, categories: Categories) -> dict[str, Any]:
    """Return which results they are."""
    return {
        "files": list(detections.files),
        "sha256": detections.digest,
        "detections": {
            category.name: int((detections.categories == number).sum()) for number, category in enumerate(categories)
        },
        "lowest_score": float(detections.scores.min()) if len(detections) else None,
        "highest_score": float(detections.scores.max()) if len(detections) else None,
    }


def without_nan(content: Any) -> Any:
    """Return the content with null for NaN, which JSON does not know."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


SCHEMA_VERSION = 1
"""Raised when a key goes or changes its meaning; new keys alone do not raise it."""

Measured = dict[Key, Floats]
"""A figure as it was in each draw."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How results are measured.

    Attributes:
        score_threshold: Detections of at least this score count for Dice, volumes, and calls on slices, 0..1.
        draws: Of patients, for the intervals; 0: none.
        seed: Of the draws.
        false_positive_rates: For each image and series, above 0: where FROC is read beside its fixed rates.

    Raises:
        ConfigError: A value is out of bounds.
    """

    score_threshold: float = 0.5
    draws: int = DEFAULT_DRAWS
    seed: int = 0
    false_positive_rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for rate in self.false_positive_rates:
            if not 0 < rate < math.inf or float(f"{rate:g}") != rate:  # figures go by six digits of their rate
                expected = "above 0, of six digits at most"
                raise ConfigError("false positives", found=str(rate), expected=expected, remedy="correct it")
        if not 0 <= self.score_threshold <= 1:
            found = f"{self.score_threshold:g}"
            raise ConfigError("score threshold", found=found, expected="0 to 1", remedy="correct it")
        draw_patients(1, min(self.draws, 1), self.seed)  # refuses what is below 0


def evaluate(
    truth: Truth,
    detections: Detections,
    settings: EvaluationSettings | None = None,
    against: Detections | None = None,
) -> dict[str, Any]:
    """Measure results, and compare them with others of the same slices.

    Args:
        truth: What is there.
        detections: What was found.
        settings: How they are measured.
        against: What was found by another model; compared on the same draws of patients.

    Returns:
        What ``evaluation.json`` holds, see the module.
    """
    settings = settings or EvaluationSettings()
    draws = draw_patients(len(truth.patients), settings.draws, settings.seed)
    pixels = count_pixels(truth, detections, settings.score_threshold)
    metrics = _build_metrics(truth, detections, pixels, settings)
    measured = [measure_draws(metric, draws) for metric in metrics]
    (froc,) = (metric for metric in metrics if isinstance(metric, Froc))
    content = {
        "schema_version": SCHEMA_VERSION,
        "categories": truth.categories.to_coco(),
        "data": describe_truth(truth),
        "results": describe_results(detections, truth.categories),
        "settings": {
            "score_threshold": settings.score_threshold,
            "hit_iou": HIT_IOU,
            "draws": settings.draws,
            "seed": settings.seed,
            "false_positive_rates": list(settings.false_positive_rates),
        },
        "warnings": [warning.text for warning in find_warnings(truth, detections, froc)],
        "metrics": {
            metric.group: {
                "definition": metric.definition,
                "figures": nest(_measure(metric, own, truth)),
                "curves": metric.curves(),
            }
            for metric, own in zip(metrics, measured, strict=True)
        },
        "slices": rank_slices(truth, pixels),
        "comparison": None if against is None else _compare(truth, metrics, measured, against, settings, draws),
    }
    strict: dict[str, Any] = without_nan(content)
    return strict


def _build_metrics(
    truth: Truth, detections: Detections, pixels: PixelCounts, settings: EvaluationSettings
) -> list[Metric]:
    """Match once, for all figures and all draws."""
    matches = {task: match(truth, detections, task) for task in TASKS}
    overlaps = measure_overlaps(truth, detections)
    return [
        CocoAP(truth, matches),
        LenientAP(truth, matches),
        Froc(truth, detections, overlaps, settings.false_positive_rates),
        SeriesVolume(truth, pixels),
        SliceLevel(truth, overlaps, settings.score_threshold),
        Calibration(truth, matches["segm"]),
    ]


def _measure(metric: Metric, measured: Measured, truth: Truth) -> dict[Key, dict[str, Any]]:
    figures = {}
    for key, value in measure_once(metric, ones(truth)).items():
        patients = len(metric.patients_of(key))
        interval = find_interval(measured.get(key, np.empty(0)), patients)
        figures[key] = {"value": value, "low": interval.low, "high": interval.high, "patients": patients}
    return figures


def _compare(
    truth: Truth,
    metrics: Sequence[Metric],
    measured: Sequence[Measured],
    against: Detections,
    settings: EvaluationSettings,
    draws: Draws,
) -> dict[str, Any]:
    pixels = count_pixels(truth, against, settings.score_threshold)
    others = _build_metrics(truth, against, pixels, settings)
    compared = {}
    for metric, other, own in zip(metrics, others, measured, strict=True):
        theirs = measure_draws(other, draws)
        ours, other_figures = (measure_once(one, ones(truth)) for one in (metric, other))
        figures = {}
        for key, value in ours.items():
            patients = len(np.union1d(metric.patients_of(key), other.patients_of(key)))
            found = find_difference(own.get(key, np.empty(0)), theirs.get(key, np.empty(0)), patients)
            figures[key] = {
                "value": value,
                "against": other_figures[key],
                "difference": value - other_figures[key],
                "low": found.interval.low,
                "high": found.interval.high,
                "p": found.p,
                "patients": patients,
            }
        compared[metric.group] = {"figures": nest(figures)}
    return {"results": describe_results(against, truth.categories), "metrics": compared}
