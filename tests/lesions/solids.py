"""Solids of known volume and extent, volumes of any geometry to lay them into, and perfect detections of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lung_d2.categories import GROUND_GLASS_OPACITY, Category
from lung_d2.ct.geometry import normal_of, positions_along_normal, spacing_of
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions import SliceDetections
from lung_d2.masks import encode_mask
from lung_d2.phantom.shapes import ellipsoid_matrix

Mask = npt.NDArray[np.bool_]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and semi-axes in mm, LPS; the first semi-axis points along ``axis``."""

    center: Vector
    semi: Vector
    axis: Vector = (1.0, 0.0, 0.0)

    @property
    def volume_ml(self) -> float:
        return 4e-3 / 3 * np.pi * float(np.prod(self.semi))

    @property
    def extent_mm(self) -> npt.NDArray[np.float64]:
        """The surface is the image of a ball, so that its reach along an axis is the length of a row of that map."""
        return 2 * np.linalg.norm(np.linalg.inv(ellipsoid_matrix(self.semi, self.axis)), axis=1)

    def contains(self, points: npt.NDArray[np.float64]) -> Mask:
        matrix = ellipsoid_matrix(self.semi, self.axis)
        return (((points - np.array(self.center)) @ matrix.T) ** 2).sum(axis=-1) <= 1


@dataclass(frozen=True)
class Tube:
    """A straight tube with round ends, mm, LPS."""

    start: Vector
    end: Vector
    radius: float

    @property
    def volume_ml(self) -> float:
        length = float(np.linalg.norm(np.subtract(self.end, self.start)))
        return 1e-3 * np.pi * self.radius**2 * (length + 4 / 3 * self.radius)

    @property
    def extent_mm(self) -> npt.NDArray[np.float64]:
        return np.abs(np.subtract(self.end, self.start)) + 2 * self.radius

    def contains(self, points: npt.NDArray[np.float64]) -> Mask:
        along = np.subtract(self.end, self.start)
        share = np.clip((points - np.array(self.start)) @ along / (along @ along), 0, 1)
        nearest = np.array(self.start) + share[..., None] * along
        return ((points - nearest) ** 2).sum(axis=-1) <= self.radius**2


Solid = Ellipsoid | Tube


def volume_in(
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    positions_mm: Sequence[float] | None = None,
    hu: int | npt.NDArray[np.int16] = -900,
) -> CTVolume:
    """Return a volume with this LPS affine; uneven positions are measured from the first slice."""
    even = positions_along_normal(affine, shape[0])
    return CTVolume(
        hu=np.broadcast_to(np.asarray(hu, np.int16), shape),  # one value costs no memory
        spacing_mm=spacing_of(affine),
        slice_positions_mm=even if positions_mm is None else even[0] + np.array(positions_mm, float),
        affine_lps=affine,
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        sop_instance_uids=("",) * shape[0],
        frame_numbers=(None,) * shape[0],
        patient_hash="aa",
        series_hash="bb",
    )


def axial_volume(
    shape: tuple[int, int, int],
    spacing_mm: Vector = (2.0, 0.8, 0.7),
    positions_mm: Sequence[float] | None = None,
    hu: int | npt.NDArray[np.int16] = -900,
) -> CTVolume:
    """Return an axial volume; spacing is (z, y, x)."""
    z, y, x = spacing_mm
    return volume_in(np.diag([x, y, z, 1.0]), shape, positions_mm, hu)


def tilted_affine(spacing_mm: Vector, degrees: float) -> npt.NDArray[np.float64]:
    """Return the affine of a gantry tilted about the left-right axis: the table moves along z all the same.

    The spacing (z, y, x) is along the normal of the slices.
    """
    z, y, x = spacing_mm
    tilt = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, 0] = (x, 0, 0)
    affine[:3, 1] = (0, y * np.cos(tilt), y * np.sin(tilt))
    affine[:3, 2] = (0, 0, z / np.cos(tilt))
    return affine


def voxelise(solid: Solid, volume: CTVolume) -> Mask:
    """Return the voxels whose centre lies in a solid, bool ``[Z, Y, X]``."""
    slices, rows, columns = volume.hu.shape
    affine, normal = volume.affine_lps, normal_of(volume.affine_lps)
    steps = (volume.slice_positions_mm - volume.slice_positions_mm[0]) / float(affine[:3, 2] @ normal)
    y, x = np.mgrid[:rows, :columns]
    plane = x[..., None] * affine[:3, 0] + y[..., None] * affine[:3, 1] + affine[:3, 3]
    return np.stack([solid.contains(plane + step * affine[:3, 2]) for step in steps[:slices]])


Found = tuple[Mask, float] | tuple[Mask, float, Category]


def detect(*found: Found, missed: Sequence[int] = ()) -> list[SliceDetections]:
    """Return the detections of masks ``[Z, Y, X]`` with a score and a category (ground glass), for each slice."""
    slices = []
    for index in range(len(found[0][0])):
        rows = [(*item, GROUND_GLASS_OPACITY)[:3] for item in found if item[0][index].any() and index not in missed]
        slices.append(detections_on(index, [(mask[index], score, category) for mask, score, category in rows]))
    return slices


def detections_on(slice_index: int, rows: Sequence[tuple[Mask, float, Category]]) -> SliceDetections:
    """Return the detections of one slice from masks ``(H, W)``, scores and categories."""
    return SliceDetections(
        slice_index=slice_index,
        boxes=np.zeros((len(rows), 4), np.float32),
        scores=np.array([score for _, score, _ in rows], np.float32),
        category_ids=np.array([category.coco_id for *_, category in rows], np.int64),
        masks=tuple(encode_mask(mask) for mask, _, _ in rows),
    )


def block(shape: tuple[int, int, int], z: slice, y: slice, x: slice) -> Mask:
    """Return a filled box in a volume of this shape."""
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask
