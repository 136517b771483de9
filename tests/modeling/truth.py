"""Training slices of 64 x 64 pixels with lesions and undecided regions, as the mapper would attach them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Instances

from tiny import Mask, square

SIZE = 64
# 64 boxes of 8 x 8 pixels that tile the slice, row by row.
TILES = torch.tensor([[x, y, x + 8, y + 8] for y in range(0, SIZE, 8) for x in range(0, SIZE, 8)], dtype=torch.float32)
TILE_IS_LEFT = TILES[:, 0] < SIZE // 2
LEFT_HALF: Mask = square(SIZE, 0, 0, SIZE) & ~square(SIZE, 0, SIZE // 2, SIZE)
EVERYWHERE: Mask = square(SIZE, 0, 0, SIZE)


def truth(lesions: Sequence[Mask] = (), undecided: Sequence[Mask] = ()) -> Instances:
    """Return the instances of a slice: GGO and bronchiectasis by turns, first the lesions."""
    instances = Instances((SIZE, SIZE))
    masks = [torch.from_numpy(mask) for mask in (*lesions, *undecided)]
    instances.gt_masks = BitMasks(torch.stack(masks) if masks else torch.empty(0, SIZE, SIZE, dtype=torch.bool))
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.arange(len(masks)) % 2
    if undecided:
        instances.gt_crowd = torch.arange(len(masks)) >= len(lesions)
    return instances
