"""RTSTRUCT over CT series, in a tree of any shape; see :mod:`lung_d2.data.importers.dicom.annotation_objects`.

A pixel is inside where its centre is, by the even-odd rule over all contours of an ROI in a slice, so that a contour in
another is a hole (``CLOSED_PLANAR`` as most tools write it, ``CLOSEDPLANAR_XOR``, and the keyhole technique); a contour
that runs through pixel centres, as OpenCV draws it for rt-utils and others, takes those pixels in. Slices between two
contours that have none stay empty: nothing is interpolated.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lung_d2.ct.headers import text_of
from lung_d2.ct.planes import whole_number
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import Case
from lung_d2.data.importers.dicom.annotation_objects import (
    REMEDY,
    AnnotationKind,
    ImageReference,
    find_annotated_cases,
    follow,
    read_references,
    read_tags,
    refuse_damage,
)
from lung_d2.data.importers.dicom.slice_grid import SliceGrid
from lung_d2.data.importers.registry import Importer, Request
from lung_d2.data.importers.volume_cases import RegionsOf
from lung_d2.data.instances import Region
from lung_d2.data.labels import Label, LabelTable, Meaning
from lung_d2.errors import DatasetError, GeometryError, InputError
from lung_d2.masks import MAX_COORDINATE, check_ring, fill_polygons

logger = logging.getLogger(__name__)

STRUCTURE_SET = AnnotationKind("RTSTRUCT", {"1.2.840.10008.5.1.4.1.1.481.3": "RT Structure Set Storage"})
CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
MAX_POINTS = 1_000_000
"""Limit for the points of a contour; one along every pixel border of a 512 x 512 slice has half as many."""
SNAP_PIXELS = 0.02
"""Points are rounded to this: mm with two decimals miss a pixel's centre by 0.01 pixel, and it would be left out."""

Points = npt.NDArray[np.float64]
Rings = Mapping[int, Sequence[Points]]
"""Contours ``(N, 2)``, x and y in pixels, by slice."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One contour as the file holds it.

    Attributes:
        number: 1-based, in its ROI.
        kind: ContourGeometricType.
        count: NumberOfContourPoints; None where the file does not say.
        data: ContourData as text, numbers between backslashes.
        images: The images that it names.
    """

    number: int
    kind: str
    count: int | None
    data: bytes = field(repr=False)
    images: tuple[ImageReference, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Roi:
    """A region of interest.

    Attributes:
        number: Its ROI number.
        names: Its name and number.
        contours: In the order of the file; may be empty.
    """

    number: int
    names: tuple[str, ...]
    contours: tuple[Contour, ...] = field(repr=False)


def find_cases(request: Request) -> list[Case]:
    """Find the series and their structure sets.

    Args:
        request: What is asked of any importer.

    Returns:
        The cases, sorted by folder and series.

    Raises:
        DatasetError, InputError: See
            :func:`lung_d2.data.importers.dicom.annotation_objects.find_annotated_cases`.
    """
    return find_annotated_cases(request, STRUCTURE_SET, _names_of, _read_file)


IMPORTER = Importer("rtstruct", "CT series with RTSTRUCT over them", find_cases)


def read_rois(path: Path) -> list[Roi]:
    """Read the ROIs of a structure set.

    Raises:
        InputError: The file is damaged, has no ROI or no contour, or contours of an ROI that is not declared.
    """
    dataset = read_tags(path, ["StructureSetROISequence", "ROIContourSequence"])
    with refuse_damage(path):
        contours: dict[int, list[Contour]] = {}
        for item in follow(dataset, "ROIContourSequence"):
            number = whole_number(item, "ReferencedROINumber", path)
            known = contours.setdefault(number, [])
            known += [_contour(one, len(known) + k) for k, one in enumerate(follow(item, "ContourSequence"), start=1)]
        rois: list[Roi] = []
        for item in follow(dataset, "StructureSetROISequence"):
            number = whole_number(item, "ROINumber", path)
            if number in {roi.number for roi in rois}:
                raise InputError(path, found=f"ROI {number} twice", expected="each once", remedy=REMEDY)
            names = (text_of(item, "ROIName"), str(number))
            rois.append(Roi(number, names, tuple(contours.pop(number, ()))))
    if contours:
        raise InputError(
            path,
            found=f"contours of ROI {min(contours)}, which is not declared",
            expected=f"one of {len(rois)} ROIs",
            remedy=REMEDY,
        )
    if not any(roi.contours for roi in rois):
        raise InputError(path, found=f"{len(rois)} ROIs and no contour", expected="one or more", remedy=REMEDY)
    return rois


def _contour(item: Dataset, number: int) -> Contour:
    raw = item.get_item("ContourData")  # not parsed: pydicom would make an object of each number
    count = text_of(item, "NumberOfContourPoints")
    return Contour(
        number=number,
        kind=text_of(item, "ContourGeometricType").upper(),
        count=int(float(count)) if count else None,
        data=bytes(raw.value or b"") if raw is not None else b"",
        images=read_references(follow(item, "ContourImageSequence")),
    )


def _names_of(path: Path, _: LabelTable) -> dict[int, tuple[str, ...]]:
    return {roi.number: roi.names for roi in read_rois(path) if roi.contours}


def _read_file(path: Path, labels: LabelTable, volume: CTVolume) -> RegionsOf:
    grid = SliceGrid.of(volume)
    found = read_rois(path)
    rois = {roi.number: roi for roi in found if roi.contours}
    if len(rois) < len(found):
        logger.info("%s: %d of %d ROIs have no contour", path, len(found) - len(rois), len(found))
    meanings = labels.meanings({number: roi.names for number, roi in rois.items()}, path)
    undecided = Label.IGNORE in meanings.values()
    wanted = {number: one for number, one in meanings.items() if one is not Label.BACKGROUND or undecided}
    rings = {number: _place_contours(rois[number], grid, f"{path} ROI {number}") for number in wanted}
    return partial(_regions, rings, wanted, (grid.shape[1], grid.shape[2]), str(path))


def _regions(
    rings: Mapping[int, Rings], meanings: Mapping[int, Meaning], shape: tuple[int, int], name: str, index: int
) -> list[Region]:
    return [
        Region(meaning, fill_polygons(rings[number][index], shape), f"{name} ROI {number}")
        for number, meaning in meanings.items()
        if index in rings[number]
    ]


def _place_contours(roi: Roi, grid: SliceGrid, where: str) -> Rings:
    """Place the contours of an ROI on the slices; contours without an area are left out and counted."""
    rings: dict[int, dict[bytes, Points]] = {}
    left_out: Counter[str] = Counter()
    for contour in roi.contours:
        if contour.kind not in CLOSED:
            left_out["not closed"] += 1
            continue
        index, ring = _place(contour, grid, f"{where} contour {contour.number}")
        try:
            rings.setdefault(index, {})[ring.tobytes()] = check_ring(ring)  # the same contour twice is one
        except DatasetError:
            left_out["without an area"] += 1
    if left_out:
        said = ", ".join(f"{count} {why}" for why, count in left_out.items())
        logger.warning("%s: left out contours: %s", where, said)
    kept = {index: list(ones.values()) for index, ones in sorted(rings.items()) if ones}
    if not kept:
        raise DatasetError(
            where,
            found=f"no contour with an area among {len(roi.contours)}",
            expected=" or ".join(sorted(CLOSED)),
            remedy=f"draw it again, or give --label '{roi.number}=background'",
        )
    missing = max(kept) - min(kept) + 1 - len(kept)
    if missing:
        logger.info("%s: %d slices between its contours have none, and stay empty", where, missing)
    return kept


def _place(contour: Contour, grid: SliceGrid, where: str) -> tuple[int, Points]:
    """Return the slice of a contour and its points (x, y) in pixels."""
    indices = grid.indices_of(_points(contour, where))
    grid.slices_named(contour.images, where)  # a missing image explains more than a distance
    index = grid.slice_at(indices[:, 2], where)
    grid.check_images(index, contour.images, where)
    ring = indices[:, :2]
    size = np.array(grid.shape[:0:-1])
    if (ring.max(axis=0) < -0.5).any() or (ring.min(axis=0) > size - 0.5).any():
        raise GeometryError(
            where, found="lies outside the slice", expected="a contour in it", remedy="give the series it was drawn on"
        )
    return index, np.round(ring / SNAP_PIXELS) * SNAP_PIXELS


def _points(contour: Contour, where: str) -> Points:
    """Parse the points of a contour, LPS mm ``(N, 3)``."""
    text = contour.data.strip(b" \0")
    numbers = text.count(b"\\") + 1 if text else 0
    if numbers % 3 or not numbers:
        found = f"{numbers} numbers as ContourData"
        raise InputError(where, found=found, expected="three for each point", remedy=REMEDY)
    count = numbers // 3
    if count > MAX_POINTS:
        raise InputError(where, found=f"{count} points", expected=f"at most {MAX_POINTS}", remedy="simplify it")
    if contour.count not in (None, count):
        raise InputError(
            where, found=f"{count} points", expected=f"{contour.count}, as NumberOfContourPoints says", remedy=REMEDY
        )
    try:
        points = np.fromiter(map(float, text.split(b"\\")), np.float64, numbers).reshape(count, 3)
    except ValueError as error:
        raise InputError(where, found="ContourData that are not numbers", remedy=REMEDY) from error
    if not (np.abs(points) <= MAX_COORDINATE).all():
        found = f"a coordinate that is not finite, or beyond {MAX_COORDINATE:,.0f}"
        raise InputError(where, found=found, expected="numbers in mm", remedy=REMEDY)
    return points
