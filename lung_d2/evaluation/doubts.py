"""What a reader of an evaluation has to know before believing its figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.bootstrap import FEW_PATIENTS
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.froc import IMAGE_RATES, Froc
from lung_d2.evaluation.matching import MAX_DETECTIONS
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth

_LEAST_TAIL, _TAIL_SHARE = 10, 0.25


def find_doubts(truth: Truth, detections: Detections, froc: Froc) -> list[str]:
    """Return the doubts, a sentence each."""
    return [*_doubts_of_truth(truth), *_doubts_of_results(truth, detections, froc)]


def _doubts_of_truth(truth: Truth) -> Iterator[str]:
    patients = len(truth.patients)
    if patients < FEW_PATIENTS:
        yield f"{_count(patients)}: intervals from fewer than {FEW_PATIENTS} are too narrow to be trusted."
    for number, category in enumerate(CATEGORIES):
        own, name = truth.patients_with_lesions(number), category.name.replace("_", " ")
        if own == 0:
            yield (
                f"No lesion of {name}: its figures are not defined, and its detections count as false positives where "
                f"categories are taken together."
            )
        elif own < FEW_PATIENTS <= patients:
            yield f"{name.capitalize()} in {_count(own)} only: its intervals are too narrow to be trusted."
    if len({place[0] for place in (*truth.lesions, *truth.undecided)}) == len(truth.slices):
        yield "No slice without lesions: specificity and AUC of slices are not defined."


def _doubts_of_results(truth: Truth, detections: Detections, froc: Froc) -> Iterator[str]:
    if not len(detections):
        yield "The results hold no detection."
        return
    for source in truth.sources:
        own = np.array([number for number, one in enumerate(truth.slices) if one.dataset == source.name])
        filled = np.flatnonzero(np.isin(own, detections.slices))
        tail = len(own) - (int(filled[-1]) + 1 if len(filled) else 0)
        if tail >= max(_LEAST_TAIL, _TAIL_SHARE * len(own)):
            yield (
                f"No detection on any of the last {tail} of {len(own)} slices of {source.name}: "
                f"these may be results of another data set."
            )
    if max(len(group) for group in detections.by_place.values()) > MAX_DETECTIONS:
        yield f"Slices with more than {MAX_DETECTIONS} detections of a category: COCO's figures take the first of them."
    responses = froc.responses["slice_per_image", ALL]
    rate = len(responses.false_scores) / len(truth.slices)
    if rate < IMAGE_RATES[-1]:
        yield (
            f"The results end at score {detections.scores.min():.3f}, with {rate:.2f} false positives per image: "
            f"FROC says nothing beyond; its sensitivities at higher rates are those of all detections."
        )


def _count(patients: int) -> str:
    return f"{patients} patient{'s' if patients != 1 else ''}"
