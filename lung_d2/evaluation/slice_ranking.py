"""The slices on which results are best and worst, to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from lung_d2.evaluation.pixels import PixelCounts
from lung_d2.evaluation.truth import Truth

MOST_SLICES = 6
"""Of each kind."""


def rank_slices(truth: Truth, pixels: PixelCounts, count: int = MOST_SLICES) -> dict[str, list[dict[str, Any]]]:
    """Choose the best and the worst slices by Dice, all categories of a slice together.

    Slices with neither lesion nor detection are not ranked. Of the same Dice, those with more lesion pixels are better,
    and those with more wrong pixels worse. No slice is in both lists, and none of Dice 0 among the best.

    Args:
        truth: What is there.
        pixels: At the score threshold.
        count: Most slices in each list.

    Returns:
        ``best`` and ``worst``, the most extreme first: ``slice`` (its number), ``dataset``, ``file_name``, ``series``,
        ``slice_index``, ``dice``, and in pixels ``lesion``, ``missed`` and ``false``.
    """
    dice = pixels.dice()
    lesion, both = pixels.lesion.sum(axis=1), pixels.both.sum(axis=1)
    missed, false = lesion - both, pixels.found.sum(axis=1) - both
    ranked = np.flatnonzero(~np.isnan(dice))
    best = sorted(ranked[dice[ranked] > 0], key=lambda place: (-dice[place], -lesion[place]))
    worst = sorted(ranked, key=lambda place: (dice[place], -(missed[place] + false[place])))
    chosen = best[: min(count, (len(ranked) + 1) // 2)]
    others = [place for place in worst if place not in chosen][:count]

    def describe(place: Any) -> dict[str, Any]:
        """Return the entry of a slice in a list."""
        one = truth.slices[place]
        return {
            "slice": int(place),
            "dataset": one.dataset,
            "file_name": one.file_name,
            "series": one.series,
            "slice_index": one.slice_index,
            "dice": float(dice[place]),
            "lesion": int(lesion[place]),
            "missed": int(missed[place]),
            "false": int(false[place]),
        }

    return {"best": [describe(place) for place in chosen], "worst": [describe(place) for place in others]}
