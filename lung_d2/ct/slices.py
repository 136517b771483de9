"""The one place where an image for the network is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lung_d2.ct.grey import GreyLevels
from lung_d2.ct.headers import show_uid
from lung_d2.errors import ConfigError, InputError

if TYPE_CHECKING:
    from lung_d2.ct.volume import CTVolume

CHANNELS = ("single", "neighbours")
"""What the three channels of an image hold, see :func:`image_from_planes`."""


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
