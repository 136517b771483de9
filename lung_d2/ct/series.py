"""A CT series: its files, checked that they make a volume in HU, and the choice among several."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lung_d2.ct.geometry import Stack, stack_planes
from lung_d2.ct.headers import Header, quiet_pydicom, show_code, show_uid, text_or_empty
from lung_d2.ct.planes import (
    HU_RESCALE_TYPES,
    KNOWN_RESCALE_TYPES,
    NOT_HU_IMAGE_TYPES,
    SIDE_IMAGE_TYPES,
    Plane,
    read_planes,
)
from lung_d2.errors import InputError, SeriesChoiceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CTSeries:
    """One CT series: its files and their headers, not yet checked to make a volume.

    Attributes:
        series_instance_uid: May be empty.
        study_instance_uid: May be empty.
        patient_hash: 16 hexadecimal digits that stand for the patient.
        series_hash: 16 hexadecimal digits that stand for the series.
        full_hash: The same, but different for series of several patients or studies that share one UID.
        files: In the order in which they were found.
        sop_instance_uids: One for each file; may be empty.
        frames_of_reference: The different FrameOfReferenceUIDs of the files.
        packed_headers: One for each file, see :meth:`lung_d2.ct.headers.Header.pack`.
    """

    series_instance_uid: str
    study_instance_uid: str
    patient_hash: str
    series_hash: str
    full_hash: str
    files: tuple[Path, ...] = field(repr=False)
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    frames_of_reference: frozenset[str] = field(repr=False)
    packed_headers: tuple[bytes, ...] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The folder that holds all files."""
        parents = [path.parent for path in self.files]
        if any(parent.is_absolute() for parent in parents):
            parents = [parent.absolute() for parent in parents]
        return Path(os.path.commonpath(parents))

    @property
    def name(self) -> str:
        """What messages call the series: its UID and folder; a single file by its path."""
        if len(self.files) == 1:
            return str(self.files[0])
        return f"series {show_uid(self.series_instance_uid)} in {self.folder}"

    def stack(self) -> Stack:
        """Sort the slices along their normal and check that they make a volume in HU.

        Raises:
            GeometryError: See :func:`lung_d2.ct.geometry.stack_planes`.
            InputError: A header cannot be read, or the values are not HU.
        """
        with quiet_pydicom():
            all_headers = [Header.unpack(*pair) for pair in zip(self.packed_headers, self.files, strict=True)]
            # A localizer needs no geometry that fits, so it is not even read unless there is nothing else.
            headers = [header for header in all_headers if not is_side_image(header)] or all_headers
            planes = [plane for header in headers for plane in read_planes(header)]
        if len(headers) < len(all_headers):
            left_out = count_of(len(all_headers) - len(headers), "localizer or report", "localizers or reports")
            logger.info("%s: left out %s", self.name, left_out)
        stack = stack_planes(planes, self.name)
        _check_uids(stack.planes, self.name)
        for plane in stack.planes:
            _check_hu(plane)
        _check_rescales(stack.planes)
        return stack

    def describe(self) -> str:
        """Say in a few words which series this is: UID, slices, size and spacing."""
        try:
            stack = self.stack()
        except InputError as error:
            return f"{show_uid(self.series_instance_uid)} ({len(self.files)} files, unreadable: {error.found})"
        rows, columns = stack.planes[0].size
        z, y, x = stack.spacing_mm
        return (
            f"{show_uid(self.series_instance_uid)} ({len(stack.planes)} slices, {rows} x {columns} pixels, "
            f"{z:.3g} x {y:.3g} x {x:.3g} mm)"
        )


def choose_series(found: Sequence[CTSeries], series_uid: str | None, name: str) -> CTSeries:
    """Choose one of several series.

    Args:
        found: What :func:`lung_d2.ct.scan.find_series` returned.
        series_uid: SeriesInstanceUID of the wanted one; None where there is only one.
        name: What messages call the source.

    Raises:
        SeriesChoiceError: There are several and none was chosen, or none has this UID.
    """
    matching = [series for series in found if series_uid in (None, series.series_instance_uid)]
    if len(matching) == 1:
        return matching[0]
    listing = ", ".join(series.describe() for series in (matching or found))
    if not matching:
        raise SeriesChoiceError(
            name, found=f"no series {show_uid(str(series_uid))}; there are {listing}", remedy="choose one of them"
        )
    uids = {series.series_instance_uid for series in matching}
    remedy = "choose one by its UID (series_uid, --series-uid)"
    if len(uids) < len(matching) or "" in uids:
        remedy = "give the files of one series: the UID does not tell them apart"
    raise SeriesChoiceError(name, found=f"{len(matching)} CT series: {listing}", expected="one", remedy=remedy)


def count_of(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def is_side_image(header: Header) -> bool:
    """Tell whether an image is a localizer or report that rides along with a CT stack."""
    return bool(SIDE_IMAGE_TYPES.intersection(text_or_empty(header.dataset, "ImageType").upper().split("\\")))


def _check_uids(planes: Sequence[Plane], name: str) -> None:
    """Log SOP instance UIDs that are empty or shared by several files: the volume keeps them as they are."""
    files = {plane.path: plane.sop_instance_uid for plane in planes}
    uids = [uid for uid in files.values() if uid]
    if len(uids) < len(files):
        logger.warning("%s: %s without SOPInstanceUID", name, count_of(len(files) - len(uids), "file", "files"))
    if len(set(uids)) < len(uids):
        shared = count_of(len(uids) - len(set(uids)), "file has", "files have")
        logger.warning("%s: %s the SOPInstanceUID of another", name, shared)


def _check_rescales(planes: Sequence[Plane]) -> None:
    """Refuse a stack of which some planes state their rescale and others do not: those would not be HU."""
    lacking = [plane for plane in planes if plane.rescale_slope is None or plane.rescale_intercept is None]
    if 0 < len(lacking) < len(planes):
        raise InputError(
            lacking[0].name,
            found=f"no RescaleSlope or RescaleIntercept, as {len(lacking)} of the {len(planes)} slices",
            expected="both in all slices, or in none",
            remedy="export the series again",
        )


def _check_hu(plane: Plane) -> None:
    """Refuse planes whose header says that their values are something else than HU."""
    header, remedy = plane.header, "give the CT images in HU, not a map derived from them"
    maps = sorted(plane.image_type & NOT_HU_IMAGE_TYPES)
    if maps:
        raise InputError(plane.name, found=f"a derived map ({', '.join(maps)})", expected="HU", remedy=remedy)
    if plane.rescale_type not in HU_RESCALE_TYPES:
        kind = show_code(plane.rescale_type, KNOWN_RESCALE_TYPES)
        raise InputError(plane.name, found=f"RescaleType {kind}", expected="HU", remedy=remedy)
    foreign = [
        unit for unit in plane.real_world_units if unit != "1" and not any(hu in unit for hu in ("HNSF", "HOUNSFIELD"))
    ]
    if foreign and plane.rescale_type != "HU":
        raise InputError(plane.name, found="real world values that are not HU", expected="HU", remedy=remedy)
    if "ModalityLUTSequence" in header.dataset and plane.rescale_slope is None:
        raise InputError(
            plane.name, found="a modality lookup table", expected="rescale slope and intercept", remedy=remedy
        )
