"""Segmentations of 3D Slicer over their CT.

::

    ROOT/CASE/ct.nrrd                   a CT in one volume file, or a DICOM series at any depth
    ROOT/CASE/Segmentation.seg.nrrd     one or more segmentations of it

    ROOT/a.nrrd  ROOT/a.seg.nrrd        or several CT in one folder, each with segmentations named after it

The meaning of a segment comes from ``--label`` for its name, else from its code if a category has it, else from its
name. With ``--instances values`` each segment is one lesion.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import slicerio

from lung_d2.ct import CTVolume, read_volume
from lung_d2.ct.headers import volume_suffix
from lung_d2.ct.itk_headers import HEADER_END, read_text
from lung_d2.ct.labels import Labels, LabelVolume, labels_on_grid, read_label_layers
from lung_d2.data.cases import Case
from lung_d2.data.importers.registry import Importer, Request, check_folder
from lung_d2.data.importers.volume_cases import (
    RegionsOf,
    build_series_case,
    build_volume_case,
    case_folders,
    check_annotated,
    find_case_series,
    may_be_image,
)
from lung_d2.data.importers.volumes.pairs import stem_of
from lung_d2.data.instances import Region
from lung_d2.data.labels import LabelTable
from lung_d2.errors import DatasetError, GeometryError, InputError
from lung_d2.files import hash_identity

SEGMENTATION_SUFFIX = ".seg.nrrd"
_METADATA_ERRORS = (ArithmeticError, LookupError, OSError, TypeError, ValueError)
"""What slicerio, and pynrrd under it, raise on damaged keys."""


def find_cases(request: Request) -> list[Case]:
    """Find the cases under the source.

    Returns:
        The cases, sorted by folder and name.

    Raises:
        DatasetError: There is no segmentation, a CT lacks its segmentation, or a segmentation its CT.
        InputError: A case has no CT.
        SeriesChoiceError: A case has several DICOM series.
    """
    check_folder(request.source, "cases")
    return [
        case for folder in case_folders(request.source, _is_ct, is_segmentation) for case in _cases_in(folder, request)
    ]


IMPORTER = Importer("slicer", "3D Slicer's .seg.nrrd over CT as volume files or DICOM", find_cases)


def _is_ct(path: Path) -> bool:
    return may_be_image(path) or (_is_volume(path) and not is_segmentation(path))


def _is_volume(path: Path) -> bool:
    return bool(volume_suffix(path)) and not path.name.startswith(".") and path.is_file()


def _cases_in(folder: Path, request: Request) -> list[Case]:
    files = sorted(filter(_is_volume, folder.rglob("*")))
    segmentations = [path for path in files if is_segmentation(path)]
    volumes = [path for path in files if not is_segmentation(path)]
    if volumes:
        return [_volume_case(volume, found, request) for volume, found in _pair(volumes, segmentations).items()]
    check_annotated(folder, segmentations, SEGMENTATION_SUFFIX, request)
    return [build_series_case(find_case_series(folder), segmentations, read_segments_on, request, folder=folder)]


def _pair(volumes: Sequence[Path], segmentations: Sequence[Path]) -> dict[Path, list[Path]]:
    """Pair by names if there are several CT: the name of a segmentation begins with that of its CT."""
    if len(volumes) == 1:
        return {volumes[0]: list(segmentations)}
    found: dict[Path, list[Path]] = {volume: [] for volume in volumes}
    for path in segmentations:
        name = path.name[: -len(SEGMENTATION_SUFFIX)]
        matching = [volume for volume in volumes if re.match(rf"{re.escape(stem_of(volume))}(?![^\W_])", name)]
        longest = max((len(stem_of(volume)) for volume in matching), default=0)
        best = [volume for volume in matching if len(stem_of(volume)) == longest]
        if len(best) != 1:
            raise DatasetError(
                path,
                found=f"{len(best)} of {len(volumes)} CT volumes by its name",
                expected="one",
                remedy="name it after its CT, as a.seg.nrrd of a.nrrd, or give each case a folder",
            )
        found[best[0]].append(path)
    return found


def _volume_case(path: Path, segmentations: Sequence[Path], request: Request) -> Case:
    check_annotated(path, segmentations, SEGMENTATION_SUFFIX, request)
    inner = path.relative_to(request.source).with_name(stem_of(path)).as_posix()
    return build_volume_case(
        inner,
        patient=request.patients.patient_of(path, request.source, hash_identity("patient", inner)),
        series=hash_identity("series", inner),
        read_ct=partial(read_volume, path),
        annotations=segmentations,
        read=read_segments_on,
        request=request,
        files=[path, *segmentations],
    )


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


def read_segments_on(path: Path, labels: LabelTable, volume: CTVolume) -> RegionsOf:
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
    segments = {(one.layer, one.value): one for one in _read_segments(path, len(layers), labels)}
    placed = [_on_grid(layer, volume, path) for layer in layers]
    present = [(layer, int(value)) for layer, values in enumerate(placed) for value in np.unique(values) if value]
    # A value without a segment goes by its number, as in a plain label map.
    found = [segments.get(key, Segment(*key, (str(key[1]),), f"{key}")) for key in present]
    meanings = labels.meanings({(one.layer, one.value): one.names for one in found}, path)
    return lambda index: [
        Region(meanings[one.layer, one.value], placed[one.layer][index] == one.value, one.lesion)
        for one in found
        if one.value in placed[one.layer][index]
    ]


def _read_segments(path: Path, layers: int, labels: LabelTable) -> list[Segment]:
    try:
        metadata = _read_metadata(path)
        kind = str(metadata.get("masterRepresentation") or metadata.get("Segmentation_SourceRepresentation") or "")
        segments = [_segment(item, number, layers, labels) for number, item in enumerate(metadata["segments"])]
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
    """Read the keys; slicerio expects layers as a list, which ITK calls a vector."""
    lines, _ = read_text(path, HEADER_END, "NRRD")
    with tempfile.TemporaryDirectory(prefix="lung_d2_") as folder:
        header = Path(folder, f"header{SEGMENTATION_SUFFIX}")
        text = re.sub(r"(?m)^kinds: vector ", "kinds: list ", "\n".join(lines))
        header.write_text(f"{text}\n\n", encoding="utf-8", errors="surrogateescape")
        return dict(slicerio.read_segmentation(str(header), skip_voxels=True))


def _segment(item: dict[str, Any], number: int, layers: int, labels: LabelTable) -> Segment:
    # Slicer before 4.11 gave each segment a layer of its own, in order, and the value 1.
    layer = int(item.get("layer", number if layers > 1 else 0))
    scheme, code, meaning = ([*item.get("terminology", {}).get("type", []), "", "", ""])[:3]
    names = (labels.name_of_code(code, scheme), item.get("name", ""), meaning, code)
    return Segment(layer, int(item.get("labelValue", 1)), names, str(item.get("id", number)))


def _on_grid(labels: LabelVolume, volume: CTVolume, path: Path) -> Labels:
    if not labels.labels.any():  # Slicer writes a single voxel, anywhere, if there is no segment
        return np.zeros(volume.hu.shape, np.uint8)
    try:
        return labels_on_grid(labels, volume, part=True)
    except GeometryError as error:
        raise error.at(path) from error
