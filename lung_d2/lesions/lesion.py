"""A lesion in 3-D, cropped to its box, and the tissue that each slice of its volume represents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lung_d2.categories import Category
from lung_d2.ct.geometry import normal_of
from lung_d2.ct.volume import CTVolume

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion on all slices of a volume.

    Attributes:
        number: From 1, without gaps, over all categories of a volume; the order of
            :func:`lung_d2.lesions.link.link_lesions`.
        category: Its category.
        score: 0..1, by the rule of :class:`lung_d2.lesions.link.LinkSettings`.
        mask: bool ``[z, y, x]``, read-only, cropped to the lesion; a missed slice between others is empty.
        offset_zyx: Slice, row and column of ``mask[0, 0, 0]`` in the volume.
        slice_indices: Slices of the volume on which it was found, ascending.
        slice_scores: For each of them the highest score of its detections, 0..1.
    """

    number: int
    category: Category
    score: float
    mask: Mask = field(repr=False)
    offset_zyx: tuple[int, int, int]
    slice_indices: tuple[int, ...] = field(repr=False)
    slice_scores: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        assert self.mask.ndim == 3
        assert self.mask.dtype == np.bool_
        assert len(self.slice_indices) == len(self.slice_scores) > 0
        first = self.offset_zyx[0]
        assert all(self.mask[index - first].any() for index in self.slice_indices)
        self.mask.setflags(write=False)

    @property
    def voxel_count(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    @property
    def slice_areas_px(self) -> tuple[int, ...]:
        """Area on each of ``slice_indices``, pixels; times row and column spacing it is mm2."""
        return tuple(int(np.count_nonzero(plane)) for _, plane in self.planes())

    @property
    def key_slice_index(self) -> int:
        """The slice that shows most of it; of equal areas the one of higher score, then the lower slice."""
        rows = zip(self.slice_areas_px, self.slice_scores, self.slice_indices, strict=True)
        return max(rows, key=lambda row: (row[0], row[1], -row[2]))[2]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the mask lies: ``volume.hu[lesion.box]`` has its shape."""
        z, y, x = (slice(start, start + size) for start, size in zip(self.offset_zyx, self.mask.shape, strict=True))
        return z, y, x

    def planes(self) -> Iterator[tuple[int, Mask]]:
        """Yield each of ``slice_indices`` with its part of the mask, bool ``[y, x]``, cropped to ``box[1:]``."""
        for index in self.slice_indices:
            yield index, self.mask[index - self.offset_zyx[0]]

    def patches(self) -> Iterator[tuple[int, tuple[slice, slice], Mask]]:
        """Yield the same with the rows and columns of the volume that it lies in."""
        for index, plane in self.planes():
            yield index, self.box[1:], plane

    def slice_mask(self, slice_index: int, shape: tuple[int, int]) -> Mask:
        """Return the lesion on one slice of the volume.

        Args:
            slice_index: 0-based; the mask is empty where there is no lesion.
            shape: Rows and columns of the volume.

        Returns:
            bool ``(H, W)``.
        """
        whole = np.zeros(shape, bool)
        depth = slice_index - self.offset_zyx[0]
        if 0 <= depth < len(self.mask):
            whole[self.box[1:]] = self.mask[depth]
        return whole

    def full_mask(self, shape: tuple[int, int, int]) -> Mask:
        """Return the lesion in the whole volume; for 600 slices of 512 x 512 that is 157 MB.

        Args:
            shape: Slices, rows and columns of the volume.

        Returns:
            bool ``[Z, Y, X]``.
        """
        whole = np.zeros(shape, bool)
        whole[self.box] = self.mask
        return whole


def shared_voxels(first: Lesion, second: Lesion) -> int:
    """Return how many voxels two lesions of one volume have in common."""
    starts = np.maximum(first.offset_zyx, second.offset_zyx)
    ends = np.minimum(np.add(first.offset_zyx, first.mask.shape), np.add(second.offset_zyx, second.mask.shape))
    if (ends <= starts).any():
        return 0
    parts = [
        lesion.mask[
            tuple(slice(*span) for span in zip(starts - lesion.offset_zyx, ends - lesion.offset_zyx, strict=True))
        ]
        for lesion in (first, second)
    ]
    return int(np.count_nonzero(parts[0] & parts[1]))


def slice_bounds_mm(volume: CTVolume) -> Floats:
    """Return where the tissue that each slice represents begins and ends along the normal.

    A slice represents half the gap to each neighbour; the first and the last slice extend outward as far as inward; a
    single slice represents its spacing.

    Returns:
        float64 ``[Z + 1]``, mm: slice k lies between bounds k and k + 1.
    """
    positions = volume.slice_positions_mm
    half = np.diff(positions) / 2 if len(positions) > 1 else np.array([volume.spacing_mm[0] / 2])
    middles = positions[:-1] + half[: len(positions) - 1]
    return np.concatenate([positions[:1] - half[0], middles, positions[-1:] + half[-1]])


def slice_thickness_mm(volume: CTVolume) -> Floats:
    """Return the thickness of tissue that each slice represents, float64 ``[Z]``, mm."""
    return np.diff(slice_bounds_mm(volume))


def voxel_volumes_ml(volume: CTVolume) -> Floats:
    """Return the volume of a voxel on each slice, float64 ``[Z]``, ml."""
    return slice_thickness_mm(volume) * volume.spacing_mm[1] * volume.spacing_mm[2] / 1000.0


def slice_origins_lps(volume: CTVolume) -> Floats:
    """Return the centre of the first voxel of each slice, float64 ``[Z, 3]``, LPS mm, uneven gaps included."""
    affine = volume.affine_lps
    step_mm = abs(float(affine[:3, 2] @ normal_of(affine)))
    steps = (volume.slice_positions_mm - volume.slice_positions_mm[0]) / step_mm
    return affine[:3, 3] + steps[:, None] * affine[:3, 2]


def slice_shifts(volume: CTVolume) -> npt.NDArray[np.int64]:
    """Return by how many pixels each slice is shifted in its plane relative to the first.

    With a tilted gantry the same pixel of two slices does not lie on one normal. Add this shift to row and column to
    compare pixels along the normal.

    Returns:
        int64 ``[Z, 2]``: rows, columns, rounded.
    """
    affine = volume.affine_lps
    frame = np.column_stack([affine[:3, 1], affine[:3, 0], normal_of(affine)])
    origins = slice_origins_lps(volume)
    moved = np.linalg.solve(frame, (origins - origins[0]).T).T
    return np.rint(moved[:, :2]).astype(np.int64)
