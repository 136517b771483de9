"""The single checks, on planted faults and on what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.instances import VALUES, InstanceRule, Region, annotate_volume
from lung_d2.data.quality import warnings
from lung_d2.data.quality.warnings import MAX_EXAMPLES, Series, find_warnings, group_series
from lung_d2.phantom import build_patient, preset_by_name
from records import build_record, build_records, draw_chest
from tiny import square

SIZE = 128
LESION = square(SIZE, 50, 30, 10)


def chest_slice(index: int = 0, **changes) -> AnnotatedSlice:
    """Return a chest with a lesion in the lung on the left of the picture; the faults are the changes."""
    plane, lungs = draw_chest(SIZE, seed=index)
    plane[LESION] = -450
    item = AnnotatedSlice(
        plane=plane,
        instances=((GROUND_GLASS_OPACITY, LESION),),
        slice_index=index,
        pixel_spacing_mm=(2.0, 2.0),
        slice_position_mm=5.0 * index,
        lungs=lungs,
    )
    return replace(item, **changes)


def series_of(*items: AnnotatedSlice, name: str = "s") -> Series:
    return Series("train", build_records(items, name))


def with_plane(change) -> Series:
    """Return a series of four chests whose planes are changed."""
    items = [chest_slice(index) for index in range(4)]
    return series_of(*[replace(item, plane=change(item.plane)) for item in items])


RIGHT = series_of(*[chest_slice(index) for index in range(4)])


def test_right_series_raises_nothing() -> None:
    notes = (warnings.note_no_lesion, warnings.note_not_hu, warnings.note_odd_spacing, warnings.note_spine_aside)
    assert [note(RIGHT) for note in (*notes, warnings.note_no_lung_field)] == [""] * 5
    of_slices = (warnings.note_empty_mask, warnings.note_blank, warnings.note_mask_everywhere)
    for note in (*of_slices, warnings.note_tiny_parts):
        assert note(RIGHT.records[0]) == ""
    for find in (warnings.find_outside_lung, warnings.find_duplicates, warnings.find_turned):
        assert list(find([RIGHT])) == []


def test_series_are_grouped_by_split_in_order() -> None:
    records = [*build_records([chest_slice(0), chest_slice(1)], "b"), *build_records([chest_slice(2)], "a")]
    groups = group_series({"train": records, "val": build_records([chest_slice(3)], "c")})
    assert [(one.split, one.name, len(one.records)) for one in groups] == [
        ("train", "b", 2),
        ("train", "a", 1),
        ("val", "c", 1),
    ]
    assert groups[0].example("note").file_name == "b/0001.png"


def test_empty_mask() -> None:
    record = build_record(chest_slice(instances=((BRONCHIECTASIS, np.zeros((SIZE, SIZE), bool)),)))
    assert warnings.note_empty_mask(record) == "1 mask(s) without a pixel"


def test_blank_slice() -> None:
    assert warnings.note_blank(build_record(chest_slice(plane=np.full((SIZE, SIZE), -5, np.int16)))) == "-5 everywhere"


def test_inverted_mask() -> None:
    record = build_record(chest_slice(instances=((GROUND_GLASS_OPACITY, ~LESION),)))
    assert warnings.note_mask_everywhere(record) == "99% of the slice is lesion"


def test_tiny_parts() -> None:
    dotted = LESION | square(SIZE, 60, 45, 1) | square(SIZE, 70, 33, 1)
    record = build_record(chest_slice(instances=((GROUND_GLASS_OPACITY, dotted),)))
    assert warnings.note_tiny_parts(record) == "2 part(s) of fewer than 4 pixels"


def test_lesion_outside_the_lung() -> None:
    lesions = ((GROUND_GLASS_OPACITY, LESION), (BRONCHIECTASIS, square(SIZE, 0, 0, 8)))
    found = list(warnings.find_outside_lung([series_of(chest_slice(instances=lesions))]))
    assert [example.note for example in found] == ["1 of 2 lesions; of one (bronchiectasis) 0% is in the lung"]


def test_lesions_are_not_outside_a_lung_that_was_not_found() -> None:
    nothing = np.zeros((SIZE, SIZE), bool)
    series = series_of(chest_slice(lungs=nothing))
    assert list(warnings.find_outside_lung([series])) == []
    assert warnings.note_no_lung_field(series) == "0 pixels of lung on the slice with most"


def test_lung_that_nobody_looked_for_is_not_missed() -> None:
    assert warnings.note_no_lung_field(series_of(chest_slice(lungs=None))) == ""


def test_series_without_lesions() -> None:
    series = series_of(chest_slice(0, instances=()), chest_slice(1, instances=()))
    assert warnings.note_no_lesion(series) == "2 slices"


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda plane: (np.clip((plane + 1000) // 6, 0, 255)).astype(np.int16), "as of 8-bit pictures"),
        (lambda plane: (plane + 1024).astype(np.int16), "0.0% of them air or lung"),
        (lambda plane: (plane // 1000).astype(np.int16), "0.0% of them air or lung"),
        (lambda plane: (plane - 1024).astype(np.int16), "below -1100 HU"),
        (lambda plane: np.minimum(plane, -300).astype(np.int16), "0.00% denser than fat"),
    ],
    ids=["8 bits", "no intercept", "scaled down", "intercept twice", "no tissue"],
)
def test_values_that_are_no_hu(change, note: str) -> None:
    assert note in warnings.note_not_hu(with_plane(change))


def test_padding_below_air_is_no_fault() -> None:
    def pad(plane: np.ndarray) -> np.ndarray:
        padded = plane.copy()
        padded[:20] = -3024
        return padded

    assert warnings.note_not_hu(with_plane(pad)) == ""


def test_grey_pictures_need_not_be_hu() -> None:
    assert warnings.note_not_hu(with_plane(lambda plane: np.clip(plane // 8 + 125, 0, 255).astype(np.uint8))) == ""


@pytest.mark.parametrize(
    ("spacing", "note"),
    [
        ((0.05, 0.05), "pixels of 0.05 x 0.05 mm"),
        ((7.0, 7.0), "pixels of 7 x 7 mm"),
        ((0.7, 1.0), "pixels that are not square, 0.7 x 1 mm"),
        (None, ""),
    ],
)
def test_odd_pixels(spacing: tuple[float, float] | None, note: str) -> None:
    assert warnings.note_odd_spacing(series_of(chest_slice(pixel_spacing_mm=spacing))) == note


@pytest.mark.parametrize(
    ("positions", "note"),
    [
        ((0.0, 0.1, 0.2), "slices 0.1 mm apart"),
        ((0.0, 40.0, 80.0), "slices 40 mm apart"),
        ((0.0, 5.0, 10.0, 20.0), "slices 5 to 10 mm apart"),
        ((0.0, -5.0, -10.0), ""),
        ((None, None), ""),
    ],
)
def test_odd_distances_of_slices(positions: tuple[float | None, ...], note: str) -> None:
    items = [chest_slice(index, slice_position_mm=position) for index, position in enumerate(positions)]
    assert warnings.note_odd_spacing(series_of(*items)) == note


def test_single_slices_have_no_distances() -> None:
    items = [chest_slice(0), chest_slice(1, slice_position_mm=300.0)]
    records = [build_record(item, neighbours=False) for item in items]
    assert warnings.note_odd_spacing(Series("train", records)) == ""


def test_copies_within_a_split_are_found_and_between_splits_left_to_the_leak_check() -> None:
    first, other = series_of(chest_slice(0), chest_slice(1)), series_of(chest_slice(1), name="t")
    assert [(one.file_name, one.note) for one in warnings.find_duplicates([first, other])] == [
        ("t/0001.png", "equal to s/0001.png")
    ]
    assert list(warnings.find_duplicates([first, replace(other, split="val")])) == []


def test_blank_slices_are_no_copies() -> None:
    blank = np.zeros((SIZE, SIZE), np.int16)
    assert list(warnings.find_duplicates([series_of(chest_slice(0, plane=blank), chest_slice(1, plane=blank))])) == []


def test_turned_series_is_named() -> None:
    several = [
        series_of(*[chest_slice(index + 10 * number) for index in range(2)], name=f"s{number}") for number in range(4)
    ]
    flipped = [replace(item, plane=item.plane[::-1]) for item in (chest_slice(50), chest_slice(51))]
    found = list(warnings.find_turned([*several, series_of(*flipped, name="flipped")]))
    assert [(one.file_name, one.note) for one in found] == [
        ("flipped/0051.png", "like the others when mirrored top to bottom")
    ]


@pytest.mark.parametrize(
    ("turns", "note"),
    [(1, "the spine is at the right"), (2, "the spine is at the top"), (3, "the spine is at the left")],
)
def test_spine_aside(turns: int, note: str) -> None:
    assert warnings.note_spine_aside(with_plane(lambda plane: np.rot90(plane, turns))) == note


BIG, SERIES, SLICES = 128, 8, 3


def big_chest_slice(series: int, index: int) -> AnnotatedSlice:
    plane, lungs = draw_chest(BIG, seed=100 * series + index)
    plane[LESION] = -450
    lesions = ((GROUND_GLASS_OPACITY, LESION),)
    return AnnotatedSlice(plane, lesions, index, (2.0, 2.0), 5.0 * index, lungs=lungs)


def kinds_of(change: Callable[[AnnotatedSlice], AnnotatedSlice]) -> dict[str, int]:
    """Return what is found, and how often, where the slices of one series of eight are changed."""
    records = []
    for series in range(SERIES):
        items = [big_chest_slice(series, index) for index in range(SLICES)]
        records += build_records([change(item) for item in items] if series == 5 else items, f"s{series}")
    return {found.kind: found.count for found in find_warnings({"train": records})}


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
        lambda item: replace(item, instances=((GROUND_GLASS_OPACITY, square(BIG, 0, 0, 9)),)),
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
        lambda item: replace(item, instances=(*item.instances, (GROUND_GLASS_OPACITY, square(BIG, 70, 33, 1)))),
        {"tiny_parts": 3},
    ),
    "healthy": (lambda item: replace(item, instances=()), {"no_lesion": 1}),
    "no lung": (lambda item: replace(item, lungs=np.zeros_like(LESION)), {"no_lung_field": 1}),
    "copies": (lambda item: replace(item, plane=big_chest_slice(5, 0).plane), {"duplicate": 2}),
    "spacing": (lambda item: replace(item, pixel_spacing_mm=(20.0, 20.0)), {"spacing": 1}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found_and_nothing_else(fault: str) -> None:
    change, expected = PLANTED[fault]
    assert kinds_of(change) == expected


def test_blank_slice_is_found() -> None:
    blank = kinds_of(lambda item: replace(item, plane=np.full((BIG, BIG), -1000, np.int16)))
    assert blank["blank"] == 3


def test_examples_are_some_of_many_from_first_to_last() -> None:
    items = [replace(big_chest_slice(0, index), instances=((GROUND_GLASS_OPACITY, ~LESION),)) for index in range(20)]
    found = {one.kind: one for one in find_warnings({"train": build_records(items, "s")})}
    examples = found["mask_everywhere"].examples
    assert found["mask_everywhere"].count == 20
    assert 1 < len(examples) <= MAX_EXAMPLES
    assert examples[0].file_name == "s/0000.png"
    assert examples[-1].file_name > "s/0014.png"


def test_every_warning_says_what_it_means_and_what_to_do() -> None:
    items = [replace(big_chest_slice(0, index), instances=()) for index in range(2)]
    for found in find_warnings({"val": build_records(items, "s")}):
        assert found.title
        assert found.text.endswith(".")
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
                Region(CATEGORIES.by_name(name), values[index] == value, f"{name} {value}")
                for name, values in maps.items()
                for value in np.unique(values[index])
                if value
            ]

        records += build_records(annotate_volume(patient.volume, regions_of, InstanceRule(VALUES)), f"s{number}")
    assert find_warnings({"train": records}) == []
