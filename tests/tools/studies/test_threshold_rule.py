"""A trivial rule fails on the benchmark, and the score it fails by can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lung_d2.categories import CATEGORIES
from lung_d2.phantom import PhantomPatient, build_patient, preset_by_name
from phantom.scoring import score_ap50
from studies.threshold_rule import RuleDetection, apply_rule

MOST_AP50 = 30.0


def detect_truth(patient: PhantomPatient, index: int) -> list[RuleDetection]:
    return [
        RuleDetection(name, instances[index] == value, 1.0)
        for name, instances in patient.instances.items()
        for value in np.unique(instances[index])[1:]
    ]


def test_the_truth_scores_a_hundred() -> None:
    scores = score_ap50([build_patient(preset_by_name("mini"), 0)], detect_truth)
    assert all(score == pytest.approx(100.0) for score in scores.values())


def test_the_rule_finds_something_where_it_is_easy() -> None:
    """Quiet, sharp and without distractors: the rule is not a straw man."""
    spec = preset_by_name("benchmark")
    easy = replace(
        spec,
        slice_count=10,
        slice_spacing_mm=10.0,
        distractors=0.0,
        overlap_share=0.0,
        ground_glass_opacity=replace(preset_by_name("quick").ground_glass_opacity),
        noise_hu=replace(spec.noise_hu, low=2.0, high=2.0),
    )
    scores = score_ap50([build_patient(easy, 0)], lambda p, index: apply_rule(p.volume, index))
    assert scores["ground_glass_opacity"] > MOST_AP50


def test_the_rule_stays_below_30_on_the_benchmark(record_property: pytest.RecordProperty) -> None:
    # Every fourth slice of eight patients: with four patients the figure depends on which ones are taken.
    spec = preset_by_name("benchmark")
    sparse = replace(spec, slice_count=spec.slice_count // 4, slice_spacing_mm=4 * spec.slice_spacing_mm)
    patients = (build_patient(sparse, number) for number in range(8))
    scores = score_ap50(patients, lambda patient, index: apply_rule(patient.volume, index))
    for name, score in scores.items():
        record_property(f"rule AP50 {name}", round(score, 1))
    assert all(scores[name] < MOST_AP50 for name in (*(category.name for category in CATEGORIES), "overall")), scores
