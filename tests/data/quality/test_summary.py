"""The numbers of a data set's report, on slices counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.quality.leaks import Leak
from lung_d2.data.quality.summary import SCHEMA_VERSION, build_histogram, build_summary
from lung_d2.data.selection import KEEP_ALL, Selection
from records import build_record, draw_chest
from tiny import square

SIZE = 128
GGO, BRONCHUS = square(SIZE, 50, 30, 10), square(SIZE, 70, 35, 5)  # 400 and 100 mm2
UNDECIDED = square(SIZE, 60, 85, 6)
PLANE, LUNGS = draw_chest(SIZE)


def chest_slice(index: int, *lesions, **others) -> AnnotatedSlice:
    plane = draw_chest(SIZE, seed=index)[0]
    plane[GGO], plane[BRONCHUS] = -450, -200
    known = {"pixel_spacing_mm": (2.0, 2.0), "slice_position_mm": 5.0 * index, "lungs": LUNGS} | others
    return AnnotatedSlice(plane=plane, instances=lesions, slice_index=index, **known)


def example_splits() -> dict[str, list[dict[str, Any]]]:
    """Return a training split of two patients, the second healthy, and a validation split of one."""
    ggo, bronchus = (GROUND_GLASS_OPACITY, GGO), (BRONCHIECTASIS, BRONCHUS)
    train = [
        build_record(chest_slice(0), "a"),
        build_record(chest_slice(1, ggo), "a"),
        build_record(chest_slice(2, ggo, bronchus, specks=2, undecided=UNDECIDED), "a"),
        *(build_record(chest_slice(index), "healthy") for index in range(4)),
    ]
    return {"train": train, "val": [build_record(chest_slice(9, bronchus, pixel_spacing_mm=None), "b")]}


def summary_of(selection: Selection = KEEP_ALL, leaks: tuple[Leak, ...] = ()) -> dict[str, Any]:
    splits = example_splits()
    choice = selection.choose(splits["train"])
    return build_summary("tiny", splits, splits | {"train": choice.kept}, choice, leaks)


def test_report_is_json_with_a_version() -> None:
    summary = summary_of()
    assert json.loads(json.dumps(summary, allow_nan=False))["schema_version"] == SCHEMA_VERSION
    assert summary["name"] == "tiny"


def test_counts_of_a_split() -> None:
    train = summary_of()["splits"]["train"]
    assert {key: value for key, value in train.items() if key != "categories"} == {
        "patients": 2,
        "series": 2,
        "grey_series": 0,
        "slices": 7,
        "with_lesions": 2,
        "lesion_free": 5,
        "undecided_only": 0,
        "left_out": 0,
        "specks": 2,
    }


def test_counts_of_categories_leave_undecided_regions_apart() -> None:
    splits = summary_of()["splits"]
    assert splits["train"]["categories"] == {
        "ground_glass_opacity": {"patients": 1, "slices": 2, "lesions": 2, "undecided": 1},
        "bronchiectasis": {"patients": 1, "slices": 1, "lesions": 1, "undecided": 0},
    }
    assert splits["val"]["categories"]["bronchiectasis"] == {"patients": 1, "slices": 1, "lesions": 1, "undecided": 0}


def test_counts_are_of_what_is_kept() -> None:
    train = summary_of(Selection(lesion_free_ratio=0.5))["splits"]["train"]
    assert (train["slices"], train["lesion_free"], train["left_out"]) == (3, 1, 4)


def test_histograms_of_lesions_are_by_category_and_split() -> None:
    lesions = summary_of()["lesions"]
    areas = lesions["ground_glass_opacity"]["area_mm2"]
    assert areas["counts"]["train"][areas["edges"].index(200)] == 2
    assert sum(areas["counts"]["train"]) == 2
    assert sum(areas["counts"]["val"]) == 0
    densities = lesions["bronchiectasis"]["mean_hu"]
    assert densities["counts"]["val"][densities["edges"].index(-200)] == 1


def test_unknown_areas_are_counted_apart() -> None:
    lesions = summary_of()["lesions"]["bronchiectasis"]
    assert lesions["area_mm2"]["unknown"] == 1
    assert lesions["area_px"]["unknown"] == 0
    assert sum(lesions["area_px"]["counts"]["val"]) == 1


def test_geometry_is_that_of_whole_series() -> None:
    geometry = summary_of(Selection(lesion_free_ratio=0.0))["geometry"]
    assert geometry["slice_mm"]["quantiles"][2] == 5.0
    assert geometry["slice_mm"]["unknown"] == 1  # the series of one slice
    assert geometry["pixel_mm"]["quantiles"][2] == 2.0
    assert geometry["matrix"] == {"128 x 128": 3}


def test_slices_per_patient() -> None:
    histogram = summary_of()["slices_per_patient"]
    assert histogram["counts"]["train"][histogram["edges"].index(2)] == 2  # 3 and 4 slices
    assert histogram["counts"]["val"][histogram["edges"].index(1)] == 1


def test_selection_states_its_rules_and_what_they_did() -> None:
    selection = summary_of(Selection(min_lesion_mm2=450.0, seed=4))["selection"]
    assert {key: value for key, value in selection.items() if key != "rules"} == {
        "split": "train",
        "seed": 4,
        "slices": 7,
        "kept": 2,
        "undecided_only": 0,
    }
    first = selection["rules"][0]
    assert (first["option"], first["default"], first["value"], first["removed"]) == ("--min-lesion-mm2", 10.0, 450.0, 1)


def test_allowed_leaks_are_listed() -> None:
    leaks = tuple(Leak(f"a/{number}.png", "b/0.png", 3, "copy", ("train", "val")) for number in range(20))
    listed = summary_of(leaks=leaks)["leaks"]
    assert (listed["count"], listed["kinds"]) == (20, {"copy": 20})
    assert 1 <= len(listed["examples"]) < 20
    assert listed["examples"][0]["first"] == "a/0.png"


def test_suspicions_are_of_all_that_was_imported() -> None:
    kinds = {found["kind"]: found["count"] for found in summary_of(Selection(lesion_free_ratio=0.0))["suspicions"]}
    assert kinds["no_lesion"] == 1  # the healthy patient, of whom no slice is kept


def test_set_without_training_split_or_lesions() -> None:
    records = [build_record(chest_slice(index), "a") for index in range(2)]
    summary = build_summary("test_only", {"test": records}, {"test": records}, KEEP_ALL.choose(()), ())
    assert summary["selection"]["slices"] == 0
    assert summary["lesions"]["bronchiectasis"]["area_mm2"]["quantiles"] is None


def test_histogram_bins_hold_their_lower_edge() -> None:
    histogram = build_histogram({"train": [0, 9.9, 10], "val": [-1, 20, 25, None]}, (0, 10, 20))
    assert histogram["counts"] == {"train": [2, 1], "val": [0, 0]}
    assert (histogram["below"], histogram["above"], histogram["unknown"]) == (1, 2, 1)


def test_histogram_quantiles_are_of_all_splits() -> None:
    histogram = build_histogram({"train": range(50), "val": range(50, 101)}, (0, 10))
    assert histogram["quantiles"] == [5, 25, 50, 75, 95]


def test_histogram_of_nothing() -> None:
    histogram = build_histogram({"train": [], "val": [None]}, (0, 10))
    assert histogram["counts"] == {"train": [0], "val": [0]}
    assert histogram["quantiles"] is None


@pytest.mark.parametrize("selection", [KEEP_ALL, Selection()])
def test_records_are_left_as_they_were(selection: Selection) -> None:
    splits = example_splits()
    before = json.dumps(splits)
    build_summary("tiny", splits, splits, selection.choose(splits["train"]), ())
    assert json.dumps(splits) == before


def test_grey_series_are_counted() -> None:
    grey = replace(chest_slice(0), plane=np.clip(PLANE // 8 + 125, 0, 255).astype(np.uint8))
    splits = {"train": [build_record(grey, "a")]}
    summary = build_summary("x", splits, splits, KEEP_ALL.choose(splits["train"]), ())
    assert summary["splits"]["train"]["grey_series"] == 1
