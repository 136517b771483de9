"""Parts of slices that hold a lesion, so that a network which sees parts alone is not taught on background alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import transforms as T

Boxes = npt.NDArray[np.floating]


class LesionCrop(T.RandomCrop):  # type: ignore[misc]
    """Detectron2's random crop, a share of which is laid around a lesion.

    A crop drawn anywhere may miss what lesions a slice has, or cut them: nnU-Net (Isensee et al., Nature Methods 18,
    2021) forces a third of its patches to hold foreground for the same reason.
    """

    def __init__(self, crop_type: str, crop_size: tuple[float, float], share: float) -> None:
        """Keep the settings.

        Args:
            crop_type: ``INPUT.CROP.TYPE``.
            crop_size: ``INPUT.CROP.SIZE``.
            share: Of the crops of slices with lesions, 0 to 1, that hold one of them, drawn evenly.
        """
        super().__init__(crop_type, crop_size)
        self.share = share

    def get_transform(self, image: npt.NDArray[Any], boxes: Boxes) -> T.Transform:
        """Draw a crop from numpy's global generator; at share 0 the same as Detectron2.

        Args:
            image: ``(H, W)`` or ``(H, W, C)``.
            boxes: Of the lesions, float ``(N, 4)``: left, top, right, bottom, in pixels; they may leave the picture.

        Returns:
            A crop that, along each axis, holds the whole of what the picture shows of the lesion, or lies within it.
        """
        size = image.shape[:2]
        shown = _clip(boxes, size)
        if not self.share or not len(shown) or np.random.random() >= self.share:
            return super().get_transform(image)
        left, top, right, bottom = shown[np.random.randint(len(shown))]
        rows, columns = self.get_crop_size(size)
        y = _draw_start((top, bottom), rows, size[0])
        x = _draw_start((left, right), columns, size[1])
        return T.CropTransform(x, y, columns, rows, size[1], size[0])


def _clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Return the parts of boxes that lie in a picture of ``size``, rows and columns."""
    height, width = size
    inside = np.clip(boxes, 0, (width, height, width, height))
    return inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)]


def _draw_start(lesion: tuple[float, float], length: int, whole: int) -> int:
    """Draw where a span of ``length`` pixels begins, of ``whole`` pixels, that holds a lesion or lies within it."""
    ends = sorted((np.ceil(lesion[1]) - length, np.floor(lesion[0])))
    low, high = np.clip(ends, 0, whole - length).astype(int)
    return int(np.random.randint(low, high + 1))
