"""The training slices that lend lesions to others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]


class DonorPool:
    """Draws a slice with lesions for another of the same data set, size and kind of values.

    The records stay where they are; the pool holds their indices.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        """Sort the records.

        Args:
            records: Dataset dicts of the training, as :func:`lung_d2.data.register.load_lung_json` makes them; also a
                ``DatasetFromList``, which unpacks a copy on each access.
        """
        self._records = records
        self._indices: dict[Hashable, list[int]] = defaultdict(list)
        for index in range(len(records)):
            record = records[index]
            if any(not annotation.get("iscrowd", 0) for annotation in record["annotations"]):
                self._indices[_kind(record)].append(index)

    def draw(self, record: Mapping[str, Any]) -> Record | None:
        """Draw a donor from numpy's global generator; None where there is none but the slice itself."""
        indices = self._indices.get(_kind(record), [])
        if not indices:
            return None
        donor = self._records[indices[np.random.randint(len(indices))]]
        return None if donor["file_name"] == record["file_name"] else donor


def _kind(record: Mapping[str, Any]) -> Hashable:
    folder = Path(record["file_name"]).parent.parent  # images/ of the data set, over the folders of the series
    return folder, record["hu"], record["height"], record["width"], "neighbours" in record
