"""Average precision of matched detections, for any weights of the patients.

Precision and recall follow the falling score; at each of 101 recalls (0, 0.01, ..., 1) the best precision at that
recall or beyond counts, 0 where it is never reached, and their mean is the average precision. Source:
``COCOeval.accumulate`` of pycocotools, with which it agrees where every patient counts once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lung_d2.evaluation.matching import Matches
from lung_d2.evaluation.truth import Ints

RECALLS = np.linspace(0.0, 1.0, 101)  # the very floats of pycocotools
Floats = npt.NDArray[np.float64]


class PrecisionRecall:
    """Precision against recall of one category, at all thresholds.

    Attributes:
        lesion_patients: int64 ``(L,)``, the patient of each lesion to be found.
    """

    def __init__(self, matches: Matches, patient_of_slice: Ints, rows: Ints) -> None:
        """Take the rows of these thresholds.

        Args:
            matches: Of the category.
            patient_of_slice: int64 ``(slices,)``.
            rows: int64 ``(T,)``, indices into :data:`lung_d2.evaluation.matching.THRESHOLDS`.
        """
        self.lesion_patients = patient_of_slice[matches.lesion_slices]
        self._patients = patient_of_slice[matches.slices]
        self._hits = [np.flatnonzero(matches.matched[row]) for row in rows]
        counted = ~matches.ignored[rows]
        # Without undecided regions, or where no threshold matters to them, all rows are the same.
        self._counted = counted[:1] if (counted == counted[:1]).all() else counted

    def precisions(self, weights: Floats) -> Floats:
        """Return the best precision at each recall or beyond.

        Args:
            weights: float64 ``(patients,)``.

        Returns:
            float64 ``(T, 101)``, NaN where nothing is to be found.
        """
        lesions = float(weights[self.lesion_patients].sum())
        precisions = np.zeros((len(self._hits), len(RECALLS)))
        if lesions == 0:
            return np.full_like(precisions, np.nan)
        own = weights[self._patients]
        counted = np.cumsum(own * self._counted, axis=1)
        for row, hits in enumerate(self._hits):
            right = np.cumsum(own[hits])
            # Precision is best where a detection is right, so that those alone are looked at.
            precision = right / (counted[min(row, len(counted) - 1)][hits] + np.spacing(1))
            best = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(right / lesions, RECALLS, side="left")
            reached = places < len(best)
            precisions[row, reached] = best[places[reached]]
        return precisions

    def average(self, weights: Floats) -> Floats:
        """Return the average precision at each threshold, float64 ``(T,)``, 0..1."""
        return np.asarray(self.precisions(weights).mean(axis=1), np.float64)
