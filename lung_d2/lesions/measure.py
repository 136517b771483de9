"""Measures of a lesion: size, density, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.ct.geometry import normal_of
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError
from lung_d2.lesions.density import measure_density
from lung_d2.lesions.diameters import measure_diameters
from lung_d2.lesions.lesion import Lesion, Mask
from lung_d2.lesions.lobes import LobeField
from lung_d2.lesions.slabs import slice_bounds_mm, slice_origins_lps
from lung_d2.lesions.territories import LobeShare, LungLabels, Surroundings, build_surroundings

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Measurement:
    """Measures of one lesion. What needs lungs or lobes is None, or empty, without them.

    Attributes:
        lesion_number: :attr:`Lesion.number`.
        category: Its category.
        score: Its score, 0..1.
        voxel_count: Number of its voxels.
        volume_ml: Their volume; a slice is as thick as half the gaps to its neighbours
            (:func:`lung_d2.lesions.slabs.slice_bounds_mm`). Slices on which the lesion was missed do not count.
        extent_lps_mm: Size of its box along the axes of the patient: right to left, front to back, foot to head; from
            edge to edge of its voxels.
        centroid_lps_mm: Its centre of volume, LPS, mm.
        long_axis_mm: Long axis in the plane of the slices, see :func:`lung_d2.lesions.diameters.measure_diameters`.
        short_axis_mm: Short axis on the same slice.
        long_axis_slice_index: That slice.
        slice_count: Number of slices on which it was found.
        key_slice_index: The slice that shows most of it.
        mean_hu: Mean over its voxels, HU; this and the next four as in :class:`lung_d2.lesions.density.Density`.
        sd_hu: Standard deviation, HU.
        p5_hu: 5th percentile, HU.
        median_hu: 50th percentile, HU.
        p95_hu: 95th percentile, HU.
        side: ``right``, ``left``, or ``both`` where the lesser side holds a tenth or more; None where no voxel lies in
            the lungs.
        lung_share_percent: Its volume inside the lungs over the volume of both lungs.
        lobes: What it takes of each of the five lobes.
    """

    lesion_number: int
    category: Category
    score: float
    voxel_count: int
    volume_ml: float
    extent_lps_mm: Vector
    centroid_lps_mm: Vector
    long_axis_mm: float
    short_axis_mm: float
    long_axis_slice_index: int
    slice_count: int
    key_slice_index: int
    mean_hu: float
    sd_hu: float
    p5_hu: float
    median_hu: float
    p95_hu: float
    side: str | None
    lung_share_percent: float | None
    lobes: tuple[LobeShare, ...]


def measure_lesion(
    lesion: Lesion, volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> Measurement:
    """Measure one lesion; for several use :func:`measure_lesions`, which measures the lungs once.

    Raises:
        GeometryError: Lesion, lungs or lobes are not on the grid of the volume.
    """
    return measure_lesions([lesion], volume, lungs, lobes)[0]


def measure_lesions(
    lesions: Sequence[Lesion], volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> list[Measurement]:
    """Measure the lesions of a volume.

    Args:
        lesions: From :func:`lung_d2.lesions.link.link_lesions`.
        volume: The volume on which they were found.
        lungs: Where the lungs are.
        lobes: Where the lobes are.

    Returns:
        A measurement for each lesion, in their order.

    Raises:
        GeometryError: Lesions, lungs or lobes are not on the grid of the volume.
    """
    around = build_surroundings(volume, lungs, lobes)
    return [_measure(lesion, around) for lesion in lesions]


def _measure(lesion: Lesion, around: Surroundings) -> Measurement:
    volume = around.volume
    if any(part.stop > size for part, size in zip(lesion.box, volume.hu.shape, strict=True)):
        where = f"lesion {lesion.number}"
        raise GeometryError(where, found="voxels outside the volume", remedy="measure it on its own volume")
    taken = around.occupancy(lesion.patches())
    diameters = measure_diameters(lesion, volume.spacing_mm)
    return Measurement(
        lesion_number=lesion.number,
        category=lesion.category,
        score=lesion.score,
        voxel_count=taken.voxel_count,
        volume_ml=taken.volume_ml,
        extent_lps_mm=_measure_extent(lesion, volume),
        centroid_lps_mm=_measure_centroid(lesion, around),
        long_axis_mm=diameters.long_axis_mm,
        short_axis_mm=diameters.short_axis_mm,
        long_axis_slice_index=diameters.slice_index,
        slice_count=len(lesion.slice_indices),
        key_slice_index=lesion.key_slice_index,
        **asdict(measure_density(lesion, volume)),
        side=taken.side,
        lung_share_percent=taken.lung_share_percent,
        lobes=taken.lobes,
    )


def _measure_extent(lesion: Lesion, volume: CTVolume) -> Vector:
    """Measure the box around the corners of all voxels, each a block as thick as its slice stands for."""
    columns, rows, normal = volume.affine_lps[:3, 0], volume.affine_lps[:3, 1], normal_of(volume.affine_lps)
    origins, bounds, positions = slice_origins_lps(volume), slice_bounds_mm(volume), volume.slice_positions_mm
    half_pixel = (np.abs(columns) + np.abs(rows)) / 2
    _, top, left = lesion.offset_zyx
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index, plane in lesion.planes():
        y, x = _row_ends(plane)
        points = origins[index] + (x + left)[:, None] * columns + (y + top)[:, None] * rows
        faces = (bounds[index : index + 2] - positions[index])[:, None] * normal
        low = np.minimum(low, points.min(axis=0) + faces.min(axis=0) - half_pixel)
        high = np.maximum(high, points.max(axis=0) + faces.max(axis=0) + half_pixel)
    x_mm, y_mm, z_mm = (high - low).tolist()
    return x_mm, y_mm, z_mm


def _row_ends(plane: Mask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows and columns of the first and last pixel of each row: no other pixel is extreme along any axis."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    return np.tile(rows, 2), np.concatenate([first, last])


def _measure_centroid(lesion: Lesion, around: Surroundings) -> Vector:
    affine, origins = around.volume.affine_lps, slice_origins_lps(around.volume)
    _, top, left = lesion.offset_zyx
    total, weight = np.zeros(3), 0.0
    for index, plane in lesion.planes():
        per_row, per_column = plane.sum(axis=1), plane.sum(axis=0)
        pixels = int(per_row.sum())
        y = float(per_row @ np.arange(len(per_row))) / pixels + top
        x = float(per_column @ np.arange(len(per_column))) / pixels + left
        ml = pixels * float(around.voxel_ml[index])
        total += ml * (origins[index] + x * affine[:3, 0] + y * affine[:3, 1])
        weight += ml
    x_mm, y_mm, z_mm = (total / weight).tolist()
    return x_mm, y_mm, z_mm
