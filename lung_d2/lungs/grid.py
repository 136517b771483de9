"""The grid in which lungs are looked for: axial, along the patient's axes, with square pixels of about 1.5 mm."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.lungs.body import body_mask

RIGHT, LEFT = 1, 2
"""Labels of the patient's lungs."""
STEP_MM = 1.5
"""Fine enough for the wall between lung and bronchus or bowel (2 mm), coarse enough to average noise and be quick."""
SLICE_STEP_MM = 2.0
"""Thinner slices are averaged in groups to about this."""
MOST_PIXELS = 352
"""Longest side of a coarse slice; a field of view wider than 528 mm gets larger pixels."""
BEYOND_PIXELS = 100
"""How far the body is assumed to continue beyond a picture that cuts it."""

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.uint8]
"""Masks in the coarse grid: 0 or 1, as OpenCV takes them."""
Axes = tuple[int, int, int]
Flips = tuple[bool, bool, bool]


@dataclass(frozen=True, eq=False)
class LungGrid:
    """A CT volume in axial slices, whatever the order and direction of its axes, and a coarse copy cut to the body.

    Attributes:
        hu: int16 ``[S, P, L]``, a view of the volume: first axis to the head, second to the back, third to the
            patient's left.
        coarse: int16 ``[S', P', L']``, HU averaged to about :data:`STEP_MM` in slices, cut to the body's box.
        body: uint8 like ``coarse``: 1 in the body, inner air included.
        slice_mm: Distance of the slices of ``coarse``.
        pixel_mm: Pixel size of ``coarse``.
    """

    hu: npt.NDArray[np.int16] = field(repr=False)
    coarse: npt.NDArray[np.int16] = field(repr=False)
    body: Bits = field(repr=False)
    slice_mm: float
    pixel_mm: float
    _together: int
    _window: tuple[slice, slice]
    _uncut: tuple[int, int]
    _axes: Axes
    _flips: Flips

    @classmethod
    def of(cls, volume: CTVolume) -> LungGrid:
        """Turn a volume to the patient's axes, by whole axes: an oblique volume stays oblique by up to 45 degrees."""
        axes, flips = _patient_axes(volume.affine_lps)
        hu = _turned(volume.hu, axes, flips)
        slice_mm, row_mm, column_mm = (volume.spacing_mm[axis] for axis in axes)
        height_mm, width_mm = hu.shape[1] * row_mm, hu.shape[2] * column_mm
        pixel_mm = max(STEP_MM, height_mm / MOST_PIXELS, width_mm / MOST_PIXELS)
        uncut = (max(1, round(height_mm / pixel_mm)), max(1, round(width_mm / pixel_mm)))
        together = max(1, round(SLICE_STEP_MM / slice_mm))
        coarse = np.stack([_mean_slice(hu[first : first + together], uncut) for first in range(0, len(hu), together)])
        body = np.stack([body_mask(plane) for plane in coarse]).astype(np.uint8)
        window = _box(body)
        return cls(
            hu=hu,
            coarse=np.ascontiguousarray(coarse[:, *window]),
            body=np.ascontiguousarray(body[:, *window]),
            slice_mm=slice_mm * together,
            pixel_mm=pixel_mm,
            _together=together,
            _window=window,
            _uncut=uncut,
            _axes=axes,
            _flips=flips,
        )

    def kernel(self, radius_mm: float) -> Bits:
        """Return a disc for morphology on a coarse slice, of at least one pixel around its centre."""
        radius = max(1, round(radius_mm / self.pixel_mm))
        return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)

    def slices(self, distance_mm: float) -> int:
        """Return how many coarse slices are nearest to a distance; at least one."""
        return max(1, round(distance_mm / self.slice_mm))

    def body_depth_mm(self, index: int) -> npt.NDArray[np.float32]:
        """Return how deep each pixel of a coarse slice lies under the skin, mm, float32 ``(P', L')``.

        Where the picture cuts the body, it is assumed to continue.
        """
        (rows, columns), (height, width) = self._window, self._uncut
        ends = (rows.start == 0, rows.stop == height, columns.start == 0, columns.stop == width)
        top, bottom, left, right = (BEYOND_PIXELS if end else 0 for end in ends)
        whole = cv2.copyMakeBorder(self.body[index], top, bottom, left, right, cv2.BORDER_REPLICATE)
        whole = cv2.copyMakeBorder(whole, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        depth = cv2.distanceTransform(whole, cv2.DIST_L2, 3)[1 + top :, 1 + left :]
        shape = self.body.shape[1:]
        return np.asarray(depth[: shape[0], : shape[1]], np.float32) * np.float32(self.pixel_mm)

    def fine_slices(self, index: int) -> range:
        """Return the slices of ``hu`` that coarse slice ``index`` is made of."""
        return range(index * self._together, min((index + 1) * self._together, len(self.hu)))

    def enlarge(self, bits: Bits, *, smooth: bool) -> Bits:
        """Bring a coarse slice to the pixels of ``hu``.

        Args:
            bits: uint8 ``(P', L')``, 0 or 1.
            smooth: Draw the outline through the middle between inner and outer pixels, not along their edges.

        Returns:
            uint8 ``(P, L)``, 0 or 1.
        """
        uncut = np.zeros(self._uncut, np.uint8)
        uncut[self._window] = bits * np.uint8(255)
        method = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
        large = cv2.resize(uncut, (self.hu.shape[2], self.hu.shape[1]), interpolation=method)
        return (large > 127).astype(np.uint8)

    def to_volume(self, array: Array) -> Array:
        """Bring an array shaped as ``hu`` to the axes of the volume, ``[Z, Y, X]``."""
        flipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self._flips)]
        return np.ascontiguousarray(flipped.transpose(np.argsort(self._axes)))


def _patient_axes(affine_lps: npt.NDArray[np.float64]) -> tuple[Axes, Flips]:
    """Return for S, P and L the array axis that runs most nearly along it, and whether it runs against it."""
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    along = directions[::-1, ::-1]  # rows S, P, L; columns Z, Y, X
    x, y, z = max(permutations(range(3)), key=lambda order: abs(float(np.prod(along[range(3), order]))))
    flips = along[range(3), (x, y, z)] < 0
    return (x, y, z), (bool(flips[0]), bool(flips[1]), bool(flips[2]))


def _turned(array: Array, axes: Axes, flips: Flips) -> Array:
    return array.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _mean_slice(planes: npt.NDArray[np.int16], shape: tuple[int, int]) -> npt.NDArray[np.int16]:
    # Each axis apart: area averaging does not enlarge, and a coronal series is coarse along one axis alone.
    small = [_resized(_resized(plane, (shape[0], plane.shape[1])), shape) for plane in planes]
    return small[0] if len(small) == 1 else np.mean(small, axis=0).astype(np.int16)


def _resized(plane: npt.NDArray[np.int16], shape: tuple[int, int]) -> npt.NDArray[np.int16]:
    method = cv2.INTER_LINEAR if shape[0] > plane.shape[0] or shape[1] > plane.shape[1] else cv2.INTER_AREA
    resized = cv2.resize(np.ascontiguousarray(plane), (shape[1], shape[0]), interpolation=method)
    return np.asarray(resized, np.int16)


def _box(body: Bits) -> tuple[slice, slice]:
    """Return the rows and columns that the body needs; all of them where there is none."""
    spans = []
    for axis, size in ((2, body.shape[1]), (1, body.shape[2])):
        filled = np.flatnonzero(body.any(axis=(0, axis)))
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, size))
    return spans[0], spans[1]
