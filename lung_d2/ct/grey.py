"""From Hounsfield units to the image for the network: grey levels 0 to 255, and the only place that makes an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.ct.headers import show_uid
from lung_d2.errors import ConfigError, InputError

GREY_KINDS = ("window", "minmax_clahe", "any")
"""How HU become grey levels, see :class:`GreyLevels`."""

# Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) with the clip limit and tiles
# of the notebook that prepared the public 8-bit COVID-19 slice sets.
_CLAHE_CLIP_LIMIT = 3.0
_CLAHE_TILES = (8, 8)
if TYPE_CHECKING:
    from lung_d2.ct.volume import CTVolume

CHANNELS = ("single", "neighbours")
"""What the three channels of an image hold, see :func:`image_from_planes`."""


@dataclass(frozen=True)
class GreyLevels:
    """How a slice becomes grey levels.

    Attributes:
        kind: ``"window"``: linear between the window's ends (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT).
            ``"minmax_clahe"``: the slice's own minimum to maximum, then CLAHE: mimics public 8-bit sets, for models
            trained on them. ``"any"``: the window for HU, and grey levels that a source has scaled as they are: for
            models that learnt both, see :mod:`lung_d2.data.augment.grey_levels`.
        window_center: Centre of the window in HU.
        window_width: Width of the window in HU, above 0.
    """

    kind: str = "window"
    window_center: float = -600.0
    window_width: float = 1500.0

    def __post_init__(self) -> None:
        if self.kind not in GREY_KINDS:
            raise ConfigError(
                "INPUT.CT.GREY", found=repr(self.kind), expected=" or ".join(GREY_KINDS), remedy="correct the key"
            )
        if not (np.isfinite(self.window_center) and np.isfinite(self.window_width) and self.window_width > 0):
            raise ConfigError(
                "INPUT.CT.WINDOW_CENTER/WIDTH",
                found=f"{self.window_center} / {self.window_width}",
                expected="finite HU and a width above 0",
                remedy="correct the keys",
            )

    def apply(self, plane: npt.NDArray[np.generic], hu_shift: float = 0.0) -> npt.NDArray[np.uint8]:
        """Turn one slice into grey levels.

        Args:
            plane: ``(H, W)``; int16 in HU, or uint8 that a source without HU has already scaled.
            hu_shift: Added to the HU before the window, in HU; grey sources have no HU and stay as they are.

        Returns:
            uint8 ``(H, W)``, 0..255.

        Raises:
            InputError: A window is asked of a source without HU, or the dtype is neither.
        """
        if plane.dtype == np.uint8:
            if self.kind == "window":
                raise InputError(
                    "8-bit grey slice",
                    found="no Hounsfield units, and INPUT.CT.GREY asks for a window",
                    remedy="use INPUT.CT.GREY any or minmax_clahe, or give the source in HU (DICOM or NIfTI)",
                )
            return np.asarray(plane, np.uint8)
        if plane.dtype != np.int16:
            raise InputError(
                "slice", found=f"dtype {plane.dtype}", expected="int16 HU or uint8 grey", remedy="convert it"
            )
        if self.kind != "minmax_clahe":
            return _window(plane, self.window_center - hu_shift, self.window_width)
        return _minmax_clahe(plane)


def _window(plane: npt.NDArray[np.generic], center: float, width: float) -> npt.NDArray[np.uint8]:
    low, levels_per_hu = np.float32(center - width / 2), np.float32(255 / width)
    levels: npt.NDArray[np.float32] = (plane.astype(np.float32) - low) * levels_per_hu
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def _minmax_clahe(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    hu = plane.astype(np.float32)
    span = max(float(hu.max() - hu.min()), 1.0)
    levels = np.rint((hu - hu.min()) * np.float32(255 / span)).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(_CLAHE_CLIP_LIMIT, _CLAHE_TILES).apply(levels), np.uint8)


def slice_image(
    volume: CTVolume, slice_index: int, *, grey: GreyLevels | None = None, channels: str = "single"
) -> npt.NDArray[np.uint8]:
    """Make the image of one slice of a volume.

    Args:
        volume: The series in HU.
        slice_index: 0-based along the slice normal.
        grey: Grey levels; the default is the lung window -600 / 1500 HU.
        channels: ``"single"`` or ``"neighbours"``, see :func:`image_from_planes`.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        InputError: The volume has no such slice, or no neighbours where they are asked for.
    """
    count = volume.hu.shape[0]
    if not 0 <= slice_index < count:
        raise InputError(
            f"{_name(volume)}, slice {slice_index}",
            found=f"a volume of {count} slices",
            remedy=f"take one of 0..{count - 1}",
        )
    try:
        indices = plane_indices(slice_index, count, channels)
    except InputError as error:
        raise error.at(f"{_name(volume)}, {error.where}") from error
    planes = [volume.hu[index] for index in indices]
    return image_from_planes(planes, grey=grey or GreyLevels())


def _name(volume: CTVolume) -> str:
    return f"series {show_uid(volume.series_instance_uid or volume.series_hash)}"


def plane_indices(slice_index: int, count: int, channels: str) -> tuple[int, ...]:
    """Return the slices that make the image of ``slice_index``: itself, or k-1, k, k+1 with the end slices repeated.

    Raises:
        InputError: ``"neighbours"`` of a source of one slice.
        ConfigError: ``channels`` is neither.
    """
    if channels == "single":
        return (slice_index,)
    if channels != "neighbours":
        raise ConfigError(
            "INPUT.CT.CHANNELS", found=repr(channels), expected=" or ".join(CHANNELS), remedy="correct it"
        )
    if count < 2:
        raise InputError(
            f"slice {slice_index}",
            found="no neighbouring slices",
            expected="at least two, for INPUT.CT.CHANNELS neighbours",
            remedy="give the whole series, or use a model with CHANNELS single",
        )
    return max(slice_index - 1, 0), slice_index, min(slice_index + 1, count - 1)


def image_from_planes(
    planes: Sequence[npt.NDArray[np.generic]], *, grey: GreyLevels, hu_shift: float = 0.0
) -> npt.NDArray[np.uint8]:
    """Make the image of one slice from its planes.

    Args:
        planes: One ``(H, W)`` plane, taken three times (the method's single-channel CT, in the three channels that
            ImageNet stems expect), or the three planes k-1, k, k+1. int16 HU, or uint8 of a source without HU.
        grey: Grey levels.
        hu_shift: Added to the HU first, in HU (the training's jitter).

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous: what ``DefaultPredictor(cfg)(image)`` takes.
    """
    levels = [grey.apply(plane, hu_shift) for plane in planes]
    if len(levels) == 1:
        levels = levels * 3
    if len(levels) != 3 or len({level.shape for level in levels}) != 1:
        shapes = ", ".join(str(plane.shape) for plane in planes)
        raise InputError(
            "image", found=f"planes {shapes}", expected="one or three of one size", remedy="check the source"
        )
    return np.ascontiguousarray(np.stack(levels, axis=-1))
