"""Named cohorts: for the quick start, for the benchmark, for the tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cv2
import numpy as np

from lung_d2.errors import ConfigError
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.spec import LesionSpec, PhantomSpec, Range
from lung_d2.phantom.uids import spec_hash

QUICK = PhantomSpec(
    matrix=(256, 256),
    slice_count=20,
    slice_spacing_mm=7.0,
    slice_thickness_mm=5.0,
    ground_glass_opacity=LesionSpec((2, 4), Range(14.0, 24.0), Range(0.85, 1.0)),
    bronchiectasis=LesionSpec((2, 4), Range(6.0, 8.5), Range(0.85, 1.0)),
    noise_hu=Range(8.0, 16.0),
    kernels=("soft", "lung"),
    distractors=0.3,
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
    ground_glass_opacity=LesionSpec((2, 5), Range(7.0, 21.0), Range(0.0, 0.7)),
    bronchiectasis=LesionSpec((2, 5), Range(3.2, 5.8), Range(0.0, 0.65)),
    noise_hu=Range(12.0, 26.0),
    kernels=("soft", "lung", "sharp"),
    distractors=1.0,
    lung_hu=Range(-895.0, -805.0),
    prone_share=0.1,
    overlap_share=0.35,
    patients=40,
    seed=71_830,
)

MINI = PhantomSpec(
    matrix=(96, 96),
    slice_count=6,
    slice_spacing_mm=14.0,
    slice_thickness_mm=5.0,
    ground_glass_opacity=LesionSpec((2, 3), Range(18.0, 28.0), Range(0.8, 1.0)),
    bronchiectasis=LesionSpec((2, 3), Range(8.0, 11.0), Range(0.8, 1.0)),
    kernels=("soft",),
    distractors=0.3,
    prone_share=0.0,
    patients=3,
    seed=7,
)

# Of BENCHMARK and of the generator that makes it: see preset_hash.
BENCHMARK_HASH = "2405c284f0f474792d41e8d86b4d93c3d4df0ee937707434e2d79fadee793c54"

PRESETS = {"quick": QUICK, "benchmark": BENCHMARK, "mini": MINI}


def preset_by_name(name: str) -> PhantomSpec:
    """Return a preset.

    Raises:
        ConfigError: No preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"preset {name!r}", found="unknown", expected=f"one of {', '.join(PRESETS)}", remedy="take one"
        )
    return PRESETS[name]


def preset_hash(name: str) -> str:
    """Return 64 hexadecimal digits for a preset: all its parameters, its patients and the generator's version.

    A figure measured on the benchmark holds for :data:`BENCHMARK_HASH` only. The hash guards against a changed
    parameter; that the generator itself still makes the same pictures is guarded by :func:`sample_fingerprint`.
    """
    spec = preset_by_name(name)
    return hashlib.sha256(f"{spec.patients} {spec_hash(spec)}".encode()).hexdigest()


def sample_fingerprint(name: str) -> np.ndarray:
    """Return a coarse picture of one patient of a preset, to tell whether the generator still makes it.

    Four slices of the first patient without noise, as means over blocks of 32 x 32 of 256 x 256 pixels, and the voxels
    that each category fills: robust to another build of numpy or OpenCV, not to another generator.

    Args:
        name: Name of the preset.

    Returns:
        float64 ``(4, 8, 8)``, HU, followed along the first axis by ``(2, 8, 8)``, the share of a block in percent that
        each category fills, averaged over the slices.
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
