"""Find the slices of a CT by patient coordinates, checked against the images that annotations name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lung_d2.ct.geometry import STEP_TOLERANCE, describe_grid, normal_of
from lung_d2.ct.headers import show_uid
from lung_d2.ct.labels import GRID_TOLERANCE
from lung_d2.ct.volume import CTVolume
from lung_d2.data.importers.dicom.annotation_objects import ImageReference
from lung_d2.errors import GeometryError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]

_MOST_OFF = 0.4
"""Share of a slice spacing; farther from a slice, it is ambiguous which slice is meant."""


@dataclass(frozen=True, eq=False)
class FramePlane:
    """Where the pixels of a frame lie.

    Attributes:
        origin_mm: LPS of the centre of the first pixel.
        across_mm: LPS step from a column to the next.
        down_mm: LPS step from a row to the next.
        shape: Rows and columns.
    """

    origin_mm: Floats
    across_mm: Floats
    down_mm: Floats
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Placement:
    """The voxels of a CT that correspond to the pixels of a frame.

    Attributes:
        start: (x, y, z) index of its first pixel.
        steps: ``(3, 2)``, of 0, 1 and -1: the voxel steps from a column to the next and from a row to the next.
    """

    start: Integers
    steps: Integers

    @property
    def slice_index(self) -> int | None:
        """The slice that the frame lies in; None where it cuts across slices."""
        return None if self.steps[2].any() else int(self.start[2])

    def voxels(self, mask: npt.NDArray[np.bool_]) -> Integers:
        """Return the (x, y, z) indices of the pixels inside, ``(3, N)``; some may lie outside the CT."""
        rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])  # five times as fast as np.nonzero
        voxels: Integers = self.start[:, None] + self.steps @ np.stack([columns, rows])
        return voxels


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The grid of a CT, on which annotations are placed.

    Attributes:
        affine_lps: ``(4, 4)``; index (x, y, z, 1) to LPS mm.
        shape: (Z, Y, X).
        positions_mm: Of the slices along their normal, ``[Z]``.
        spacing_mm: Between slices, along their normal.
        images: The slices of each image file by its SOP instance UID, with their frame numbers.
    """

    affine_lps: Floats = field(repr=False)
    shape: tuple[int, int, int]
    positions_mm: Floats = field(repr=False)
    spacing_mm: float
    images: dict[str, list[tuple[int, int | None]]] = field(repr=False)

    @classmethod
    def of(cls, volume: CTVolume) -> SliceGrid:
        """Return the grid of a volume."""
        images: dict[str, list[tuple[int, int | None]]] = {}
        for index, (uid, frame) in enumerate(zip(volume.sop_instance_uids, volume.frame_numbers, strict=True)):
            images.setdefault(uid, []).append((index, frame))
        z, y, x = volume.hu.shape
        return cls(volume.affine_lps, (z, y, x), volume.slice_positions_mm, volume.spacing_mm[0], images)

    @property
    def slice_tolerance(self) -> float:
        """How far from a slice its annotations may lie, in slice spacings: as far as slices may from even spacing."""
        share, rounding_mm = STEP_TOLERANCE
        return min(share + rounding_mm / self.spacing_mm, _MOST_OFF)

    def indices_of(self, points_mm: Floats) -> Floats:
        """Return the (x, y, z) indices of LPS points ``(N, 3)``; z is between the true positions of the slices."""
        homogeneous = np.column_stack([points_mm, np.ones(len(points_mm))])
        indices: Floats = (homogeneous @ np.linalg.inv(self.affine_lps).T)[:, :3]
        along, first, last = points_mm @ normal_of(self.affine_lps), self.positions_mm[0], self.positions_mm[-1]
        indices[:, 2] = np.interp(along, self.positions_mm, np.arange(self.shape[0], dtype=np.float64))
        indices[:, 2] += (np.minimum(along - first, 0) + np.maximum(along - last, 0)) / self.spacing_mm
        return indices

    def place(self, plane: FramePlane, where: str) -> Placement:
        """Place a frame on the grid.

        Args:
            plane: The frame.
            where: What messages call it.

        Raises:
            GeometryError: It differs from the grid by more than the order and direction of axes and a crop.
        """
        rows, columns = plane.shape
        corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])
        there = self.indices_of(plane.origin_mm + corners @ np.stack([plane.across_mm, plane.down_mm]))
        linear = np.linalg.inv(self.affine_lps[:3, :3]) @ np.stack([plane.across_mm, plane.down_mm], axis=1)
        steps = np.rint(linear).astype(np.intp)
        start = np.rint(there[0]).astype(np.intp)
        off = np.abs(there - (start + corners @ steps.T)).max(axis=0)
        if not np.array_equal(steps.T @ steps, np.eye(2)) or off[:2].max() > GRID_TOLERANCE:
            raise GeometryError(
                where,
                found=f"a grid of {_describe(plane)}",
                expected=f"that of the CT or a part of it, {describe_grid(self.shape, self.affine_lps)}",
                remedy="export or resample the annotation on the CT series itself",
            )
        if off[2] > self.slice_tolerance:
            raise self._between(there[:, 2], where)
        return Placement(start, steps)

    def slice_at(self, z: Floats, where: str) -> int:
        """Return the slice that planar points lie in.

        Args:
            z: Their indices along the normal, of :meth:`indices_of`.
            where: What messages call them.

        Raises:
            GeometryError: They lie off the slices, or on several.
        """
        index = int(np.rint(np.median(z)))
        if np.abs(z - index).max() > self.slice_tolerance or not 0 <= index < self.shape[0]:
            raise self._between(z, where)
        return index

    def slices_named(self, references: Sequence[ImageReference], where: str) -> set[int]:
        """Return the slices whose images are named; empty if no image is named.

        Raises:
            GeometryError: Images are named, but not of this series.
        """
        named = {
            index
            for uid, wanted in references
            for index, frame in self.images.get(uid, ())
            if wanted is None or frame is None or wanted == frame
        }
        if references and not named:
            raise GeometryError(
                where,
                found=f"names image {show_uid(references[0].sop_instance_uid)}, which is not in the series",
                expected="an image of its CT series",
                remedy="give the whole series that it was drawn on",
            )
        return named

    def check_images(self, index: int, references: Sequence[ImageReference], where: str) -> None:
        """Check that an annotation on a slice names the image of that slice, if it names any.

        Raises:
            GeometryError: It names another image, or one that is not in the series.
        """
        named = self.slices_named(references, where)
        if named and index not in named:
            raise GeometryError(
                where,
                found=f"lies on slice {index} by its position, but names the image of slice {min(named)}",
                expected="both the same",
                remedy="export it again, or give the series it was drawn on",
            )

    def slice_named(self, references: Sequence[ImageReference], where: str) -> int:
        """Return the one slice whose image is named.

        Raises:
            GeometryError: No image is named, or several are.
        """
        named = self.slices_named(references, where)
        if len(named) != 1:
            raise GeometryError(
                where,
                found=f"no position, and {len(named)} slices that it names",
                expected="a position, or one image",
                remedy="export it again with plane positions",
            )
        return min(named)

    def _between(self, z: Floats, where: str) -> GeometryError:
        worst = z[np.argmax(np.abs(z - np.clip(np.rint(z), 0, self.shape[0] - 1)))]
        nearest = int(np.clip(np.rint(worst), 0, self.shape[0] - 1))
        if np.ptp(z) * self.spacing_mm > 2 * self.slice_tolerance * self.spacing_mm:
            found = f"it is {np.ptp(z) * self.spacing_mm:.2f} mm deep across the slices"
        else:
            found = f"lies {abs(worst - nearest) * self.spacing_mm:.2f} mm from slice {nearest}, the nearest"
        return GeometryError(
            where,
            found=found,
            expected=f"in a slice, within {self.slice_tolerance * self.spacing_mm:.2f} mm",
            remedy="give the series it was drawn on, or draw it on the slices",
        )


def _describe(plane: FramePlane) -> str:
    steps = (plane.down_mm, plane.across_mm)
    y, x = (float(np.linalg.norm(step)) for step in steps)
    origin = ", ".join(f"{value:.1f}" for value in plane.origin_mm)
    axes = " ".join("(" + " ".join(f"{v:.2f}" for v in step / np.linalg.norm(step)) + ")" for step in steps[::-1])
    return f"{plane.shape[0]} x {plane.shape[1]} pixels of {y:.3g} x {x:.3g} mm from ({origin}) along {axes}"
