"""Regions of slices chained over the slices of a series: the lesions of a series, and its false alarms.

Two regions of one slice, or of neighbouring slices, belong together where they share a pixel and at least
:data:`lung_d2.lesions.link.LinkSettings.min_overlap` of the smaller, as when detections become lesions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lung_d2.evaluation.truth import Ints
from lung_d2.lesions.link import LinkSettings

_MIN_OVERLAP = LinkSettings.min_overlap


def chain_regions(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]]) -> Ints:
    """Return the chain of each region of a series, int64 ``(N,)``, numbered from 0.

    Args:
        slice_indices: Of each region, along the normal.
        masks: Its compressed RLE.
    """
    chains = _Chains(len(masks))
    for one, other in _links(slice_indices, masks):
        chains.join(one, other)
    roots = [chains.root(region) for region in range(len(masks))]
    return np.unique(np.array(roots, np.int64), return_inverse=True)[1].reshape(-1).astype(np.int64)


def chain_scores(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[float]:
    """Return the scores at which the number of chains of a series rises, falling.

    With the score lowered from 1, regions appear one by one and form chains; so many of the scores returned as are at
    or above a threshold is how many chains there were at that threshold, or at a higher one if there they were more:
    regions of low scores that bridge all others make no false alarm undone.
    """
    chains, shown = _Chains(len(masks)), np.zeros(len(masks), bool)
    neighbours: dict[int, list[int]] = defaultdict(list)
    for one, other in _links(slice_indices, masks):
        neighbours[one].append(other)
        neighbours[other].append(one)
    count, most, rises = 0, 0, []
    order = sorted(range(len(masks)), key=lambda region: -scores[region])
    for place, region in enumerate(order):
        shown[region] = True
        count += 1 - sum(chains.join(region, other) for other in neighbours[region] if shown[other])
        is_last_of_score = place + 1 == len(order) or scores[order[place + 1]] < scores[region]
        if is_last_of_score and count > most:
            rises += [float(scores[region])] * (count - most)
            most = count
    return rises


def _links(slice_indices: Sequence[int], masks: Sequence[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    on_slice: dict[int, list[int]] = defaultdict(list)
    for region, index in enumerate(slice_indices):
        on_slice[index].append(region)
    areas = [int(coco_mask.area(mask)) for mask in masks]  # of a list, pycocotools fails from 256 masks on
    for index, own in on_slice.items():
        for others in (own, on_slice.get(index + 1, [])):
            if not others:
                continue
            # For a crowd, pycocotools gives the share of the first that is inside the second.
            shares = coco_mask.iou([masks[one] for one in own], [masks[one] for one in others], [1] * len(others))
            for row, column in zip(*np.nonzero(shares), strict=True):
                one, other = own[row], others[column]
                shared = float(shares[row, column]) * areas[one]
                if one != other and shared >= _MIN_OVERLAP * min(areas[one], areas[other]) - 1e-6:
                    yield one, other


class _Chains:
    """Sets of regions that grow together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, region: int) -> int:
        while self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return region

    def join(self, one: int, other: int) -> bool:
        """Join two sets; say whether they were two."""
        first, second = self.root(one), self.root(other)
        self._parents[second] = first
        return first != second
