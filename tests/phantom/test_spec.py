"""The presets are what they are said to be, and the benchmark is frozen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lung_d2.categories import CATEGORIES
from lung_d2.errors import ConfigError
from lung_d2.phantom import PRESETS, build_patient, preset_by_name
from lung_d2.phantom.spec import BENCHMARK_HASH, LesionSpec, PhantomSpec, Range, preset_hash

SAMPLE = Path(__file__).with_name("benchmark_sample.json")
CHANGED = (
    "the benchmark is not the one that published figures were measured on: undo the change, or raise "
    "GENERATOR_VERSION, renew BENCHMARK_HASH and benchmark_sample.json, and measure again"
)


def sample_of(name: str) -> np.ndarray:
    """Return a coarse picture of one patient of a preset: robust to another build of numpy or OpenCV.

    Four slices of the first patient without noise, as means over 8 x 8 blocks, HU, followed by the share of a block in
    percent that each category fills, averaged over the slices: float64 ``(6, 8, 8)``.
    """
    spec = replace(
        preset_by_name(name),
        matrix=(256, 256),
        slice_count=4,
        slice_spacing_mm=36.0,
        noise_hu=Range(0.0, 0.0),
    )
    patient = build_patient(spec, 0)
    layers = [plane.astype(np.float64) for plane in patient.volume.hu]
    layers += [100.0 * (instances > 0).mean(axis=0) for instances in patient.instances.values()]
    return np.stack([cv2.resize(layer, (8, 8), interpolation=cv2.INTER_AREA) for layer in layers])


def test_parameters_of_the_benchmark_are_frozen() -> None:
    assert preset_hash("benchmark") == BENCHMARK_HASH, CHANGED


def test_pictures_of_the_benchmark_are_frozen() -> None:
    expected = np.array(json.loads(SAMPLE.read_text(encoding="utf-8")))
    # Another build of numpy or OpenCV rounds otherwise; another generator moves edges by whole pixels.
    assert np.abs(sample_of("benchmark") - expected).max() < 2.0, CHANGED


def test_any_parameter_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    for change in ({"patients": 41}, {"distractors": 0.99}, {"seed": 1}):
        monkeypatch.setitem(PRESETS, "benchmark", replace(preset_by_name("benchmark"), **change))
        assert preset_hash("benchmark") != BENCHMARK_HASH
        monkeypatch.undo()


@pytest.mark.parametrize("number", [0, 19])
def test_quick_phantoms_have_conspicuous_lesions_of_both_categories(number: int) -> None:
    patient = build_patient(preset_by_name("quick"), number)
    assert patient.volume.hu.shape == (20, 256, 256)
    for category in CATEGORIES:
        listed = [lesion for lesion in patient.lesions if lesion.category == category.name]
        assert 2 <= len(listed) <= 4
        pixels = patient.instances[category.name]
        area = patient.volume.spacing_mm[1] ** 2
        for lesion in listed:
            assert (pixels == lesion.instance_id).sum(axis=(1, 2)).max() * area > 80.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: Range(2, 1),
        lambda: LesionSpec((3, 1), Range(1, 2), Range(0, 1)),
        lambda: PhantomSpec(matrix=(8, 8)),
        lambda: PhantomSpec(slice_count=0),
        lambda: preset_by_name("none"),
    ],
)
def test_impossible_parameters_are_refused(build) -> None:
    with pytest.raises(ConfigError):
        build()
