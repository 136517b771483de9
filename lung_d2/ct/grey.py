"""Grey levels: the one way from Hounsfield units to the 0..255 that the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.errors import ConfigError, InputError

GREY_KINDS = ("window", "minmax_clahe")
"""How HU become grey levels, see :class:`GreyLevels`."""

# Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) with the clip limit and tiles
# of the notebook that prepared the public 8-bit COVID-19 slice sets.
_CLAHE_CLIP_LIMIT = 3.0
_CLAHE_TILES = (8, 8)


@dataclass(frozen=True)
class GreyLevels:
    """How a slice becomes grey levels.

    Attributes:
        kind: ``"window"``: linear between the window's ends (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT).
            ``"minmax_clahe"``: the slice's own minimum to maximum, then CLAHE: mimics public 8-bit sets, for models
            trained on them.
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
                    remedy="use INPUT.CT.GREY minmax_clahe, or give the source in HU (DICOM or NIfTI)",
                )
            return np.asarray(plane, np.uint8)
        if plane.dtype != np.int16:
            raise InputError(
                "slice", found=f"dtype {plane.dtype}", expected="int16 HU or uint8 grey", remedy="convert it"
            )
        if self.kind == "window":
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
