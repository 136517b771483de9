"""The part of a volume that the network looks at, and the detections that count, where the lungs are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.lungs.field import LungField

BOX_MARGIN_MM = 30.0
"""Tissue around the lungs that the network still sees: wall and diaphragm help to judge a density at the pleura."""
NEAR_MM = 10.0
"""Distance from the lungs within which a lesion or slice counts as inside: dense disease may lie outside the field."""
LEAST_INSIDE = 0.5
"""Smallest share of a detection's mask within :data:`NEAR_MM` of the lungs with which it is kept."""

Window = tuple[slice, slice]
"""Rows and columns of a slice."""


@dataclass(frozen=True)
class LungUse:
    """How the lung field narrows what the network sees and reports.

    These are not keys of the config, because they change neither the images nor the model that a config describes: the
    evaluation of slices on disk, which reads the config too, has no lungs.

    Attributes:
        skip_slices: Skip slices more than :data:`NEAR_MM` above or below the lungs.
        crop: Show the network only the box around the lungs of all slices, with a margin of :data:`BOX_MARGIN_MM`, at
            the mm per pixel of the whole slice. None: if it has no layer that depends on the whole image.
        drop_outside: Drop detections with less than :data:`LEAST_INSIDE` of their mask within :data:`NEAR_MM` of the
            lungs of their slice.
    """

    skip_slices: bool = True
    crop: bool | None = None
    drop_outside: bool = True


@dataclass(frozen=True, eq=False)
class LungView:
    """A volume reduced to its lungs; without lungs, all of it.

    Attributes:
        volume: The CT.
        use: What the lungs are used for.
        lungs: None where they are unknown or none were found.
    """

    volume: CTVolume
    use: LungUse
    lungs: LungField | None = field(default=None, repr=False)

    @classmethod
    def of(cls, volume: CTVolume, lungs: LungField | None = None, use: LungUse | None = None) -> LungView:
        """Make the view of a volume; a field without lungs counts as unknown."""
        return cls(volume, use or LungUse(), lungs if lungs is not None and lungs.labels.any() else None)

    @cached_property
    def slices(self) -> list[int]:
        """The slices to run, ascending."""
        if self.lungs is None or not self.use.skip_slices:
            return list(range(len(self.volume.hu)))
        positions = self.volume.slice_positions_mm
        lungs = positions[self.lungs.labels.any(axis=(1, 2))]
        near = np.abs(positions[:, None] - lungs).min(axis=1) <= NEAR_MM
        return [int(index) for index in np.flatnonzero(near)]

    @property
    def margin_mm(self) -> float | None:
        """Margin around the lungs that the network sees; None where it sees whole slices."""
        return BOX_MARGIN_MM if self.lungs is not None and self.use.crop else None

    @cached_property
    def window(self) -> Window:
        """Rows and columns that the network has to see, in pixels of the slices."""
        if self.lungs is None or self.margin_mm is None:
            return slice(0, self.volume.hu.shape[1]), slice(0, self.volume.hu.shape[2])
        return self.lungs.box(self.margin_mm)

    def inside(self, slice_index: int, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which detections of a slice count.

        Args:
            slice_index: The slice.
            masks: bool ``(N, H, W)``.

        Returns:
            bool ``(N,)``.
        """
        if self.lungs is None or not self.use.drop_outside:
            return np.ones(len(masks), bool)
        lungs = (self.lungs.labels[slice_index] > 0).astype(np.uint8)
        near = cv2.dilate(lungs, self._kernel).astype(bool)
        shared = [(int(np.count_nonzero(mask & near)), int(np.count_nonzero(mask))) for mask in masks]
        return np.array([part > 0 and part >= LEAST_INSIDE * whole for part, whole in shared], bool)

    @cached_property
    def _kernel(self) -> npt.NDArray[np.uint8]:
        assert self.lungs is not None
        sides = [2 * round(NEAR_MM / mm) + 1 for mm in self.lungs.spacing_mm[:0:-1]]  # columns, rows
        return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, sides), np.uint8)
