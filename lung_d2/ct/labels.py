"""Label volumes: read from any format, brought to the grid of a CT."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.ct.geometry import describe_grid
from lung_d2.ct.headers import VOLUME_SUFFIXES, show_uid
from lung_d2.ct.raw_volume import RawVolume, read_raw_layers
from lung_d2.ct.volume import CTVolume, read_raw_volume
from lung_d2.errors import GeometryError, InputError

Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[np.unsignedinteger[Any]]

MAX_LABEL = 65535
WHOLE_TOLERANCE = 1e-3
"""How far from a whole number a label may be: scaled files round."""
GRID_TOLERANCE = 0.1
"""Grids are the same where no corner differs by more than this share of a voxel."""


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """Labels in a grid of their own.

    Attributes:
        labels: uint8 or uint16 ``[Z, Y, X]``; 0 is background.
        affine_lps: float64 ``(4, 4)``; index (x, y, z, 1) to LPS mm.
    """

    labels: Labels = field(repr=False)
    affine_lps: Affine = field(repr=False)


def read_label_volume(path: str | os.PathLike[str]) -> LabelVolume:
    """Read a label volume, reordered without loss to the axes of an axial DICOM series.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is missing, damaged, not 3-D, too large, or holds values that are not labels (0 to 65535, whole).
    """
    return _labels_of(read_raw_volume(path))


def read_label_layers(path: Path) -> list[LabelVolume]:
    """Read the layers of a label map whose labels may overlap, as 3D Slicer writes it; mostly there is one.

    Args:
        path: A ``.nrrd`` file; its first axis may list the layers.

    Raises:
        GeometryError: It has no orientation, or no grid of perpendicular rows and columns.
        InputError: It is damaged, too large, or holds values that are not labels (0 to 65535, whole).
    """
    return [_labels_of(raw) for raw in read_raw_layers(path)]


def read_labels_on(path: Path, volume: CTVolume) -> Labels:
    """Read a label volume onto the grid of its CT; see :func:`labels_on_grid`.

    Raises:
        InputError: It cannot be read, or lies on another grid.
    """
    try:
        return labels_on_grid(read_label_volume(path), volume)
    except GeometryError as error:
        raise error if error.where == str(path) else error.at(path) from error


def find_label_file(path: Path, volume: CTVolume) -> Path:
    """Return the label volume of a series: the file itself, or that of a folder which its UID or hash names.

    Raises:
        InputError: The folder has none, or several.
    """
    if not path.is_dir():
        return path
    uid = volume.series_instance_uid
    names = [volume.series_hash, *([uid] if uid and show_uid(uid) == uid else [])]
    found = [path / f"{name}{suffix}" for name in names for suffix in VOLUME_SUFFIXES]
    found = [file for file in found if file.is_file()]
    if len(found) != 1:
        raise InputError(
            path,
            found=f"{len(found)} label volumes of series {' or '.join(names)}",
            expected="one, named by that",
            remedy=f"add it, as {names[-1]}.nii.gz" if not found else "remove all but one",
        )
    return found[0]


def _labels_of(raw: RawVolume) -> LabelVolume:
    labels = np.empty(raw.values.shape, dtype=np.uint16)
    for index, values in enumerate(raw.slices()):
        whole = np.rint(values)
        if np.abs(values - whole).max() > WHOLE_TOLERANCE or whole.min() < 0 or whole.max() > MAX_LABEL:
            raise InputError(
                raw.path,
                found="values that are not labels",
                expected=f"whole numbers from 0 to {MAX_LABEL}",
                remedy="give the mask itself, not probabilities or an image",
            )
        labels[index] = whole
    small = labels.astype(np.uint8) if labels.max() <= np.iinfo(np.uint8).max else labels
    return LabelVolume(small, raw.affine_lps)


def labels_on_grid(labels: LabelVolume, volume: CTVolume, *, part: bool = False) -> Labels:
    """Bring labels into the grid of a volume, where the two differ by the order or direction of axes only.

    Args:
        labels: The labels.
        volume: The volume they were drawn on; it may be oblique or tilted.
        part: Whether the labels may be cropped: they lie on the grid, but need not cover it.

    Returns:
        Labels ``[Z, Y, X]``, shaped as ``volume.hu``; 0 where the labels do not reach.

    Raises:
        GeometryError: The grids differ by more than that, or cropped labels lie outside.
    """
    sizes = np.array(labels.labels.shape[::-1])
    relative = np.linalg.inv(volume.affine_lps) @ labels.affine_lps
    lengths = np.linalg.norm(relative[:3, :3], axis=0)
    # A label volume of one slice has a thickness, but no step that could differ.
    linear = relative[:3, :3] / np.where(sizes == 1, lengths, 1.0)
    exact, start = np.rint(linear), np.rint(relative[:3, 3:])
    order = np.argmax(np.abs(linear), axis=0)
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in sizes], indexing="ij")).reshape(3, -1)
    meant = exact @ corners + start
    first, last = meant.min(axis=1), meant.max(axis=1)
    if not (
        sorted(order) == [0, 1, 2]
        and np.count_nonzero(exact) == 3
        and (np.abs(exact) <= 1).all()
        and np.abs(relative[:3, :3] @ corners + relative[:3, 3:] - meant).max() <= GRID_TOLERANCE
        and (part or (not first.any() and (last + 1 == volume.hu.shape[::-1]).all()))
    ):
        raise _other_grid("a grid of", "that of the CT,", labels, volume)
    back = np.argsort(order)
    placed = labels.labels.transpose(2, 1, 0).transpose(back)
    flips = tuple(slice(None, None, int(sign)) for sign in exact[order, range(3)][back])
    turned = placed[flips].transpose(2, 1, 0)
    return _paste(turned, first[::-1], labels, volume) if part else np.ascontiguousarray(turned)


def _paste(turned: Labels, first: npt.NDArray[np.float64], labels: LabelVolume, volume: CTVolume) -> Labels:
    """Put labels ``[Z, Y, X]`` at the index ``first`` of an empty grid; background beyond it is cut off."""
    whole = np.zeros(volume.hu.shape, turned.dtype)
    low = np.clip(first, -np.array(turned.shape), whole.shape).astype(int)
    high = low + turned.shape
    here = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
    there = tuple(slice(max(-a, 0), max(end - a, 0)) for a, end in zip(low, np.array(whole.shape), strict=True))
    whole[here] = turned[there]
    if np.count_nonzero(whole) < np.count_nonzero(turned):
        raise _other_grid("labels beyond the CT, in", "labels inside it,", labels, volume)
    return whole


def _other_grid(found: str, expected: str, labels: LabelVolume, volume: CTVolume) -> GeometryError:
    return GeometryError(
        "labels",
        found=f"{found} {describe_grid(labels.labels.shape, labels.affine_lps)}",
        expected=f"{expected} {describe_grid(volume.hu.shape, volume.affine_lps)}",
        remedy="draw or resample the labels on the CT series itself",
    )
