"""Segmentations as 3D Slicer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicerio

TISSUE = ("85756007", "SCT", "Tissue")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Keys:
    """Slicer's keys of one segment.

    Attributes:
        name: What the user calls it.
        code: Value, scheme and meaning of its type.
        others: Further keys, as slicerio spells them.
    """

    name: str
    code: tuple[str, str, str] = TISSUE
    others: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, layer: int, value: int) -> dict[str, Any]:
        """Return all keys of the segment."""
        kind = [self.code[1], self.code[0], self.code[2]]
        terminology = {"contextName": "x", "category": ["SCT", "49755003", "Morphologically Altered"], "type": kind}
        own = {"id": f"Segment_{self.name}", "name": self.name, "labelValue": value, "layer": layer}
        return own | {"terminology": terminology, "status": "inprogress"} | dict(self.others)


def write_segmentation(
    path: Path,
    segments: Mapping[Keys, Mask],
    affine_lps: npt.NDArray[np.float64],
    *,
    crop: bool = True,
    layers: bool = False,
    **header: Any,
) -> int:
    """Write masks ``[Z, Y, X]`` as a ``.seg.nrrd``.

    Args:
        path: The file; folders that miss are made.
        segments: Keys and mask of each.
        affine_lps: Index (x, y, z, 1) to LPS mm.
        crop: Cut the voxels down to what is marked, as Slicer does.
        layers: Put each segment that overlaps an earlier one of its layer on a further layer; else the last one wins.
        header: Further keys of the file.

    Returns:
        The number of layers.
    """
    planes: list[npt.NDArray[np.uint8]] = []
    keys = []
    for one, mask in segments.items():
        free = (index for index, plane in enumerate(planes) if not (layers and (plane[mask] > 0).any()))
        layer = next(free, len(planes))
        if layer == len(planes):
            planes.append(np.zeros(mask.shape, np.uint8))
        value = int(planes[layer].max()) + 1
        planes[layer][mask] = value
        keys.append(one.fill(layer, value))
    marked = np.argwhere(np.any([plane > 0 for plane in planes], axis=0))
    low, high = (marked.min(0), marked.max(0) + 1) if crop and len(marked) else (np.zeros(3, int), planes[0].shape)
    affine = np.array(affine_lps)
    affine[:3, 3] += affine[:3, :3] @ low[::-1]
    window = tuple(slice(*ends) for ends in zip(low, high, strict=True))
    voxels = [plane[window].transpose(2, 1, 0) for plane in planes]
    content = {
        "voxels": voxels[0] if len(voxels) == 1 else np.stack(voxels),
        "ijkToLPS": affine,
        "containedRepresentationNames": ["Binary labelmap", "Closed surface"],
        "masterRepresentation": "Binary labelmap",
        "referenceImageExtentOffset": [int(start) for start in low[::-1]],
        "segments": keys,
    } | header
    path.parent.mkdir(parents=True, exist_ok=True)
    slicerio.write_segmentation(str(path), content)
    return len(planes)
