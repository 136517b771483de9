"""What all lesions of a category amount to: volumes, their range over score thresholds, and the CT severity score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion, shared_voxels
from lung_d2.lesions.link import LinkSettings, link_lesions
from lung_d2.lesions.lobes import LobeField, LungLabels, Occupancy, Patch, Surroundings, build_surroundings

ANY = "any"
"""The key of the total of all categories."""
_THRESHOLDS = ("min_detection_score", "min_lesion_score")


@dataclass(frozen=True)
class Total(Occupancy):
    """What lesions occupy together; a voxel that several share counts once.

    Attributes:
        lesion_count: Number of lesions.
    """

    lesion_count: int


def measure_totals(
    lesions: Sequence[Lesion],
    volume: CTVolume,
    lungs: LungLabels | None = None,
    lobes: LobeField | None = None,
    categories: Categories = CATEGORIES,
) -> dict[str, Total]:
    """Measure what the lesions of each category occupy together.

    Args:
        lesions: Those of the volume; may be none.
        volume: The volume on which they were found.
        lungs: Where the lungs are.
        lobes: Where the lobes are.
        categories: The categories of the model.

    Returns:
        The total of each category by its name, and under ``any`` that of all lesions, where bronchiectasis inside
        ground glass counts once.

    Raises:
        GeometryError: Lungs or lobes are not on the grid of the volume.
    """
    around = build_surroundings(volume, lungs, lobes)
    groups = {category.name: [lesion for lesion in lesions if lesion.category == category] for category in categories}
    totals = {}
    for name, group in {**groups, ANY: list(lesions)}.items():
        taken = around.occupancy(unite_lesions(group, volume))
        totals[name] = Total(**vars(taken), lesion_count=len(group))
    return totals


def unite_lesions(lesions: Sequence[Lesion], volume: CTVolume) -> Iterator[Patch]:
    """Yield the union of lesions slice by slice, for :meth:`Surroundings.occupancy`."""
    rows, columns = volume.hu.shape[1:]
    for index in sorted({index for lesion in lesions for index in lesion.slice_indices}):
        union = np.zeros((rows, columns), bool)
        for lesion in lesions:
            if index in lesion.slice_indices:
                union[lesion.box[1:]] |= lesion.mask[index - lesion.offset_zyx[0]]
        yield index, (slice(0, rows), slice(0, columns)), union


@dataclass(frozen=True)
class LobeScore:
    """The score of a lobe.

    Attributes:
        lobe: Of :data:`lung_d2.lesions.lobes.LOBES`.
        score: 0 to 5; None where the volume has no such lobe.
    """

    lobe: str
    score: int | None


@dataclass(frozen=True)
class SeverityScore:
    """The CT severity score.

    Attributes:
        total: Sum of the five lobes, 0 to 25; None if one is missing.
        lobes: Scores of the lobes; empty without lobes.
    """

    total: int | None
    lobes: tuple[LobeScore, ...]


def score_severity(taken: Occupancy) -> SeverityScore:
    """Score how much of each lobe is involved.

    Each lobe counts 0 where it is free, 1 below 5 %, 2 to 25 %, 3 below 50 %, 4 to 75 %, and 5 above: Pan et al., Time
    course of lung changes at chest CT during recovery from coronavirus disease 2019 (COVID-19), Radiology 2020;
    295:715-721, after Chang et al., Radiology 2005;236:1067-1075. There a radiologist estimates the area by eye; here
    the involvement is the share of the lobe's volume. The published classes (5 to 25, 26 to 49, 50 to 75) leave gaps,
    which belong here to the class above 25 % and below 50 %.

    Args:
        taken: What lesions occupy of the lobes: the total of ``ground_glass_opacity``, see :func:`measure_totals`. The
            score is one of opacities; dilated bronchi do not count.

    Returns:
        The score; without lobes it is empty.
    """
    lobes = tuple(
        LobeScore(share.lobe, None if share.share_percent is None else score_lobe(share.share_percent))
        for share in taken.lobes
    )
    scores = [lobe.score for lobe in lobes if lobe.score is not None]
    complete = bool(lobes) and len(scores) == len(lobes)
    return SeverityScore(sum(scores) if complete else None, lobes)


def score_lobe(share_percent: float) -> int:
    """Return the score of a lobe, 0 to 5, from the share of it that is involved, 0 to 100 %."""
    if share_percent <= 0:
        return 0
    if share_percent < 5:
        return 1
    if share_percent <= 25:
        return 2
    if share_percent < 50:
        return 3
    return 4 if share_percent <= 75 else 5


@dataclass(frozen=True)
class VolumeRange:
    """A volume at two score thresholds around the one used.

    Attributes:
        lower_score: The lower threshold, 0..1.
        upper_score: The upper threshold, 0..1.
        lower_score_ml: Volume at the lower threshold, which finds more.
        upper_score_ml: Volume at the upper threshold; 0 if nothing is left.
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
        categories: By name of the category: the union of its lesions.
    """

    lesions: dict[int, VolumeRange]
    categories: dict[str, VolumeRange]


def measure_volume_ranges(
    lesions: Sequence[Lesion],
    detections: Sequence[SliceDetections],
    volume: CTVolume,
    settings: LinkSettings | None = None,
    step: float = 0.1,
    categories: Categories = CATEGORIES,
) -> VolumeRanges:
    """Link the detections again with both score thresholds a step lower, and a step higher, and measure the volumes.

    ``min_detection_score`` and ``min_lesion_score`` move together, and stay in 0..1. Each lesion found at another
    threshold is assigned to the lesion of its category with which it shares most voxels (the first of equals), and a
    lesion's volume at that threshold is that of all lesions assigned to it. A lesion that splits at the upper threshold
    has the sum of its parts; of two that merge at the lower threshold, one has the volume of both and the other 0 ml.
    The lower threshold finds more only if ``detections`` contain scores down to it.

    Args:
        lesions: Those of the thresholds of ``settings``.
        detections: What they were linked from, those below the threshold included.
        volume: Their volume.
        settings: How they were linked.
        step: How far the thresholds move.
        categories: The categories of the model.
    """
    settings = settings or LinkSettings()
    around = build_surroundings(volume)
    lower, upper = _shift(settings, -step), _shift(settings, step)
    scores = lower.min_detection_score, upper.min_detection_score
    # One after the other: the masks of both need not be in memory at once.
    below, above = (_measure_at(other, lesions, detections, around, categories) for other in (lower, upper))
    return VolumeRanges(
        lesions={number: VolumeRange(*scores, ml, above[0][number]) for number, ml in below[0].items()},
        categories={name: VolumeRange(*scores, ml, above[1][name]) for name, ml in below[1].items()},
    )


def _measure_at(
    settings: LinkSettings,
    lesions: Sequence[Lesion],
    detections: Sequence[SliceDetections],
    around: Surroundings,
    categories: Categories,
) -> tuple[dict[int, float], dict[str, float]]:
    """Return the volumes of the lesions, by number, and of the categories, by name, with other settings."""
    others = link_lesions(detections, around.volume, settings, categories)
    parts = {category.name: [other for other in others if other.category == category] for category in categories}
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
