"""What a reader should know before trusting the figures of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lung_d2.errors import Warning
from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.froc import IMAGE_RATES, Froc
from lung_d2.evaluation.matching import MAX_DETECTIONS
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth

_LEAST_TAIL, _TAIL_SHARE = 10, 0.25


def find_warnings(truth: Truth, detections: Detections, froc: Froc) -> list[Warning]:
    """Return the warnings."""
    return [*_about_truth(truth), *_about_results(truth, detections, froc)]


def _about_truth(truth: Truth) -> Iterator[Warning]:
    patients = len(truth.patients)
    if patients < FEW_PATIENTS:
        yield Warning(
            "few_patients",
            f"{_count(patients)}: intervals from fewer than {FEW_PATIENTS} are too narrow to be trusted.",
        )
    for number, category in enumerate(truth.categories):
        own, name = truth.patients_with_lesions(number), category.name.replace("_", " ")
        if own == 0:
            yield Warning(
                "no_lesion",
                f"No lesion of {name}: its figures are not defined, and its detections count as false positives where "
                f"categories are taken together.",
            )
        elif own < FEW_PATIENTS <= patients:
            yield Warning(
                "few_patients",
                f"{name.capitalize()} in {_count(own)} only: its intervals are too narrow to be trusted.",
            )
    if len({place[0] for place in (*truth.lesions, *truth.undecided)}) == len(truth.slices):
        yield Warning("no_negatives", "No slice without lesions: specificity and AUC of slices are not defined.")


def _about_results(truth: Truth, detections: Detections, froc: Froc) -> Iterator[Warning]:
    if not len(detections):
        yield Warning("no_detection", "The results hold no detection.")
        return
    for source in truth.sources:
        own = np.array([number for number, one in enumerate(truth.slices) if one.dataset == source.name])
        filled = np.flatnonzero(np.isin(own, detections.slices))
        tail = len(own) - (int(filled[-1]) + 1 if len(filled) else 0)
        if tail >= max(_LEAST_TAIL, _TAIL_SHARE * len(own)):
            yield Warning(
                "empty_tail",
                f"No detection on any of the last {tail} of {len(own)} slices of {source.name}: "
                f"these may be results of another data set.",
            )
    if max(len(group) for group in detections.by_place.values()) > MAX_DETECTIONS:
        yield Warning(
            "many_detections",
            f"Slices with more than {MAX_DETECTIONS} detections of a category: COCO's figures take the first of them.",
        )
    responses = froc.responses["slice_per_image", ALL]
    rate = len(responses.false_scores) / len(truth.slices)
    if rate < IMAGE_RATES[-1]:
        yield Warning(
            "high_lowest_score",
            f"The results end at score {detections.scores.min():.3f}, with {rate:.2f} false positives per image: "
            f"FROC says nothing beyond; its sensitivities at higher rates are those of all detections.",
        )


def _count(patients: int) -> str:
    return f"{patients} patient{'s' if patients != 1 else ''}"
