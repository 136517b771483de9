"""What a data set holds, counted and measured, and what looks wrong in it: its ``report.json``.

::

    schema_version, name
    splits        SPLIT: patients, series, slices (of them with_lesions, lesion_free, undecided_only), left_out by
                  selection, specks, grey_series (without HU), categories: NAME: patients, slices, lesions, undecided
    lesions       CATEGORY: area_mm2, area_px, mean_hu, contrast_hu: a histogram of the lesions of each slice
    geometry      pixel_mm, slice_mm: histograms over series; matrix: series by "rows x columns"
    slices_per_patient   a histogram
    selection     split, seed, slices, kept, undecided_only; rules: name, option, meaning, default, value, removed,
                  unknown
    leaks         count, by kind; examples
    suspicions    its warnings: kind, title, unit, count, explanation, remedy; examples: file_name, split, note

A histogram holds ``edges`` (counts[k] is of edges[k] <= value < edges[k + 1]), ``counts`` by split, ``below`` and
``above`` the edges, ``unknown``, and ``quantiles`` 5, 25, 50, 75 and 95 % of all splits together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lung_d2.categories import CATEGORIES, Categories, Category
from lung_d2.data.quality.leaks import Leak
from lung_d2.data.quality.warnings import (
    MAX_EXAMPLES,
    DatasetWarning,
    Series,
    find_warnings,
    group_series,
    slice_distances_mm,
)
from lung_d2.data.selection import TRAIN, Choice, Record, has_lesion, is_lesion_free

SCHEMA_VERSION = 1
_QUANTILES = (5, 25, 50, 75, 95)
# Areas and counts span orders of magnitude: three bins for each factor of ten, about.
_AREA_EDGES = (0, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
_SLICE_COUNT_EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
_LESION_EDGES: dict[str, tuple[float, ...]] = {
    "area_mm2": _AREA_EDGES,
    "area_px": _AREA_EDGES,
    "mean_hu": tuple(range(-1000, 201, 50)),
    "contrast_hu": tuple(range(0, 1001, 50)),
}
_PIXEL_EDGES = (*(step / 20 for step in range(6, 20)), *(step / 10 for step in range(10, 20)), 2, 2.5)
_SLICE_EDGES = (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)

Splits = Mapping[str, Sequence[Record]]


def build_summary(
    name: str,
    splits: Splits,
    kept: Splits,
    choice: Choice,
    leaks: Sequence[Leak],
    categories: Categories = CATEGORIES,
) -> dict[str, Any]:
    """Build the report of a data set.

    Args:
        name: Name of the data set.
        splits: All imported records of each split.
        kept: Those that are in the data set.
        choice: What selection made of the training split.
        leaks: What is in two splits, where that was allowed.
        categories: Of the data set.

    Returns:
        The report, ready for JSON; see the module. Counts and histograms of lesions are of what is in the data set,
        geometry and warnings of all that was imported.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "splits": {split: _count_split(records, splits[split], categories) for split, records in kept.items()},
        "lesions": {
            category.name: {fact: _lesion_histogram(kept, category, fact) for fact in _LESION_EDGES}
            for category in categories
        },
        "geometry": _describe_geometry(splits),
        "slices_per_patient": build_histogram(
            {split: Counter(record["patient"] for record in records).values() for split, records in kept.items()},
            _SLICE_COUNT_EDGES,
        ),
        "selection": _describe_selection(choice, len(splits.get(TRAIN, ()))),
        "leaks": {
            "count": len(leaks),
            "kinds": Counter(leak.kind for leak in leaks),
            "examples": [asdict(leak) for leak in leaks[:MAX_EXAMPLES]],
        },
        "suspicions": [_describe_warning(warning) for warning in find_warnings(splits)],
    }


def _describe_warning(warning: DatasetWarning) -> dict[str, Any]:
    content = asdict(warning)
    return content | {"explanation": content.pop("text")}


def build_histogram(values: Mapping[str, Iterable[float | None]], edges: Sequence[float]) -> dict[str, Any]:
    """Count values in bins.

    Args:
        values: The values of each split; None is unknown.
        edges: Of the bins, ascending.

    Returns:
        The histogram; see the module.
    """
    listed = {split: list(members) for split, members in values.items()}
    known = {split: np.array([value for value in members if value is not None]) for split, members in listed.items()}
    together = np.concatenate([*known.values(), np.empty(0)])
    # The last bin of numpy holds its upper edge as well; an edge above all keeps the bins alike.
    bins = np.array([*edges, np.inf])
    return {
        "edges": list(edges),
        "counts": {split: np.histogram(members, bins)[0][:-1].tolist() for split, members in known.items()},
        "below": int(np.count_nonzero(together < edges[0])),
        "above": int(np.count_nonzero(together >= edges[-1])),
        "unknown": sum(value is None for members in listed.values() for value in members),
        "quantiles": np.percentile(together, _QUANTILES).round(3).tolist() if len(together) else None,
    }


def _count_split(records: Sequence[Record], imported: Sequence[Record], categories: Categories) -> dict[str, Any]:
    with_lesions, free = sum(map(has_lesion, records)), sum(map(is_lesion_free, records))
    series = {record["series"]: record["hu"] for record in records}
    return {
        "patients": len({record["patient"] for record in records}),
        "series": len(series),
        "grey_series": sum(not is_hu for is_hu in series.values()),
        "slices": len(records),
        "with_lesions": with_lesions,
        "lesion_free": free,
        "undecided_only": len(records) - with_lesions - free,
        "left_out": len(imported) - len(records),
        "specks": sum(record["facts"]["specks"] for record in records),
        "categories": {category.name: _count_category(records, category) for category in categories},
    }


def _count_category(records: Sequence[Record], category: Category) -> dict[str, int]:
    lesions, undecided, slices, patients = 0, 0, 0, set()
    for record in records:
        mine = [one["iscrowd"] for one in record["annotations"] if one["category_id"] == category.coco_id]
        undecided += sum(mine)
        if not all(mine):
            lesions += len(mine) - sum(mine)
            slices += 1
            patients.add(record["patient"])
    return {"patients": len(patients), "slices": slices, "lesions": lesions, "undecided": undecided}


def _lesion_histogram(kept: Splits, category: Category, fact: str) -> dict[str, Any]:
    values = {
        split: [
            lesion[fact]
            for record in records
            for lesion in record["facts"]["instances"]
            if lesion["category_id"] == category.coco_id
        ]
        for split, records in kept.items()
    }
    return build_histogram(values, _LESION_EDGES[fact])


def _describe_geometry(splits: Splits) -> dict[str, Any]:
    series = group_series(splits)  # whole ones: what is left out would look like gaps

    def histogram(measure: Callable[[Series], float | None], edges: Sequence[float]) -> dict[str, Any]:
        return build_histogram(
            {split: [measure(one) for one in series if one.split == split] for split in splits}, edges
        )

    sizes = Counter("{height} x {width}".format_map(one.records[0]) for one in series)
    return {
        "pixel_mm": histogram(_pixel_mm, _PIXEL_EDGES),
        "slice_mm": histogram(_slice_mm, _SLICE_EDGES),
        "matrix": dict(sizes.most_common()),
    }


def _pixel_mm(series: Series) -> float | None:
    spacing = series.records[0]["pixel_spacing_mm"]
    return None if spacing is None else float(np.mean(spacing))


def _slice_mm(series: Series) -> float | None:
    distances = slice_distances_mm(series)
    return float(np.median(distances)) if len(distances) else None


def _describe_selection(choice: Choice, slices: int) -> dict[str, Any]:
    return {
        "split": TRAIN,
        "seed": choice.selection.seed,
        "slices": slices,
        "kept": len(choice.kept),
        "undecided_only": choice.undecided_only,
        "rules": [asdict(rule) for rule in choice.rules],
    }
