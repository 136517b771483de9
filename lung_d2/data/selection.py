"""Step 1 of the method: choose the training slices in which lesions are evident, and some without lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Selection:
    """Which slices of the training split are kept."""

    min_area_mm2: float = 10.0
    min_contrast_hu: float = 50.0
    min_lung_share: float = 0.0
    lesion_free_ratio: float | None = 1.0
    seed: int = 0

    def choose(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records that are kept, in order."""
        if self != KEEP_ALL:
            raise NotImplementedError
        return list(records)


KEEP_ALL = Selection(0.0, 0.0, 0.0, None)
"""Keeps every slice."""
