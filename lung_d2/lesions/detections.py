"""Detections of one slice, light enough to keep for a whole series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SliceDetections:
    """What the network found on one slice, by falling score.

    Attributes:
        slice_index: 0-based along the slice normal.
        boxes: float32 ``(N, 4)``: x0, y0, x1, y1 in pixels of the source slice.
        scores: float32 ``(N,)``, 0..1.
        category_ids: int64 ``(N,)``, COCO ids of the categories.
        masks: N compressed COCO RLE of the source slice's size (boolean masks of 600 slices would not fit).
    """

    slice_index: int
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    category_ids: npt.NDArray[np.int64]
    masks: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        count = len(self.scores)
        assert self.boxes.shape == (count, 4)
        assert self.category_ids.shape == (count,)
        assert len(self.masks) == count

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> SliceDetections:
        """Return the detections with at least this score."""
        keep = np.flatnonzero(self.scores >= score)
        return SliceDetections(
            self.slice_index,
            self.boxes[keep],
            self.scores[keep],
            self.category_ids[keep],
            tuple(self.masks[index] for index in keep),
        )
