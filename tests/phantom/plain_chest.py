"""A chest so plain that its numbers are known by hand: two elliptic lungs with straight vessels, and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lung_d2.ct import CTVolume

LUNG_HU, SOFT_HU, AIR_HU = -870.0, 45.0, -1000.0
HILUM = (24.0, 0.0)
VESSEL_MM = 1.9


def build_chest(
    *,
    noise_hu: float = 15.0,
    blood_hu: float = 40.0,
    lung_hu: float = LUNG_HU,
    spacing_mm: tuple[float, float, float] = (2.5, 1.5, 1.5),
    shape: tuple[int, int, int] = (36, 168, 228),
    vessels: int = 14,
    affine_lps: np.ndarray | None = None,
) -> CTVolume:
    """Build the chest; without vessels its lungs are even, but for white noise."""
    rng = np.random.default_rng(5)
    z, y, x = ((np.arange(size) - (size - 1) / 2) * mm for size, mm in zip(shape, spacing_mm, strict=True))
    body = (x[None] / 162) ** 2 + (y[:, None] / 118) ** 2 < 1
    lung = np.zeros(shape[1:], bool)
    for side in (-1, 1):
        lung |= ((x[None] - 76 * side) / 60) ** 2 + (y[:, None] / 88) ** 2 < 1
    hu = np.empty(shape, np.float64)
    hu[:] = np.where(lung, lung_hu, np.where(body, SOFT_HU, AIR_HU))
    for number in range(vessels):
        side, turn = 1 - 2 * (number % 2), rng.uniform(-1.0, 1.0)
        start = np.array([HILUM[0] * side, HILUM[1], rng.uniform(-25, 25)])
        end = np.array([126 * side * np.cos(turn), 76 * np.sin(turn), start[2] + rng.uniform(-20, 20)])
        _draw_vessel(hu, (x, y, z), (start, end), lung, blood_hu)
    hu += rng.normal(0, noise_hu, shape)
    if affine_lps is None:
        affine_lps = np.diag([spacing_mm[2], spacing_mm[1], spacing_mm[0], 1.0])
        affine_lps[:3, 3] = x[0], y[0], z[0]
    return CTVolume(
        hu=np.rint(hu).astype(np.int16),
        spacing_mm=spacing_mm,
        slice_positions_mm=z,
        affine_lps=affine_lps,
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        sop_instance_uids=tuple(f"1.2.3.{index}" for index in range(len(z))),
        frame_numbers=(None,) * len(z),
        patient_hash="5" * 16,
        series_hash="6" * 16,
    )


def cut_slices(volume: CTVolume, part: slice) -> CTVolume:
    """Return some slices of a volume: a real one whole takes long."""
    affine = volume.affine_lps.copy()
    affine[:3, 3] += part.start * affine[:3, 2]
    return replace(
        volume,
        hu=volume.hu[part].copy(),
        slice_positions_mm=volume.slice_positions_mm[part].copy(),
        affine_lps=affine,
        sop_instance_uids=volume.sop_instance_uids[part],
        frame_numbers=volume.frame_numbers[part],
        source_files=volume.source_files[part],
        dicom=None,
    )


def _draw_vessel(hu: np.ndarray, axes: tuple, ends: tuple, lung: np.ndarray, blood_hu: float) -> None:
    (x, y, z), (start, end) = axes, ends
    way = end - start
    for index in np.flatnonzero((z > min(start[2], end[2]) - 4) & (z < max(start[2], end[2]) + 4)):
        height = z[index]
        points = np.stack(np.broadcast_arrays(x[None] - start[0], y[:, None] - start[1], height - start[2]), axis=-1)
        along = np.clip(points @ way / (way @ way), 0.0, 1.0)
        distance = np.linalg.norm(points - along[..., None] * way, axis=-1)
        share = np.clip(0.5 - (distance - VESSEL_MM) / 1.5, 0.0, 1.0) * lung
        hu[index] += share * (blood_hu - hu[index]) * (hu[index] < blood_hu)
