"""Dice and volume error of each series, by category, from the pixels of its slices.

The detections of a category with at least the score threshold count together, and so do its lesions; undecided pixels
of the category count in neither. All voxels of a category in a series count together. Dice is 2 |A and B| / (|A| + |B|)
(Dice, Ecology 26, 1945); a series with neither lesion nor detection has none and is left out of the mean, one with
detections alone has 0. The volume error is found minus true: in ml if pixel spacing and slice positions are known, each
slice as thick as the median distance of the series' slices; and as a share of the true volume in series that have
lesions. Means are over series; ``absolute`` ones do not let one series make up for another. Source of the choice:
Maier-Hein et al., Metrics reloaded, Nature Methods 21, 2024 (overlap and volume per case, not pooled).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.evaluation.figures import Key, Weights, category_numbers, weighted_mean
from lung_d2.evaluation.overlaps import Floats
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Ints, Truth

Rle = dict[str, Any]


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Pixels by slice and category, each int64 ``(slices, categories)``.

    Attributes:
        lesion: Pixels of lesions.
        found: Pixels of detections.
        both: Pixels of both.
    """

    lesion: Ints
    found: Ints
    both: Ints

    def dice(self) -> Floats:
        """Return the Dice coefficient of each slice, its categories together, NaN where there is nothing to compare."""
        return dice_of(self.lesion.sum(axis=1), self.found.sum(axis=1), self.both.sum(axis=1))


def dice_of(lesion: Ints | Floats, found: Ints | Floats, both: Ints | Floats) -> Floats:
    """Return 2 both / (lesion + found) of arrays of one shape, NaN where both are empty (Dice, Ecology 26, 1945)."""
    together = np.asarray(lesion + found, np.float64)
    return np.divide(2.0 * both, together, out=np.full(together.shape, np.nan), where=together > 0)


def count_pixels(truth: Truth, detections: Detections, score_threshold: float) -> PixelCounts:
    """Count the pixels of every slice and category."""
    lesion, found, both = (np.zeros((len(truth.slices), len(truth.categories)), np.int64) for _ in range(3))
    for place in {*truth.lesions, *detections.by_place}:
        indices = detections.by_place.get(place, ())
        seen = _unite([detections.masks[index] for index in indices if detections.scores[index] >= score_threshold])
        there = _unite([region.mask for region in truth.lesions.get(place, ())])
        unknown = _unite([region.mask for region in truth.undecided.get(place, ())])
        lesion[place], found[place] = _count([there], unknown), _count([seen], unknown)
        both[place] = _count([there, seen], unknown)
    return PixelCounts(lesion, found, both)


def _unite(masks: Sequence[Rle]) -> Rle | None:
    return coco_mask.merge(list(masks)) if masks else None


def _count(masks: Sequence[Rle | None], unknown: Rle | None) -> int:
    """Count the pixels that are in all the masks, and not in what is unknown; a mask that is None is empty."""
    if None in masks:
        return 0
    shared = int(coco_mask.area(coco_mask.merge(list(masks), intersect=True)))
    if unknown is None:
        return shared
    return shared - int(coco_mask.area(coco_mask.merge([*masks, unknown], intersect=True)))


_MM3_PER_ML = 1000.0


class SeriesVolume:
    """Mean Dice and volume error over series; see the module."""

    group = "series"
    definition = (
        "Per series and category, all voxels together, at the score threshold: Dice (series with neither lesion nor "
        "detection left out, of two results that are compared perhaps not the same ones), and volume found minus true, "
        "in ml where spacing is known and as share of the true volume in series with lesions. Means over series."
    )

    def __init__(self, truth: Truth, pixels: PixelCounts) -> None:
        """Add up the slices of each series."""
        self._truth = truth
        voxels = voxel_volumes_ml(truth)
        known = np.isfinite(voxels)
        # Where no volume is known, slices count alike.
        volumes = np.where(known, voxels, 1.0)[:, None]
        lesion, found, both = (_add_up(truth, volumes * one) for one in (pixels.lesion, pixels.found, pixels.both))
        self._is_known = known[np.unique(truth.series_of_slice, return_index=True)[1]]
        self._lesion_ml, self._found_ml = lesion, found
        self._dice = dice_of(lesion, found, both)

    def at(self, weights: Weights) -> Mapping[Key, float]:
        """Return the figures, keyed by metric and category."""
        own = weights[self._truth.patient_of_series]
        figures: dict[Key, float] = {}
        for number, name in enumerate(self._truth.categories.names):
            for metric, values in self._values(number).items():
                figures[metric, name] = weighted_mean(values, own)
        return figures

    def patients_of(self, key: Key) -> Ints:
        """Return the patients who have a series in which the figure is defined."""
        (number,) = category_numbers(self._truth, key[1])
        known = ~np.isnan(self._values(number)[key[0]])
        return np.unique(self._truth.patient_of_series[known])

    def curves(self) -> dict[str, Any]:
        """Return a row for each series and category that has lesions or detections; volumes are null where unknown."""
        rows = []
        for series, name in enumerate(self._truth.series):
            for number, category in enumerate(self._truth.categories):
                if np.isnan(self._dice[series, number]):
                    continue
                volumes = [float(one[series, number]) for one in (self._lesion_ml, self._found_ml)]
                rows.append(
                    {
                        "series": name,
                        "patient": self._truth.patients[self._truth.patient_of_series[series]],
                        "category": category.name,
                        "dice": float(self._dice[series, number]),
                        "true_ml": volumes[0] if self._is_known[series] else None,
                        "found_ml": volumes[1] if self._is_known[series] else None,
                        "relative_error": (volumes[1] - volumes[0]) / volumes[0] if volumes[0] else None,
                    }
                )
        return {"rows": rows}

    def _values(self, number: int) -> dict[str, Floats]:
        """Return the metrics of each series for a category, float64 ``(series,)``, NaN where not defined."""
        lesion, found = self._lesion_ml[:, number], self._found_ml[:, number]
        error_ml = np.where(self._is_known, found - lesion, np.nan)
        relative = np.divide(found - lesion, lesion, out=np.full(len(lesion), np.nan), where=lesion > 0)
        return {
            "dice": self._dice[:, number],
            "volume_error_ml": error_ml,
            "absolute_volume_error_ml": np.abs(error_ml),
            "relative_volume_error": relative,
            "absolute_relative_volume_error": np.abs(relative),
        }


def voxel_volumes_ml(truth: Truth) -> Floats:
    """Return the volume of a voxel of each slice in ml, float64 ``(slices,)``; NaN in a series where it is unknown."""
    volumes = np.full(len(truth.slices), np.nan)
    for number in range(len(truth.series)):
        places = np.flatnonzero(truth.series_of_slice == number)
        thickness = _thickness_mm(truth, places)
        spacings = [truth.slices[place].pixel_spacing_mm for place in places]
        if thickness is not None and all(spacings):
            areas = [spacing[0] * spacing[1] for spacing in spacings if spacing is not None]
            volumes[places] = np.array(areas) * thickness / _MM3_PER_ML
    return volumes


def _thickness_mm(truth: Truth, places: Ints) -> float | None:
    """Return the median distance of neighbouring slices; None where positions are unknown, or of a slice alone."""
    known = [
        (truth.slices[place].slice_index, position)
        for place in places
        if (position := truth.slices[place].slice_position_mm) is not None
    ]
    if len(known) < len(places) or len(known) < 2:
        return None
    indices, positions = np.array(sorted(known), np.float64).T
    steps = np.diff(indices)
    if (steps == 0).any():
        return None
    return float(np.median(np.abs(np.diff(positions)) / steps))


def _add_up(truth: Truth, values: Floats) -> Floats:
    """Add up ``(slices, categories)`` over the slices of each series."""
    sums = np.zeros((len(truth.series), values.shape[1]))
    np.add.at(sums, truth.series_of_slice, values)
    return sums
