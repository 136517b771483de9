"""How far volumes hang on the score threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lung_d2.categories import CATEGORIES
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion, shared_voxels
from lung_d2.lesions.link import LinkSettings, link_lesions
from lung_d2.lesions.territories import Surroundings, build_surroundings
from lung_d2.lesions.totals import unite_lesions

_THRESHOLDS = ("min_detection_score", "min_lesion_score")


@dataclass(frozen=True)
class VolumeRange:
    """A volume at two score thresholds around the one used.

    Attributes:
        lower_score: The lower threshold, 0..1.
        upper_score: The upper threshold, 0..1.
        lower_score_ml: Volume at the lower threshold, which admits more.
        upper_score_ml: Volume at the upper threshold; 0 where nothing is left.
    """

    lower_score: float
    upper_score: float
    lower_score_ml: float
    upper_score_ml: float


@dataclass(frozen=True)
class VolumeRanges:
    """Ranges of a volume's lesions.

    Attributes:
        lesions: By number of the lesion.
        categories: By name of the category, all of them: the union of its lesions.
    """

    lesions: dict[int, VolumeRange]
    categories: dict[str, VolumeRange]


def measure_volume_ranges(
    lesions: Sequence[Lesion],
    detections: Sequence[SliceDetections],
    volume: CTVolume,
    settings: LinkSettings | None = None,
    step: float = 0.1,
) -> VolumeRanges:
    """Link again with both score thresholds lower, and higher, by a step, and measure what is found there.

    ``min_detection_score`` and ``min_lesion_score`` move together, and stay in 0..1. Each lesion found at another
    threshold falls to the one lesion of its category with which it shares most voxels, of equals to the first, and a
    lesion's volume there is that of all which fall to it: one that falls apart at the upper threshold has the sum of
    its parts; of two that run into one at the lower, one has the volume of both and the other 0 ml. So the lesions of
    a category never have more than the category together, but for voxels which lesions found there share.
    The lower threshold can find more only where ``detections`` reach down to it.

    Args:
        lesions: Those of the thresholds of ``settings``.
        detections: What they were linked from, not cut at the threshold.
        volume: Their volume.
        settings: How they were linked.
        step: How far the thresholds move.
    """
    settings = settings or LinkSettings()
    around = build_surroundings(volume)
    lower, upper = _shift(settings, -step), _shift(settings, step)
    scores = lower.min_detection_score, upper.min_detection_score
    # One after the other: the masks of both need not be held at once.
    below, above = (_measure_at(other, lesions, detections, around) for other in (lower, upper))
    return VolumeRanges(
        lesions={number: VolumeRange(*scores, ml, above[0][number]) for number, ml in below[0].items()},
        categories={name: VolumeRange(*scores, ml, above[1][name]) for name, ml in below[1].items()},
    )


def _measure_at(
    settings: LinkSettings, lesions: Sequence[Lesion], detections: Sequence[SliceDetections], around: Surroundings
) -> tuple[dict[int, float], dict[str, float]]:
    """Return the volumes of the lesions, by number, and of the categories, by name, with other settings."""
    others = link_lesions(detections, around.volume, settings)
    parts = {category.name: [other for other in others if other.category == category] for category in CATEGORIES}
    by_lesion: dict[int, list[Lesion]] = {lesion.number: [] for lesion in lesions}
    for other in others:
        shared = {one.number: shared_voxels(one, other) for one in lesions if one.category == other.category}
        if any(shared.values()):
            by_lesion[max(shared, key=shared.__getitem__)].append(other)
    return (
        {number: _union_ml(found, around) for number, found in by_lesion.items()},
        {name: _union_ml(found, around) for name, found in parts.items()},
    )


def _shift(settings: LinkSettings, step: float) -> LinkSettings:
    moved = {name: min(max(getattr(settings, name) + step, 0.0), 1.0) for name in _THRESHOLDS}
    return replace(settings, **moved)


def _union_ml(lesions: Sequence[Lesion], around: Surroundings) -> float:
    return around.occupancy(unite_lesions(lesions, around.volume)).volume_ml
