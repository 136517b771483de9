"""Named cohorts: for the quick start, for the benchmark, for the tests."""

from __future__ import annotations

import hashlib

import numpy as np

from lung_d2.errors import ConfigError
from lung_d2.phantom.patient import PhantomPatient
from lung_d2.phantom.spec import LesionSpec, PhantomSpec, Range
from lung_d2.phantom.uids import spec_hash

QUICK = PhantomSpec(
    matrix=(256, 256),
    slice_count=20,
    slice_spacing_mm=7.0,
    ground_glass_opacity=LesionSpec((2, 4), Range(12.0, 22.0), Range(0.75, 1.0)),
    bronchiectasis=LesionSpec((2, 4), Range(5.0, 7.5), Range(0.75, 1.0)),
    noise_hu=Range(8.0, 16.0),
    kernels=("soft", "lung"),
    distractors=0.45,
    prone_share=0.0,
    overlap_share=0.2,
    patients=20,
    seed=20_240,
)

BENCHMARK = PhantomSpec(
    matrix=(512, 512),
    slice_count=32,
    slice_spacing_mm=5.0,
    slice_thickness_mm=2.5,
    ground_glass_opacity=LesionSpec((2, 5), Range(7.0, 22.0), Range(0.1, 0.9)),
    bronchiectasis=LesionSpec((2, 5), Range(3.6, 6.5), Range(0.1, 0.9)),
    noise_hu=Range(12.0, 26.0),
    kernels=("soft", "lung", "sharp"),
    distractors=1.0,
    lung_hu=Range(-895.0, -815.0),
    prone_share=0.1,
    overlap_share=0.35,
    patients=40,
    seed=71_830,
)

MINI = PhantomSpec(
    matrix=(96, 96),
    slice_count=6,
    ground_glass_opacity=LesionSpec((2, 3), Range(18.0, 28.0), Range(0.8, 1.0)),
    bronchiectasis=LesionSpec((2, 3), Range(8.0, 11.0), Range(0.8, 1.0)),
    kernels=("soft",),
    distractors=0.3,
    prone_share=0.0,
    patients=3,
    seed=7,
)

PRESETS = {"quick": QUICK, "benchmark": BENCHMARK, "mini": MINI}


def preset_by_name(name: str) -> PhantomSpec:
    """Return a preset.

    Raises:
        ConfigError: No preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}", found="unknown", expected=f"one of {', '.join(PRESETS)}", remedy="take one")
    return PRESETS[name]
