"""What makes findings less certain is said, and nothing where nothing does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from findings.findings_samples import END, LARGE, SHAPE, SMALL, Lungs, find, sample_lungs, sample_volume
from lung_d2.ct.grey import GreyLevels
from lung_d2.findings.document import Findings
from lung_d2.findings.warnings import find_warnings


def warn(found: Findings, **changed: Any) -> dict[str, str]:
    parts = {
        "volume": found.volume,
        "lesions": found.lesions,
        "measurements": found.measurements,
        "grey": GreyLevels(),
        "lungs": found.lungs,
    }
    return {one.kind: one.text for one in find_warnings(**{**parts, **changed})}


CLEAN = find((SMALL, 0.9), (LARGE, 0.9), lungs=sample_lungs())


def test_thin_and_whole_series_have_none() -> None:
    assert warn(CLEAN) == {}


def test_grey_levels_that_imitate_pictures() -> None:
    assert list(warn(CLEAN, grey=GreyLevels("minmax_clahe"))) == ["grey_levels"]


@pytest.mark.parametrize(("spacing_mm", "kinds"), [(3.0, []), (5.0, ["thick_slices"])])
def test_thick_slices(spacing_mm: float, kinds: list[str]) -> None:
    volume = sample_volume()
    thick = replace(volume, spacing_mm=(spacing_mm, 0.8, 0.7), slice_positions_mm=spacing_mm * np.arange(SHAPE[0]))
    warnings = warn(CLEAN, volume=thick)
    assert list(warnings) == kinds
    assert all("5.0 mm apart" in text for text in warnings.values())


@pytest.mark.parametrize(("shift_mm", "kinds"), [(0.05, []), (0.5, ["uneven_slices"])])
def test_uneven_slices(shift_mm: float, kinds: list[str]) -> None:
    positions = 2.0 * np.arange(SHAPE[0])
    positions[7] += shift_mm
    warnings = warn(CLEAN, volume=replace(sample_volume(), slice_positions_mm=positions))
    assert list(warnings) == kinds
    assert all("from 1.50 to 2.50 mm" in text for text in warnings.values())


def test_single_slice_is_no_uneven_one() -> None:
    one = replace(
        sample_volume(),
        hu=np.full((1, 60, 80), -850, np.int16),
        slice_positions_mm=np.zeros(1),
        sop_instance_uids=("",),
        frame_numbers=(None,),
    )
    assert warn(find(volume=one)) == {}


def test_no_lungs() -> None:
    assert list(warn(CLEAN, lungs=Lungs(np.zeros(SHAPE, np.uint8)))) == ["no_lungs"]


def test_lungs_that_go_on_beyond_the_scan() -> None:
    labels = sample_lungs().labels.copy()
    labels[16:] = labels[10]
    assert "continue beyond the last slice" in warn(CLEAN, lungs=Lungs(labels))["lungs_cut"]
    labels[:2] = labels[10]
    assert "beyond the first and the last slice" in warn(CLEAN, lungs=Lungs(labels))["lungs_cut"]


def test_lesions_outside_the_lungs_and_at_the_end_of_the_scan() -> None:
    warnings = warn(find((SMALL, 0.9), (END, 0.9), lungs=sample_lungs()))
    assert warnings["lesions_outside_lungs"] == "Lesion 2 lies wholly outside the lungs."
    assert warnings["lesions_at_end_of_scan"].startswith("Lesion 2 lies on the first or last slice")


def test_only_some_of_many_lesions_are_listed() -> None:
    first = CLEAN.measurements[0]
    outside = replace(first, values={**first.values, "side": None})
    measurements = [replace(outside, lesion_number=number) for number in range(1, 12)]
    text = warn(CLEAN, measurements=measurements)["lesions_outside_lungs"]
    assert text == "Lesions 1, 2, 3, 4, 5, 6, 7, 8 and 3 more lie wholly outside the lungs."
