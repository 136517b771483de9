"""Planted faults are found among what is right, and a clean cohort raises none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lung_d2.categories import GROUND_GLASS_OPACITY, category_by_name
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.instances import VALUES, InstanceRule, Region, annotate_volume
from lung_d2.data.quality.checks import MAX_EXAMPLES
from lung_d2.data.quality.suspicions import find_suspicions
from lung_d2.phantom import build_patient, preset_by_name
from records import build_records, draw_chest
from tiny import square

SIZE, SERIES, SLICES = 128, 8, 3
LESION = square(SIZE, 50, 30, 10)


def chest_slice(series: int, index: int) -> AnnotatedSlice:
    plane, lungs = draw_chest(SIZE, seed=100 * series + index)
    plane[LESION] = -450
    lesions = ((GROUND_GLASS_OPACITY, LESION),)
    return AnnotatedSlice(plane, lesions, index, (2.0, 2.0), 5.0 * index, lungs=lungs)


def kinds_of(change: Callable[[AnnotatedSlice], AnnotatedSlice]) -> dict[str, int]:
    """Return what is found, and how often, where the slices of one series of eight are changed."""
    records = []
    for series in range(SERIES):
        items = [chest_slice(series, index) for index in range(SLICES)]
        records += build_records([change(item) for item in items] if series == 5 else items, f"s{series}")
    return {found.kind: found.count for found in find_suspicions({"train": records})}


def test_chests_as_they_should_be_raise_nothing() -> None:
    assert kinds_of(lambda item: item) == {}


PLANTED: dict[str, tuple[Callable[[AnnotatedSlice], AnnotatedSlice], dict[str, int]]] = {
    "flipped": (
        lambda item: replace(
            item, plane=item.plane[::-1], lungs=item.lungs[::-1], instances=((GROUND_GLASS_OPACITY, LESION[::-1]),)
        ),
        {"turned": 1, "spine": 1},
    ),
    "mirrored": (
        lambda item: replace(
            item,
            plane=item.plane[:, ::-1],
            lungs=item.lungs[:, ::-1],
            instances=((GROUND_GLASS_OPACITY, LESION[:, ::-1]),),
        ),
        {"turned": 1},
    ),
    "not HU": (lambda item: replace(item, plane=(item.plane + 1024).astype(np.int16)), {"not_hu": 1}),
    "outside": (
        lambda item: replace(item, instances=((GROUND_GLASS_OPACITY, square(SIZE, 0, 0, 9)),)),
        {"outside_lung": 3},
    ),
    "inverted": (
        lambda item: replace(item, instances=((GROUND_GLASS_OPACITY, ~LESION),)),
        {"outside_lung": 3, "mask_everywhere": 3},
    ),
    "empty": (
        lambda item: replace(item, instances=((GROUND_GLASS_OPACITY, np.zeros_like(LESION)),)),
        {"empty_mask": 3, "no_lesion": 1},
    ),
    "tiny": (
        lambda item: replace(item, instances=(*item.instances, (GROUND_GLASS_OPACITY, square(SIZE, 70, 33, 1)))),
        {"tiny_parts": 3},
    ),
    "healthy": (lambda item: replace(item, instances=()), {"no_lesion": 1}),
    "no lung": (lambda item: replace(item, lungs=np.zeros_like(LESION)), {"no_lung_field": 1}),
    "copies": (lambda item: replace(item, plane=chest_slice(5, 0).plane), {"duplicate": 2}),
    "spacing": (lambda item: replace(item, pixel_spacing_mm=(20.0, 20.0)), {"spacing": 1}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found_and_nothing_else(fault: str) -> None:
    change, expected = PLANTED[fault]
    assert kinds_of(change) == expected


def test_blank_slice_is_found() -> None:
    blank = kinds_of(lambda item: replace(item, plane=np.full((SIZE, SIZE), -1000, np.int16)))
    assert blank["blank"] == 3


def test_examples_are_some_of_many_from_first_to_last() -> None:
    items = [replace(chest_slice(0, index), instances=((GROUND_GLASS_OPACITY, ~LESION),)) for index in range(20)]
    found = {one.kind: one for one in find_suspicions({"train": build_records(items, "s")})}
    examples = found["mask_everywhere"].examples
    assert found["mask_everywhere"].count == 20
    assert 1 < len(examples) <= MAX_EXAMPLES
    assert examples[0].file_name == "s/0000.png"
    assert examples[-1].file_name > "s/0014.png"


def test_every_suspicion_says_what_it_means_and_what_to_do() -> None:
    items = [replace(chest_slice(0, index), instances=()) for index in range(2)]
    for found in find_suspicions({"val": build_records(items, "s")}):
        assert found.title
        assert found.explanation.endswith(".")
        assert found.remedy.endswith(".")
        assert found.examples[0].split == "val"


@pytest.mark.slow
def test_clean_phantoms_raise_nothing() -> None:
    spec = replace(preset_by_name("mini"), matrix=(192, 192))  # its own 96 pixels are unusually large
    records = []
    for number in range(3):
        patient = build_patient(spec, number)

        def regions_of(index: int, maps: dict[str, np.ndarray] = patient.instances) -> list[Region]:
            return [
                Region(category_by_name(name), values[index] == value, f"{name} {value}")
                for name, values in maps.items()
                for value in np.unique(values[index])
                if value
            ]

        records += build_records(annotate_volume(patient.volume, regions_of, InstanceRule(VALUES)), f"s{number}")
    assert find_suspicions({"train": records}) == []
