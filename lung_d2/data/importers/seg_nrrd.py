"""Segmentations of 3D Slicer (``.seg.nrrd``): their segments, on the grid of a CT.

Slicer's keys: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html. Segments that do not
overlap share a layer, each with a value of its own. The voxels are cropped to the segments; where they lie is told by
the origin of the file alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicerio

from lung_d2.ct.labels import Labels, LabelVolume, labels_on_grid, read_label_layers
from lung_d2.ct.nrrd_header import HEADER_END
from lung_d2.ct.text_headers import read_text
from lung_d2.ct.volume import CTVolume
from lung_d2.data.importers.segmentation import CODES
from lung_d2.data.instances import Region
from lung_d2.data.labels import LabelTable, meanings_of_names
from lung_d2.errors import GeometryError, InputError

SEGMENTATION_SUFFIX = ".seg.nrrd"

_METADATA_ERRORS = (ArithmeticError, LookupError, OSError, TypeError, ValueError)
"""What slicerio, and pynrrd under it, raise on damaged keys."""


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        layer: Which layer holds it, from 0.
        value: Its value there.
        names: What :class:`LabelTable` knows it by: the name of its code, its own name, and the code's meaning.
        lesion: Its ID, or else its place in the file.
    """

    layer: int
    value: int
    names: tuple[str, ...]
    lesion: str


def is_segmentation(path: Path) -> bool:
    """Tell by its name whether a file is a segmentation of 3D Slicer."""
    return path.name.casefold().endswith(SEGMENTATION_SUFFIX)


def read_segments_on(path: Path, labels: LabelTable, volume: CTVolume) -> Callable[[int], list[Region]]:
    """Read a segmentation onto the grid of its CT.

    Args:
        path: The file.
        labels: Meaning of the segments by name, or by the meaning or value of their code.
        volume: The CT it was drawn on, or one on the same grid.

    Returns:
        The regions of a slice by its index; each segment is a lesion.

    Raises:
        DatasetError: A segment with voxels means nothing.
        GeometryError: It lies on another grid, or partly outside the CT.
        InputError: It is damaged, or no label map.
    """
    layers = read_label_layers(path)
    segments = {(one.layer, one.value): one for one in _read_segments(path, len(layers))}
    placed = [_on_grid(layer, volume, path) for layer in layers]
    present = [(layer, int(value)) for layer, values in enumerate(placed) for value in np.unique(values) if value]
    # A value without a segment goes by its number, as in a plain label map.
    found = [segments.get(key, Segment(*key, (str(key[1]),), f"{key}")) for key in present]
    meanings = meanings_of_names({(one.layer, one.value): one.names for one in found}, labels, path)
    return lambda index: [
        Region(meanings[one.layer, one.value], placed[one.layer][index] == one.value, one.lesion)
        for one in found
        if one.value in placed[one.layer][index]
    ]


def _read_segments(path: Path, layers: int) -> list[Segment]:
    try:
        metadata = _read_metadata(path)
        kind = str(metadata.get("masterRepresentation") or metadata.get("Segmentation_SourceRepresentation") or "")
        segments = [_segment(item, number, layers) for number, item in enumerate(metadata["segments"])]
    except _METADATA_ERRORS as error:
        raise InputError(
            path,
            found="segments that cannot be read",
            expected="a whole .seg.nrrd",
            remedy="save it in 3D Slicer again",
        ) from error
    if "fractional" in kind.casefold():
        raise InputError(
            path,
            found="a fractional label map",
            expected="a binary one",
            remedy="convert it in 3D Slicer's module Data",
        )
    places = {(one.layer, one.value) for one in segments}
    if len(places) < len(segments):
        raise InputError(
            path, found="two segments of one value", expected="a value for each", remedy="save it in 3D Slicer again"
        )
    return segments


def _read_metadata(path: Path) -> dict[str, Any]:
    """Read the keys; slicerio knows layers as a list alone, which ITK calls a vector."""
    lines, _ = read_text(path, HEADER_END, "NRRD")
    with tempfile.TemporaryDirectory(prefix="lung_d2_") as folder:
        header = Path(folder, f"header{SEGMENTATION_SUFFIX}")
        text = re.sub(r"(?m)^kinds: vector ", "kinds: list ", "\n".join(lines))
        header.write_text(f"{text}\n\n", encoding="utf-8", errors="surrogateescape")
        return dict(slicerio.read_segmentation(str(header), skip_voxels=True))


def _segment(item: dict[str, Any], number: int, layers: int) -> Segment:
    # Slicer before 4.11 gave each segment a layer of its own, in order, and the value 1.
    layer = int(item.get("layer", number if layers > 1 else 0))
    scheme, code, meaning = ([*item.get("terminology", {}).get("type", []), "", "", ""])[:3]
    names = (CODES.get((code, scheme), ""), item.get("name", ""), meaning, code)
    return Segment(layer, int(item.get("labelValue", 1)), names, str(item.get("id", number)))


def _on_grid(labels: LabelVolume, volume: CTVolume, path: Path) -> Labels:
    if not labels.labels.any():  # as the one voxel that Slicer writes where there is no segment: it lies anywhere
        return np.zeros(volume.hu.shape, np.uint8)
    try:
        return labels_on_grid(labels, volume, part=True)
    except GeometryError as error:
        raise error.at(path) from error
