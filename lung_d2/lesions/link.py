"""From detections of slices to lesions in 3-D."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import ConfigError
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion, slice_bounds_mm, slice_thickness_mm, voxel_volumes_ml
from lung_d2.lesions.regions import Regions, collect_regions
from lung_d2.lesions.tracks import GAP_SLACK_MM, Reach, build_tracks, drop_duplicates, join_branches

SCORE_RULES = ("max", "mean")


@dataclass(frozen=True)
class LinkSettings:
    """How detections become lesions.

    Attributes:
        min_detection_score: Detections of a lower score are left out, 0..1.
        min_lesion_score: Lesions of a lower score are left out, 0..1.
        min_overlap: Two detections of one slice, or of neighbouring slices, belong to one lesion where they share at
            least this share of the smaller, 0..1. In addition, each detection continues the one on the next slice
            that it overlaps most, even by a single pixel.
        max_gap_mm: A lesion may be missed on slices that together represent at most this many mm of tissue; 0: on
            none. The default allows one slice of 5 mm, or five of 1 mm. Missed slices are not filled: they are empty
            in the mask and count in no measure.
        max_covered: A detection is a duplicate if lesions of its category with a higher score cover at least this
            share of it, 0..1 (3-D non-maximum suppression).
        min_volume_mm3: Smaller lesions are left out. The default is a ball of 3 mm, below which the Fleischner Society
            speaks of micronodules (Hansell et al., Radiology 2008;246:697-722).
        min_extent_mm: Lesions are left out whose slices together represent less than this along the normal; 0: none.
            A vessel that is cut on one thin slice alone looks like many a lesion. What is wider than this in a slice
            reaches as far across the slices, unless it is flat.
        score_rule: Score of a lesion: ``max``, the highest of its slices, or ``mean``, the mean over its slices,
            weighted by area. The score of a slice is the highest of its detections.

    Raises:
        ConfigError: A value is out of bounds.
    """

    min_detection_score: float = 0.5
    min_lesion_score: float = 0.5
    min_overlap: float = 0.1
    max_gap_mm: float = 5.0
    max_covered: float = 0.5
    min_volume_mm3: float = 14.0
    min_extent_mm: float = 0.0
    score_rule: str = "max"

    def __post_init__(self) -> None:
        tops = dict.fromkeys(("max_gap_mm", "min_volume_mm3", "min_extent_mm"), np.inf)
        for item in fields(self):
            value, top = getattr(self, item.name), tops.get(item.name, 1.0)
            if item.name == "score_rule":
                fits, expected = value in SCORE_RULES, " or ".join(SCORE_RULES)
            else:
                fits, expected = 0 <= value <= top, "0 or more" if top == np.inf else "0 to 1"
            if not fits:
                raise ConfigError(item.name, found=repr(value), expected=expected, remedy="correct it")


def link_lesions(
    detections: Sequence[SliceDetections],
    volume: CTVolume,
    settings: LinkSettings | None = None,
    categories: Categories = CATEGORIES,
) -> list[Lesion]:
    """Link the detections of all slices to lesions.

    Categories neither merge nor suppress each other: bronchi dilated by traction lie inside ground glass. Overlap is
    measured along the normal of the slices, so that a tilted gantry makes no difference.

    Args:
        detections: Of the volume's slices, in any order; the result does not depend on it.
        volume: Their volume.
        settings: How they are linked.
        categories: The categories of the model.

    Returns:
        The lesions, numbered from 1: by category, then falling volume, falling score, and place.

    Raises:
        InputError: A detection is not of this volume.
        DatasetError: A category is unknown.
    """
    settings = settings or LinkSettings()
    found = collect_regions(detections, volume, settings.min_detection_score, categories)
    voxel_mm3, thickness_mm = 1000.0 * voxel_volumes_ml(volume), slice_thickness_mm(volume)
    ranked = []
    for category, regions in found.items():
        for members in _group(regions, volume, settings):
            lesion = _build_lesion(category, regions, members, settings.score_rule)
            mm3 = sum(
                area * float(voxel_mm3[index])
                for area, index in zip(lesion.slice_areas_px, lesion.slice_indices, strict=True)
            )
            extent_mm = float(thickness_mm[list(lesion.slice_indices)].sum())
            if extent_mm < settings.min_extent_mm - GAP_SLACK_MM:
                continue
            # Compared as float32, which scores are: 0.7 of a model is 0.69999999 as a float.
            if mm3 >= settings.min_volume_mm3 and np.float32(lesion.score) >= settings.min_lesion_score:
                ranked.append(((category.coco_id, -mm3, -lesion.score, lesion.offset_zyx), lesion))
    ranked.sort(key=lambda pair: pair[0])
    return [replace(lesion, number=number) for number, (_, lesion) in enumerate(ranked, start=1)]


def _group(regions: Regions, volume: CTVolume, settings: LinkSettings) -> list[tuple[int, ...]]:
    """Return for each lesion of a category the indices of its regions."""
    reach = Reach(slice_bounds_mm(volume), settings.max_gap_mm)
    tracks = build_tracks(regions, reach, settings.min_overlap)
    scores = [_score(*_slice_scores(regions, track), settings.score_rule) for track in tracks]
    kept = drop_duplicates(tracks, scores, regions, slice_thickness_mm(volume), settings.max_covered)
    return join_branches(kept, regions, reach, settings.min_overlap)


def _slice_scores(regions: Regions, members: Iterable[int]) -> tuple[dict[int, float], dict[int, int]]:
    """Return by slice the highest score of its regions, and their area in pixels."""
    scores: dict[int, float] = {}
    areas: dict[int, int] = {}
    for region in members:
        index = int(regions.slice_indices[region])
        scores[index] = max(scores.get(index, 0.0), float(regions.scores[region]))
        areas[index] = areas.get(index, 0) + int(regions.areas[region])
    return scores, areas


def _score(scores: dict[int, float], areas: dict[int, int], rule: str) -> float:
    if rule == "max":
        return max(scores.values())
    return sum(scores[index] * area for index, area in areas.items()) / sum(areas.values())


def _build_lesion(category: Category, regions: Regions, members: Sequence[int], rule: str) -> Lesion:
    chosen = list(members)
    indices, boxes = regions.slice_indices[chosen], regions.boxes[chosen]
    first, (top, left), (bottom, right) = int(indices[0]), boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    mask = np.zeros((int(indices[-1]) - first + 1, bottom - top, right - left), bool)
    for region, index, box in zip(chosen, indices, boxes - np.array([top, left, top, left]), strict=True):
        mask[index - first, box[0] : box[2], box[1] : box[3]] |= regions.mask(region)
    scores, _ = _slice_scores(regions, chosen)
    areas = {index: int(np.count_nonzero(mask[index - first])) for index in scores}
    return Lesion(
        number=1,
        category=category,
        score=_score(scores, areas, rule),
        mask=mask,
        offset_zyx=(first, int(top), int(left)),
        slice_indices=tuple(scores),
        slice_scores=tuple(scores.values()),
    )
