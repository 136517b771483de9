"""The single checks, on planted faults and on what is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.quality import checks
from lung_d2.data.quality.checks import Series, group_series
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
    notes = (checks.note_no_lesion, checks.note_not_hu, checks.note_odd_spacing, checks.note_spine_aside)
    assert [note(RIGHT) for note in (*notes, checks.note_no_lung_field)] == [""] * 5
    for note in (checks.note_empty_mask, checks.note_blank, checks.note_mask_everywhere, checks.note_tiny_parts):
        assert note(RIGHT.records[0]) == ""
    for find in (checks.find_outside_lung, checks.find_duplicates, checks.find_turned):
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
    assert checks.note_empty_mask(record) == "1 mask(s) without a pixel"


def test_blank_slice() -> None:
    assert checks.note_blank(build_record(chest_slice(plane=np.full((SIZE, SIZE), -5, np.int16)))) == "-5 everywhere"


def test_inverted_mask() -> None:
    record = build_record(chest_slice(instances=((GROUND_GLASS_OPACITY, ~LESION),)))
    assert checks.note_mask_everywhere(record) == "99% of the slice is lesion"


def test_tiny_parts() -> None:
    dotted = LESION | square(SIZE, 60, 45, 1) | square(SIZE, 70, 33, 1)
    record = build_record(chest_slice(instances=((GROUND_GLASS_OPACITY, dotted),)))
    assert checks.note_tiny_parts(record) == "2 part(s) of fewer than 4 pixels"


def test_lesion_outside_the_lung() -> None:
    lesions = ((GROUND_GLASS_OPACITY, LESION), (BRONCHIECTASIS, square(SIZE, 0, 0, 8)))
    found = list(checks.find_outside_lung([series_of(chest_slice(instances=lesions))]))
    assert [example.note for example in found] == ["1 of 2 lesions; of one (bronchiectasis) 0% is in the lung"]


def test_lesions_are_not_outside_a_lung_that_was_not_found() -> None:
    nothing = np.zeros((SIZE, SIZE), bool)
    series = series_of(chest_slice(lungs=nothing))
    assert list(checks.find_outside_lung([series])) == []
    assert checks.note_no_lung_field(series) == "0 pixels of lung on the slice with most"


def test_lung_that_nobody_looked_for_is_not_missed() -> None:
    assert checks.note_no_lung_field(series_of(chest_slice(lungs=None))) == ""


def test_series_without_lesions() -> None:
    series = series_of(chest_slice(0, instances=()), chest_slice(1, instances=()))
    assert checks.note_no_lesion(series) == "2 slices"


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
    assert note in checks.note_not_hu(with_plane(change))


def test_padding_below_air_is_no_fault() -> None:
    def pad(plane: np.ndarray) -> np.ndarray:
        padded = plane.copy()
        padded[:20] = -3024
        return padded

    assert checks.note_not_hu(with_plane(pad)) == ""


def test_grey_pictures_need_not_be_hu() -> None:
    assert checks.note_not_hu(with_plane(lambda plane: np.clip(plane // 8 + 125, 0, 255).astype(np.uint8))) == ""


@pytest.mark.parametrize(
    ("spacing", "note"),
    [
        ((0.05, 0.05), "pixels of 0.05 x 0.05 mm"),
        ((7.0, 7.0), "pixels of 7 x 7 mm"),
        ((0.7, 1.0), "pixels that are no squares, 0.7 x 1 mm"),
        (None, ""),
    ],
)
def test_odd_pixels(spacing: tuple[float, float] | None, note: str) -> None:
    assert checks.note_odd_spacing(series_of(chest_slice(pixel_spacing_mm=spacing))) == note


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
    assert checks.note_odd_spacing(series_of(*items)) == note


def test_single_slices_have_no_distances() -> None:
    items = [chest_slice(0), chest_slice(1, slice_position_mm=300.0)]
    records = [build_record(item, neighbours=False) for item in items]
    assert checks.note_odd_spacing(Series("train", records)) == ""


def test_copies_within_a_split_are_found_and_between_splits_left_to_the_leak_check() -> None:
    first, other = series_of(chest_slice(0), chest_slice(1)), series_of(chest_slice(1), name="t")
    assert [(one.file_name, one.note) for one in checks.find_duplicates([first, other])] == [
        ("t/0001.png", "equal to s/0001.png")
    ]
    assert list(checks.find_duplicates([first, replace(other, split="val")])) == []


def test_blank_slices_are_no_copies() -> None:
    blank = np.zeros((SIZE, SIZE), np.int16)
    assert list(checks.find_duplicates([series_of(chest_slice(0, plane=blank), chest_slice(1, plane=blank))])) == []


def test_turned_series_is_named() -> None:
    several = [
        series_of(*[chest_slice(index + 10 * number) for index in range(2)], name=f"s{number}") for number in range(4)
    ]
    flipped = [replace(item, plane=item.plane[::-1]) for item in (chest_slice(50), chest_slice(51))]
    found = list(checks.find_turned([*several, series_of(*flipped, name="flipped")]))
    assert [(one.file_name, one.note) for one in found] == [
        ("flipped/0051.png", "like the others when mirrored top to bottom")
    ]


@pytest.mark.parametrize(
    ("turns", "note"),
    [(1, "the spine is at the right"), (2, "the spine is at the top"), (3, "the spine is at the left")],
)
def test_spine_aside(turns: int, note: str) -> None:
    assert checks.note_spine_aside(with_plane(lambda plane: np.rot90(plane, turns))) == note
