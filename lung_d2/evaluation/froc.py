"""FROC: the share of lesions found against the number of false positives, on slices and on series.

Three curves for each category, and for all together:

``slice_per_image``
    Lesions of slices (2-D), false positives per slice, at 1/2 to 16.
``slice_per_series``
    Lesions of slices (2-D), false positives per series, at 1/8 to 8. Each detection on each slice counts, which is hard
    on a long series.
``series_per_series``
    Lesions of series: regions chained over neighbouring slices (:mod:`lung_d2.evaluation.chains`), found where any of
    their slices is hit. False positives per series, at 1/8 to 8, are chained in the same way, so that a vessel taken
    for a lesion on ten slices is one. This is the figure that a reader of series meets.

A detection hits a lesion by the rule of :mod:`lung_d2.evaluation.overlaps`. A lesion is found with the highest score
that hits it; a further detection of it is neither right nor wrong, as in LUNA16. The sensitivity at a rate of false
positives is the highest that is reached by keeping all detections from some score on, at no more than that rate:
nothing is interpolated. Where all detections make fewer false positives than the rate, all count.

Sources: Bunch et al., A free-response approach to the measurement and characterization of radiographic-observer
performance, SPIE 127, 1977; Setio et al., Validation, comparison, and combination of algorithms for automatic detection
of pulmonary nodules: the LUNA16 challenge, Medical Image Analysis 42, 2017 (its rates, and ``mean``, the mean
sensitivity over them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lung_d2.evaluation.figures import ALL, NAMES, Key, Weights
from lung_d2.evaluation.overlaps import HIT_IOU, Overlap
from lung_d2.evaluation.responses import Responses, respond_in_series, respond_on_slices
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

IMAGE_RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SERIES_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RATES = {"slice_per_image": IMAGE_RATES, "slice_per_series": SERIES_RATES, "series_per_series": SERIES_RATES}
MEAN = "mean"


class Froc:
    """Sensitivity at rates of false positives, by curve and category; see the module."""

    group = "froc"
    definition = (
        f"Share of lesions found against false positives. A detection hits a lesion of its category and slice where "
        f"the IoU of the masks is at least {HIT_IOU}; a second hit counts neither way. On slices, a lesion is one "
        f"region of one slice; of a series, regions chained over neighbouring slices, and so are false positives. "
        f"'Mean' is the mean over the usual rates. The threshold is the least score from which detections can be kept "
        f"at a rate, and is there without lesions too."
    )

    def __init__(
        self, truth: Truth, detections: Detections, overlaps: Sequence[Overlap], rates: Sequence[float] = ()
    ) -> None:
        """Collect the responses of all slices and series; ``rates`` are read beside :data:`RATES`, on every curve."""
        self.rates = {curve: tuple(sorted({*own, *rates})) for curve, own in RATES.items()}
        images = np.bincount(truth.patient_of_slice, minlength=len(truth.patients)).astype(np.float64)
        series = np.bincount(truth.patient_of_series, minlength=len(truth.patients)).astype(np.float64)
        self.responses: dict[tuple[str, str], Responses] = {}
        for name in (ALL, *NAMES):
            own = [one for one in overlaps if name in (ALL, NAMES[one.category])]
            self.responses["slice_per_image", name] = respond_on_slices(own, truth, images)
            self.responses["slice_per_series", name] = respond_on_slices(own, truth, series)
            self.responses["series_per_series", name] = respond_in_series(own, truth, detections, series)

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the sensitivities, 0..1, keyed by curve, category and rate."""
        figures: dict[Key, float] = {}
        for (curve, name), responses in self.responses.items():
            found = dict(zip(self.rates[curve], responses.sensitivities(self.rates[curve], weights), strict=True))
            figures |= {(curve, name, f"{rate:g}"): float(one) for rate, one in found.items()}
            figures[curve, name, MEAN] = float(np.mean([found[rate] for rate in RATES[curve]]))
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have lesions of the category."""
        return np.unique(self.responses[key[0], key[1]].lesion_patients)

    def curves(self) -> dict[str, Any]:
        """Return each curve of a category that has lesions or detections, and the threshold that each rate needs.

        Without lesions there is no sensitivity, but still a threshold.
        """
        drawn: dict[str, Any] = {}
        for (curve, name), responses in self.responses.items():
            if len(responses.lesion_scores) or len(responses.scores):
                thresholds = {f"{rate:g}": responses.threshold(rate) for rate in self.rates[curve]}
                own = responses.curve() | {"thresholds": thresholds, "lesions": len(responses.lesion_scores)}
                drawn.setdefault(curve, {})[name] = own
        return drawn
