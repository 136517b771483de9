"""Regions that a source leaves undecided: neither lesion nor background.

A partly labelled source marks them ``iscrowd``. The mapper passes them to the model as instances with ``gt_crowd`` true
and the model computes how much of each box lies inside them. A region of one category is undecided for all of them.
"""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from torch.nn import functional

MOSTLY = 0.5
"""A box is not background if more than this share of it is undecided."""


def split_undecided(instances: Instances) -> tuple[Instances, torch.Tensor | None]:
    """Separate the lesions of a training slice from its undecided regions.

    Args:
        instances: ``gt_boxes``, ``gt_classes`` and ``gt_masks`` (``BitMasks``); where the slice has undecided regions
            also ``gt_crowd``, bool ``(N,)``.

    Returns:
        The lesions, without ``gt_crowd``, and the union of the undecided regions, bool ``(H, W)``, or None where the
        slice has none.
    """
    if not instances.has("gt_crowd"):
        return instances, None
    lesions = instances[~instances.gt_crowd]
    lesions.remove("gt_crowd")
    return lesions, instances.gt_masks.tensor[instances.gt_crowd].any(dim=0)


def mostly_inside(boxes: Boxes, region: torch.Tensor) -> torch.Tensor:
    """Return which boxes lie with more than half of their area inside a region, bool ``(N,)``.

    Args:
        boxes: ``N`` boxes in pixels of the region.
        region: bool ``(H, W)``, on the boxes' device.
    """
    return share_inside(boxes.tensor, region) > MOSTLY


def share_inside(boxes: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Return the share of each box that lies inside a region.

    The corners of a box are looked up in the region's integral image (Crow, Summed-area tables, 1984). Between pixels
    it is bilinear, since a pixel is inside or outside as a whole: the share is exact for fractional corners too.

    Args:
        boxes: float ``(N, 4)``, x0, y0, x1, y1 in pixels. What lies beyond the image counts as outside of the region.
        region: bool ``(H, W)``, of any shape: in pieces, with holes.

    Returns:
        float64 ``(N,)`` from 0 to 1; 0 for a box without area.
    """
    height, width = region.shape
    # Counted in int64 and looked up in float64, which hold the pixels of any picture exactly, autocast or not.
    counts = functional.pad(region.long().cumsum(0).cumsum(1), (1, 0, 1, 0)).double()
    x, y = boxes[:, 0::2].double(), boxes[:, 1::2].double()
    corners = _interpolate(counts, y.clamp(0, height)[:, :, None], x.clamp(0, width)[:, None, :])
    inside = corners[:, 1, 1] - corners[:, 0, 1] - corners[:, 1, 0] + corners[:, 0, 0]
    area = (x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])
    return torch.where(area > 0, inside / area, 0.0)


def _interpolate(grid: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Look up a grid ``(H, W)`` at coordinates within it, which broadcast against each other."""
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=grid.shape[0] - 1), (left + 1).clamp(max=grid.shape[1] - 1)
    upper = torch.lerp(grid[top, left], grid[top, right], x - left)
    lower = torch.lerp(grid[bottom, left], grid[bottom, right], x - left)
    return torch.lerp(upper, lower, y - top)
