"""Which training slices are kept, on records whose facts are written by hand."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import pytest

from lung_d2.data.selection import KEEP_ALL, Selection, has_lesion, is_lesion_free
from lung_d2.errors import ConfigError, DatasetError

Record = dict[str, Any]
ANY = {"min_lesion_mm2": 0.0, "min_contrast_hu": 0.0, "lesion_free_ratio": None}


def slice_of(
    *contrasts: float | None,
    area_px: int = 100,
    patient: str = "p",
    lung_px: int | None = 1000,
    spacing: tuple[float, float] | None = (0.5, 0.8),
    crowds: int = 0,
) -> Record:
    """Return a slice with a lesion for each contrast; all together have ``area_px`` pixels, in the lung."""
    return {
        "patient": patient,
        "pixel_spacing_mm": spacing,
        "annotations": [{"iscrowd": 0}] * len(contrasts) + [{"iscrowd": 1}] * crowds,
        "facts": {
            "instances": [{"contrast_hu": contrast} for contrast in contrasts],
            "lesion_px": area_px if contrasts else 0,
            "lesion_in_lung_px": None if lung_px is None else area_px if contrasts else 0,
            "lung_px": lung_px,
        },
    }


def kept_of(selection: Selection, *records: Record) -> list[int]:
    """Return the numbers of the records that are kept."""
    numbers = {id(record): number for number, record in enumerate(records)}
    return [numbers[id(record)] for record in selection.choose(records).kept]


def outcomes(selection: Selection, *records: Record) -> dict[str, tuple[int, int]]:
    """Return what each rule removed and could not judge."""
    return {rule.name: (rule.removed, rule.unknown) for rule in selection.choose(records).rules}


def test_undecided_regions_are_no_lesions_and_leave_no_slice_free() -> None:
    undecided = slice_of(crowds=2)
    assert not has_lesion(undecided)
    assert not is_lesion_free(undecided)
    assert has_lesion(slice_of(100.0, crowds=1))
    assert is_lesion_free(slice_of())


def test_keep_all_keeps_all() -> None:
    records = [slice_of(), slice_of(0.0, area_px=1), slice_of(crowds=1), slice_of()]
    assert kept_of(KEEP_ALL, *records) == [0, 1, 2, 3]
    assert set(outcomes(KEEP_ALL, *records).values()) == {(0, 0)}


def test_area_is_that_of_all_lesions_of_the_slice() -> None:
    selection = Selection(**ANY | {"min_lesion_mm2": 10.0})
    records = [slice_of(90.0, 90.0, area_px=pixels) for pixels in (24, 25, 26)]  # of 0.4 mm2
    assert kept_of(selection, *records) == [1, 2]
    assert outcomes(selection, *records)["min_lesion_mm2"] == (1, 0)


def test_contrast_is_that_of_the_most_evident_lesion() -> None:
    selection = Selection(**ANY | {"min_contrast_hu": 50.0})
    assert kept_of(selection, slice_of(10.0, 49.0), slice_of(10.0, 50.0), slice_of(None, 60.0)) == [1, 2]


def test_share_of_the_lung() -> None:
    selection = Selection(**ANY | {"min_lung_share": 0.1})
    assert kept_of(selection, slice_of(90.0, area_px=99), slice_of(90.0, area_px=100)) == [1]


def test_share_counts_lesions_outside_the_lung_field_as_lung() -> None:
    record = slice_of(90.0, area_px=100, lung_px=900)
    record["facts"]["lesion_in_lung_px"] = 0
    bright = slice_of(90.0, area_px=500)
    assert kept_of(Selection(**ANY | {"min_lung_share": 0.1}), record, bright) == [0, 1]
    assert kept_of(Selection(**ANY | {"min_lung_share": 0.11}), record, bright) == [1]


def test_what_is_unknown_is_not_judged() -> None:
    record = slice_of(None, area_px=1, spacing=None, lung_px=None)
    selection = Selection(min_lung_share=0.5)
    assert kept_of(selection, record) == [0]
    assert outcomes(selection, record) == {
        "min_lesion_mm2": (0, 1),
        "min_contrast_hu": (0, 1),
        "min_lung_share": (0, 1),
        "lesion_free_ratio": (0, 0),
    }


def test_slice_that_fails_several_rules_counts_for_the_first() -> None:
    records = [slice_of(1.0, area_px=1), slice_of(1.0), slice_of(90.0)]
    removed = {name: removed for name, (removed, _) in outcomes(Selection(), *records).items()}
    assert removed == {"min_lesion_mm2": 1, "min_contrast_hu": 1, "min_lung_share": 0, "lesion_free_ratio": 0}


def test_ratio_of_lesion_free_slices() -> None:
    records = [*[slice_of(90.0)] * 4, *[slice_of() for _ in range(20)]]
    for ratio, count in ((0.0, 0), (0.5, 2), (1.0, 4), (3.0, 12), (100.0, 20), (None, 20)):
        assert len(Selection(lesion_free_ratio=ratio).choose(records).kept) == 4 + count


def test_ratio_is_to_the_slices_that_pass_the_other_rules() -> None:
    records = [slice_of(90.0), slice_of(1.0), slice_of(2.0), *[slice_of() for _ in range(9)]]
    assert len(Selection().choose(records).kept) == 2


def test_lesion_free_slices_are_spread_evenly() -> None:
    records = [*[slice_of() for _ in range(100)], *[slice_of(90.0) for _ in range(10)]]
    free = [number for number in kept_of(Selection(), *records) if number < 100]
    assert len(free) == 10
    steps = {second - first for first, second in itertools.pairwise(free)}
    assert steps == {10}


def test_patient_without_lesions_keeps_its_share() -> None:
    ill = [slice_of(90.0, patient="ill") for _ in range(10)] + [slice_of(patient="ill") for _ in range(10)]
    healthy = [slice_of(patient="healthy") for _ in range(30)]
    kept = Selection().choose([*ill, *healthy]).kept
    counts = [sum(r["patient"] == name and not has_lesion(r) for r in kept) for name in ("ill", "healthy")]
    assert counts == [2, 8]  # 10 slices, shared out as 10 to 30: 2.5 and 7.5


def test_shares_sum_to_the_ratio() -> None:
    records = [slice_of(90.0, patient="a") for _ in range(7)]
    records += [slice_of(patient=name) for name in "abcdefghijklm" for _ in range(3)]
    assert len(Selection().choose(records).kept) == 14


def test_set_without_lesions_is_kept_whole() -> None:
    assert kept_of(Selection(lesion_free_ratio=0.0), slice_of(), slice_of(), slice_of(crowds=1)) == [0, 1, 2]


def test_undecided_slices_stay_and_count_as_neither() -> None:
    records = [slice_of(90.0), *[slice_of(crowds=1) for _ in range(5)], slice_of(), slice_of()]
    choice = Selection().choose(records)
    assert choice.undecided_only == 5
    assert len(choice.kept) == 1 + 5 + 1


def test_order_is_kept() -> None:
    records = [slice_of() if number % 3 else slice_of(90.0) for number in range(60)]
    numbers = kept_of(Selection(), *records)
    assert numbers == sorted(numbers)
    assert len(numbers) == 40


def test_same_seed_same_slices() -> None:
    records = [*[slice_of() for _ in range(90)], slice_of(90.0), slice_of(90.0)]
    chosen = {seed: kept_of(Selection(seed=seed), *records) for seed in range(6)}
    assert chosen[0] == kept_of(Selection(seed=0), *records)
    assert len({tuple(numbers) for numbers in chosen.values()}) > 1


def test_nothing_evident_by_a_rule_that_was_set_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"none of 2 training slices.*lower --min-contrast-hu"):
        Selection(min_contrast_hu=300.0).choose([slice_of(90.0), slice_of(90.0)])


def test_default_that_no_slice_meets_is_waived(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert kept_of(Selection(), slice_of(1.0), slice_of(2.0)) == [0, 1]
    assert "--min-contrast-hu 50: not applied" in caplog.text
    assert [rule.name for rule in Selection().choose([slice_of(1.0)]).rules if rule.waived] == ["min_contrast_hu"]


def test_log_says_what_each_rule_removed(caplog: pytest.LogCaptureFixture) -> None:
    records = [slice_of(90.0), slice_of(90.0, area_px=1), slice_of(90.0, spacing=None), *[slice_of() for _ in range(3)]]
    with caplog.at_level(logging.INFO):
        Selection().choose(records)
    assert "keeps 4 of 6 training slices" in caplog.text
    assert "1 by --min-lesion-mm2 10, 1 by --lesion-free-ratio 1" in caplog.text
    assert "--min-lesion-mm2 was not applied to 1 slice(s)" in caplog.text


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("min_lesion_mm2", "--min-lesion-mm2"),
        ("min_contrast_hu", "--min-contrast-hu"),
        ("min_lung_share", "--min-lung-share"),
        ("lesion_free_ratio", "--lesion-free-ratio"),
    ],
)
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_values_that_mean_nothing_are_refused_by_their_option(name: str, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{option} {value:g}: "):
        Selection(**{name: value})


def test_share_above_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 to 1"):
        Selection(min_lung_share=1.5)
