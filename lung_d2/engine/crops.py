"""Crops of slices for the network, at the scale of the whole slice, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from lung_d2.engine.lung_view import Window


@dataclass(frozen=True, eq=False)
class Crop:
    """A crop of a resized slice, ready for the network.

    Attributes:
        slice_index: The slice.
        pixels: uint8 ``(3, h, w)``.
        offset: Row and column of its first pixel in the resized slice.
        resized: Rows and columns of the resized slice.
        size: Rows and columns of the slice.
    """

    slice_index: int
    pixels: torch.Tensor = field(repr=False)
    offset: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]

    def put_back(self, found: Instances) -> Instances:
        """Move what the network found in the crop to its place in the slice, by Detectron2's own resize.

        Args:
            found: With ``pred_boxes`` in pixels of the crop and ``pred_masks`` ``(N, 1, M, M)`` of the boxes.

        Returns:
            On the CPU, by falling score, ``pred_boxes`` in pixels of the slice and ``pred_masks`` bool ``(N, H, W)``.
        """
        moved = Instances(self.resized, **found.get_fields())
        top, left = self.offset
        boxes = found.pred_boxes.tensor
        moved.pred_boxes = Boxes(boxes + boxes.new_tensor([left, top, left, top]))
        return by_falling_score(detector_postprocess(moved, *self.size).to("cpu"))


def by_falling_score(instances: Instances) -> Instances:
    """Return instances in the order of their scores."""
    return instances[torch.argsort(instances.scores, descending=True, stable=True)]


def cut_crop(
    image: npt.NDArray[np.uint8],
    slice_index: int,
    resize: T.Augmentation,
    *,
    window: Window | None = None,
    stride: int = 1,
) -> Crop:
    """Resize a slice as in training, then cut.

    The resize comes first, and the cut follows the strides of the network's coarsest level, so that the network sees
    the same pixels and anchors as in the whole slice; only their surroundings are smaller.

    Args:
        image: uint8 ``(H, W, 3)``.
        slice_index: Kept in the result.
        resize: The resize of the test loader.
        window: Rows and columns that have to be in the crop, which may be larger; None: all.
        stride: In pixels of the resized slice.
    """
    height, width = image.shape[:2]
    rows, columns = window or (slice(0, height), slice(0, width))
    resized = resize.get_transform(image).apply_image(image)
    top, bottom = _grow(rows, height, resized.shape[0], stride)
    left, right = _grow(columns, width, resized.shape[1], stride)
    part = resized[top:bottom, left:right].transpose(2, 0, 1)
    return Crop(
        slice_index=slice_index,
        pixels=torch.from_numpy(np.ascontiguousarray(part)),
        offset=(top, left),
        resized=resized.shape[:2],
        size=(height, width),
    )


def _grow(span: slice, whole: int, resized: int, stride: int) -> tuple[int, int]:
    """Return start and stop of a span in the resized slice, extended to the next strides or to its end."""
    first = span.start * resized // whole // stride * stride
    last = -(-span.stop * resized // (whole * stride)) * stride
    return first, min(last, resized)


def batch_crops(crops: Iterator[Crop], size: int) -> Iterator[list[Crop]]:
    """Yield lists of at most ``size`` crops of one shape, since others would be padded."""
    batch: list[Crop] = []
    for crop in crops:
        if batch and (len(batch) == size or batch[0].pixels.shape != crop.pixels.shape):
            yield batch
            batch = []
        batch.append(crop)
    if batch:
        yield batch
