"""Tracks: detections followed from slice to slice, without duplicates, and joined where they branch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lung_d2.lesions.regions import Ints, Regions

Track = tuple[int, ...]
"""Indices of regions on ascending slices, at most one a slice."""

GAP_SLACK_MM = 0.05
"""Positions are rounded in headers: a gap of 5.0004 mm is one of 5 mm."""


@dataclass(frozen=True, eq=False)
class Reach:
    """How far a lesion is followed across slices that missed it.

    Attributes:
        bounds_mm: float64 ``[Z + 1]``, from :func:`lung_d2.lesions.lesion.slice_bounds_mm`.
        max_gap_mm: The most tissue, in mm along the normal, that the missed slices may represent.
    """

    bounds_mm: npt.NDArray[np.float64]
    max_gap_mm: float

    def joins(self, lower: int, upper: int) -> bool:
        """Return whether a lesion may continue from one slice to another; to the next slice it always may."""
        missed_mm = float(self.bounds_mm[upper] - self.bounds_mm[lower + 1])
        return upper == lower + 1 or missed_mm <= self.max_gap_mm + GAP_SLACK_MM

    def beyond(self, index: int, step: int) -> Iterator[int]:
        """Yield the slices within reach of one, nearest first, upward (``step`` 1) or downward (-1)."""
        other = index + step
        while 0 <= other < len(self.bounds_mm) - 1 and self.joins(min(index, other), max(index, other)):
            yield other
            other += step


def build_tracks(regions: Regions, reach: Reach, min_overlap: float) -> list[Track]:
    """Follow each region to at most one region of a slice above it.

    On neighbouring slices one shared pixel suffices, because the pair that overlaps most is taken first. Across a
    missed slice ``min_overlap`` is required.

    Args:
        regions: Of one category.
        reach: How many slices may be missed.
        min_overlap: Least share of the smaller region that both cover across a missed slice.

    Returns:
        Every region in exactly one track.
    """
    tracks: list[list[int]] = []
    active: list[list[int]] = []
    for slice_index in np.unique(regions.slice_indices).tolist():
        here = np.flatnonzero(regions.slice_indices == slice_index)
        active = [track for track in active if reach.joins(int(regions.slice_indices[track[-1]]), slice_index)]
        taken: set[int] = set()
        extended: set[int] = set()
        for *_, number, region in _rank_pairs(regions, active, here, slice_index, min_overlap):
            if number not in extended and region not in taken:
                active[number].append(region)
                extended.add(number)
                taken.add(region)
        started = [[region] for region in here.tolist() if region not in taken]
        tracks += started
        active += started
    return [tuple(track) for track in tracks]


def _rank_pairs(
    regions: Regions, active: list[list[int]], here: Ints, slice_index: int, min_overlap: float
) -> list[tuple[int, float, int, int]]:
    """Return missed slices, negative intersection over union, number of the track, and region; best first."""
    pairs = []
    for number, track in enumerate(active):
        last = track[-1]
        missed = slice_index - int(regions.slice_indices[last]) - 1
        for region in regions.meeting(last, here).tolist():
            shared = regions.shared_area(last, [region])
            areas = int(regions.areas[last]), int(regions.areas[region])
            if shared and (not missed or shared >= min_overlap * min(areas)):
                pairs.append((missed, -shared / (sum(areas) - shared), number, region))
    return sorted(pairs)


def drop_duplicates(
    tracks: Sequence[Track],
    scores: Sequence[float],
    regions: Regions,
    thickness_mm: npt.NDArray[np.float64],
    max_covered: float,
) -> list[Track]:
    """Suppress the regions that tracks of a higher score cover.

    Tracks are ranked as a whole, so that of two nested tracks the same one is kept on all slices. Only covered regions
    are dropped, so that a track keeps the slices on which no other track lies.

    Args:
        tracks: Of one category.
        scores: The score of each track; of tracks with the same score the larger goes first.
        regions: The regions that the tracks index.
        thickness_mm: float64 ``[Z]``, see :func:`lung_d2.lesions.lesion.slice_thickness_mm`.
        max_covered: A region is dropped if tracks with a higher score cover at least this share of its area.

    Returns:
        The tracks that remain, by falling score.
    """
    weights = regions.areas * thickness_mm[regions.slice_indices]
    volumes = [float(weights[list(track)].sum()) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda number: (-scores[number], -volumes[number], tracks[number]))
    kept_on: dict[int, list[int]] = defaultdict(list)
    kept = []
    for number in order:
        track = []
        for region in tracks[number]:  # of which no two lie on one slice
            rivals = kept_on[int(regions.slice_indices[region])]
            shared = regions.shared_area(region, rivals)
            if not shared or shared < max_covered * int(regions.areas[region]):
                track.append(region)
                rivals.append(region)
        kept += [tuple(track)] if track else []
    return kept


def join_branches(tracks: Sequence[Track], regions: Regions, reach: Reach, min_overlap: float) -> list[Track]:
    """Join the tracks of one lesion, which overlap on a slice, split, or merge.

    A region is compared with the regions of its own slice, and with those of the nearest slice above and below that
    has a region of the same lesion.

    Args:
        tracks: Of one category.
        regions: The regions that they index.
        reach: How many slices may be missed.
        min_overlap: Least share of the smaller region that two regions of one lesion share.

    Returns:
        For each lesion the indices of its regions, ascending; more than one may lie on a slice.
    """
    if not tracks:
        return []
    track_of = {region: number for number, track in enumerate(tracks) for region in track}
    on_slice: dict[int, list[int]] = defaultdict(list)
    for region in sorted(track_of):
        on_slice[int(regions.slice_indices[region])].append(region)

    def belonging(region: int, slice_index: int) -> set[int]:
        rivals = regions.meeting(region, np.array(on_slice.get(slice_index, []), np.int64)).tolist()
        own = track_of[region]
        return {
            track_of[rival] for rival in rivals if track_of[rival] == own or regions.overlap(region, rival, min_overlap)
        }

    edges: list[tuple[int, int]] = []
    for region, number in track_of.items():
        index = int(regions.slice_indices[region])
        for slices in ([index], reach.beyond(index, 1), reach.beyond(index, -1)):
            nearest = next(filter(None, (belonging(region, other) for other in slices)), set())
            edges += [(number, other) for other in nearest]
    graph = coo_array((np.ones(len(edges)), np.array(edges).T), shape=(len(tracks), len(tracks)))
    count, labels = connected_components(graph, directed=False)
    members: list[list[int]] = [[] for _ in range(count)]
    for track, label in zip(tracks, labels.tolist(), strict=True):
        members[label] += track
    return [tuple(sorted(group)) for group in members]
