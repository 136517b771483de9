"""Images and label volumes, read in a worker: grey levels become HU, and stacks of unrelated slices their slices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lung_d2.ct.affine import positions_along_normal
from lung_d2.ct.labels import Labels
from lung_d2.ct.volume import CTVolume
from lung_d2.ct.volume_files import build_volume, read_raw_volume
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.importers.pair_table import LabelFile, Pair
from lung_d2.data.importers.volumes import (
    join_regions,
    meanings_of_values,
    read_labels_on,
    regions_of_instances,
    regions_of_labels,
)
from lung_d2.data.instances import InstanceRule, Region, annotate_slice
from lung_d2.data.labels import LabelTable

logger = logging.getLogger(__name__)

HuRange = tuple[float, float]
"""HU that the first and the last of ``GREY_RANGE`` stand for."""

GREY_RANGE = (0.0, 255.0)
"""The values of an image of grey levels; HU of a chest are never all of them above -1."""


def read_pair_image(path: Path, hu_range: HuRange | None) -> CTVolume:
    """Read an image in HU.

    Args:
        path: The file.
        hu_range: HU of grey levels 0 and 255, for images whose values lie between; others, which have air below 0,
            hold HU and are read as they are. None: all hold HU.

    Raises:
        InputError: It cannot be read, or holds no HU.
    """
    raw = read_raw_volume(path)
    if hu_range is None:
        return build_volume(raw)
    low = min(float(values.min()) for values in raw.slices())
    high = max(float(values.max()) for values in raw.slices())
    # Half a grey level: what scaled and compressed images round to.
    if low < GREY_RANGE[0] - 0.5 or high > GREY_RANGE[1] + 0.5:
        logger.info("%s: values from %g to %g, read as HU", path, low, high)
        return build_volume(raw)
    step = (hu_range[1] - hu_range[0]) / (GREY_RANGE[1] - GREY_RANGE[0])
    return build_volume(replace(raw, slope=raw.slope * step, intercept=raw.intercept * step + hu_range[0]))


def read_pair_regions(
    labels: Sequence[LabelFile], table: LabelTable, volume: CTVolume
) -> Callable[[int], Sequence[Region]]:
    """Read the labels of an image onto its grid.

    Raises:
        DatasetError: A label has no meaning.
        InputError: A file cannot be read, or lies on another grid.
    """
    return join_regions([_regions_of(label, read_labels_on(label.path, volume), table) for label in labels])


def _regions_of(label: LabelFile, values: Labels, table: LabelTable) -> Callable[[int], Sequence[Region]]:
    if label.meaning is not None:
        return regions_of_instances(values, label.meaning)
    return regions_of_labels(values, meanings_of_values(values, table, label.path))


@lru_cache(maxsize=1)
def _read_stack(pair: Pair, hu_range: HuRange | None, fingerprint: str) -> tuple[CTVolume, tuple[Labels, ...]]:
    """Read a stack of slices once for all cases that a worker makes of it; ``fingerprint``: of the files it read."""
    volume = read_pair_image(pair.image, hu_range)
    return volume, tuple(read_labels_on(label.path, volume) for label in pair.labels)


def load_slice(
    pair: Pair,
    index: int,
    hu_range: HuRange | None,
    table: LabelTable,
    rule: InstanceRule,
    fingerprint: str,
    name: str,
) -> Iterator[AnnotatedSlice]:
    """Load one slice of a stack of unrelated ones, without a spacing: one header cannot have that of all.

    Args:
        pair: The stack.
        index: Of the slice.
        hu_range: See :func:`read_pair_image`.
        table: Meaning of the labels.
        rule: What one instance is.
        fingerprint: Of the files of the pair.
        name: What messages call the stack.
    """
    from lung_d2.lungs.field import find_lungs  # here: it loads more than finding cases needs

    volume, labels = _read_stack(pair, hu_range, fingerprint)
    here = slice(index, index + 1)
    regions_of = join_regions(
        [_regions_of(label, values[here], table) for label, values in zip(pair.labels, labels, strict=True)]
    )
    lungs = find_lungs(_one_slice(volume, index)).mask[0]
    yield annotate_slice(volume.hu[index], regions_of(0), rule, index, lungs=lungs, name=f"{name} slice {index}")


def _one_slice(volume: CTVolume, index: int) -> CTVolume:
    affine = volume.affine_lps.copy()
    affine[:3, 3] += index * affine[:3, 2]
    return replace(
        volume,
        hu=volume.hu[index : index + 1],
        slice_positions_mm=positions_along_normal(affine, 1),
        affine_lps=affine,
        sop_instance_uids=("",),
        frame_numbers=(None,),
    )
