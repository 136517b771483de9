"""Mean and standard deviation of the images that the model is given, inside the body: for ``MODEL.PIXEL_MEAN/STD``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lung_d2.data.mapper import CTDatasetMapper
from lung_d2.data.planes import read_plane
from lung_d2.errors import DatasetError
from lung_d2.lungs.body import body_mask

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_LEVELS = 256


@dataclass(frozen=True)
class PixelStats:
    """Statistics of a set of images.

    Attributes:
        mean: For each of the three channels, in grey levels 0..255.
        std: The same.
        slices: Slices measured, those without a body left out.
        body_share: Share of their pixels that lies in the body, 0..1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    slices: int
    body_share: float


def measure_pixel_stats(cfg: CfgNode, records: Iterable[Mapping[str, Any]]) -> PixelStats:
    """Measure the images of dataset dicts as ``cfg`` makes them, without augmentation and at their own size.

    The body is what :func:`lung_d2.lungs.body_mask` finds: the air around it and the table, of which a scan may hold
    any amount, do not count; the air in the lungs does.

    Args:
        cfg: Its ``INPUT.CT`` makes the images.
        records: Dataset dicts of :func:`lung_d2.data.register.load_lung_json`.

    Raises:
        DatasetError: There is no body on any slice, or a slice cannot be read.
    """
    mapper = CTDatasetMapper(**(CTDatasetMapper.from_config(cfg, is_train=False) | {"augmentations": []}))
    # Counts of grey levels: exact, and of one size however many slices there are.
    counts = np.zeros((3, _LEVELS), np.int64)
    slices = pixels = 0
    for record in records:
        body = body_mask(read_plane(record["file_name"]))
        if not body.any():
            continue
        slices, pixels = slices + 1, pixels + body.size
        for channel, image in enumerate(mapper(dict(record))["image"].numpy()):
            counts[channel] += np.bincount(image[body], minlength=_LEVELS)
    if not slices:
        raise DatasetError(
            "pixel statistics", found="no body on any slice", expected="CT of the chest", remedy="look at the slices"
        )
    mean, std = _moments(counts)
    return PixelStats(mean, std, slices, float(counts[0].sum() / pixels))


def _moments(counts: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    levels, total = np.arange(_LEVELS), counts.sum(axis=1)
    mean = counts @ levels / total
    variance = counts @ levels**2 / total - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
