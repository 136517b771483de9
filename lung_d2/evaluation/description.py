"""What an evaluation is of, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth


def describe_truth(truth: Truth) -> dict[str, Any]:
    """Return what there is to be found, counted."""

    def count(kind: Mapping[tuple[int, int], Sequence[Any]]) -> dict[str, int]:
        return {
            category.name: sum(len(regions) for (_, own), regions in kind.items() if own == number)
            for number, category in enumerate(CATEGORIES)
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


def describe_results(detections: Detections) -> dict[str, Any]:
    """Return which results they are."""
    return {
        "files": list(detections.files),
        "sha256": detections.digest,
        "detections": {
            category.name: int((detections.categories == number).sum()) for number, category in enumerate(CATEGORIES)
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
