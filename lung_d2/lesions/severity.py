"""The CT severity score, 0 to 25, from the shares of the lobes."""

from __future__ import annotations

from dataclasses import dataclass

from lung_d2.lesions.territories import Occupancy


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
        total: Sum of the five lobes, 0 to 25; None where one is missing.
        lobes: Scores of the lobes; empty where lobes were not given.
    """

    total: int | None
    lobes: tuple[LobeScore, ...]


def score_severity(taken: Occupancy) -> SeverityScore:
    """Score how far the lobes are involved.

    Each lobe counts 0 where it is free, 1 below 5 %, 2 to 25 %, 3 below 50 %, 4 to 75 %, and 5 above: Pan et al., Time
    course of lung changes at chest CT during recovery from coronavirus disease 2019 (COVID-19), Radiology 2020;
    295:715-721, after Chang et al., Radiology 2005;236:1067-1075. There a radiologist judges the area by eye; here the
    involvement is the share of the lobe's volume. The published classes (5 to 25, 26 to 49, 50 to 75) leave gaps,
    which fall to the class above 25 % and below 50 %.

    Args:
        taken: What lesions take of the lobes: the ``ground_glass_opacity`` of
            :func:`lung_d2.lesions.totals.measure_totals`. The score is one of opacities; dilated bronchi do not count.

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
