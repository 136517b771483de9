"""The CT series of a source: found by their headers, listed, and one of them chosen."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID

from lung_d2.ct.geometry import Stack, stack_planes
from lung_d2.ct.headers import (
    READ_ERRORS,
    VOLUME_SUFFIXES,
    Header,
    Source,
    list_files,
    quiet_pydicom,
    read_header,
    show_code,
    show_uid,
    text_of,
    volume_suffix,
)
from lung_d2.ct.planes import (
    HU_RESCALE_TYPES,
    KNOWN_RESCALE_TYPES,
    NOT_HU_IMAGE_TYPES,
    SIDE_IMAGE_TYPES,
    Plane,
    read_planes,
)
from lung_d2.errors import InputError, SeriesChoiceError
from lung_d2.files import hash_identity

logger = logging.getLogger(__name__)

CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    }
)
CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture and its multi-frame kin: CT only where it has the geometry and the rescale of CT."""
STORAGE_ROOT = "1.2.840.10008."
MODALITIES = frozenset(
    {
        *(
            "ANN",
            "AR",
            "BI",
            "CR",
            "DG",
            "DOC",
            "DX",
            "ECG",
            "EEG",
            "EPS",
            "ES",
            "FID",
            "GM",
            "HC",
            "HD",
            "IO",
            "IVOCT",
        ),
        *(
            "IVUS",
            "KO",
            "LS",
            "M3D",
            "MG",
            "MR",
            "NM",
            "OCT",
            "OP",
            "OT",
            "PR",
            "PT",
            "PX",
            "REG",
            "RF",
            "RG",
            "RTDOSE",
        ),
        *("RTIMAGE", "RTPLAN", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SR", "TG", "US", "XA", "XC"),
    }
)
"""Modalities that messages may name (PS3.3 C.7.3.1.1.1)."""
ANNOTATION_MODALITIES = frozenset({"SEG", "RTSTRUCT", "SR", "PR", "KO", "ANN"})


@dataclass(frozen=True)
class CTSeries:
    """One CT series: its files, not yet checked to make a volume.

    Attributes:
        series_instance_uid: May be empty.
        study_instance_uid: May be empty.
        patient_hash: 16 hexadecimal digits that stand for the patient.
        series_hash: 16 hexadecimal digits that stand for the series.
        headers: One for each file.
    """

    series_instance_uid: str
    study_instance_uid: str
    patient_hash: str
    series_hash: str
    headers: tuple[Header, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """What messages call the series: its UID, or its folder where it has none; a single file by its path."""
        if len(self.headers) == 1:
            return str(self.headers[0].path)
        folder = self.headers[0].path.parent
        return f"series {show_uid(self.series_instance_uid)} in {folder}"

    def stack(self) -> Stack:
        """Sort the slices along their normal and check that they make a volume in HU.

        Raises:
            GeometryError: See :func:`lung_d2.ct.geometry.stack_planes`.
            InputError: A header cannot be read, or the values are no HU.
        """
        with quiet_pydicom():
            # A localizer needs no geometry that fits, so it is not even read unless there is nothing else.
            headers = [header for header in self.headers if not is_side_image(header)] or self.headers
            planes = [plane for header in headers for plane in read_planes(header)]
        if len(headers) < len(self.headers):
            left_out = _count(len(self.headers) - len(headers), "localizer or report", "localizers or reports")
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
            return f"{show_uid(self.series_instance_uid)} ({len(self.headers)} files, unreadable: {error.found})"
        rows, columns = stack.planes[0].size
        z, y, x = stack.spacing_mm
        return (
            f"{show_uid(self.series_instance_uid)} ({len(stack.planes)} slices, {rows} x {columns} pixels, "
            f"{z:.3g} x {y:.3g} x {x:.3g} mm)"
        )


def find_series(source: Source, name: str = "") -> list[CTSeries]:
    """Find the CT series of a source.

    Args:
        source: A folder (searched with all that lies under it), a DICOM file, or a list of either. Files may have any
            name; those that are not DICOM, and DICOM objects that are no CT images, are counted in the log.
        name: What messages call it; empty: its path, or how many files it lists.

    Returns:
        At least one series, sorted by UID. Series that hold localizers only are left out unless there is nothing else.

    Raises:
        InputError: Nothing in the source is a CT image, or a header is damaged.
    """
    files = list_files(source)
    name = name or _source_name(source)
    with quiet_pydicom():
        headers = [(path, read_header(path)) for path in files]
        found = [header for _, header in headers if header is not None]
        kinds = {id(header): foreign_kind(header) for header in found}
        images = [header for header in found if not kinds[id(header)]]
        foreign = Counter(kind for kind in kinds.values() if kind)
        groups: dict[tuple[str, str, str], list[Header]] = {}
        for header in images:
            key = (_uid(header, "SeriesInstanceUID"), _uid(header, "StudyInstanceUID"), header.patient_key)
            groups.setdefault(key, []).append(header)
        stacks = {key: group for key, group in groups.items() if not all(map(is_side_image, group))}
        series = [build_series(group) for _, group in sorted((stacks or groups).items(), key=lambda item: item[0])]
    plain = [path for path, header in headers if header is None]
    if not images:
        raise _nothing_found(name, len(files), plain, foreign)
    if plain or foreign:
        left_out = [_count(len(plain), "file that is not DICOM", "files that are not DICOM")] if plain else []
        left_out += [f"{count} {kind}" for kind, count in foreign.items()]
        logger.info("%s: left out %s", name, ", ".join(left_out))
    if stacks and len(stacks) < len(groups):
        logger.info("%s: left out %d series of localizers or reports", name, len(groups) - len(stacks))
    return series


def choose_series(found: Sequence[CTSeries], series_uid: str | None, name: str) -> CTSeries:
    """Choose one of several series.

    Args:
        found: What :func:`find_series` returned.
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


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _source_name(source: Source) -> str:
    files = [source] if not isinstance(source, (list, tuple)) else list(source)
    return f"{files[0]}" if len(files) == 1 else f"{len(files)} files" if files else "no files"


def _uid(header: Header, name: str) -> str:
    try:
        return text_of(header.dataset, name)
    except READ_ERRORS:
        return ""


def is_side_image(header: Header) -> bool:
    """Tell whether an image is a localizer or report that rides along with a CT stack."""
    return bool(SIDE_IMAGE_TYPES.intersection(_uid(header, "ImageType").upper().split("\\")))


def foreign_kind(header: Header) -> str:
    """Return what a DICOM object is where it is no CT image, else an empty text."""
    modalities = [value for value in _uid(header, "Modality").upper().split("\\") if value]
    sop_class = _uid(header, "SOPClassUID")
    if modalities and "CT" not in modalities:
        return modalities[0] if modalities[0] in MODALITIES else "object of unknown modality"
    if sop_class in CT_CLASSES:
        return ""
    if sop_class.startswith(STORAGE_ROOT) and not sop_class.startswith(CAPTURE_CLASS):
        name = UID(sop_class).name
        # An unknown UID is its own name, and may be anything in a damaged file.
        return "object of unknown class" if name.startswith(STORAGE_ROOT) else f"{name} object"
    if _looks_like_ct(header) and (modalities or not sop_class):
        return ""
    return "secondary capture" if sop_class.startswith(CAPTURE_CLASS) else "object without modality"


def _looks_like_ct(header: Header) -> bool:
    needed = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept")
    return all(_uid(header, name) for name in needed)


def _nothing_found(name: str, count: int, plain: Sequence[Path], foreign: Counter[str]) -> InputError:
    if not foreign:
        volumes = [path for path in plain if volume_suffix(path)]
        formats = f"give CT as DICOM, or as {', '.join(VOLUME_SUFFIXES)}"
        remedy = f"give the volume file itself, {volumes[0]}" if volumes else formats
        found = "no files" if not count else "not DICOM" if count == 1 else f"{count} files, none of them DICOM"
        return InputError(name, found=found, expected="a CT series", remedy=remedy)
    kinds = ", ".join(
        f"{number} {kind}" if number > 1 else f"{_article(kind)} {kind}" for kind, number in foreign.items()
    )
    remedy = "give the CT series itself"
    if ANNOTATION_MODALITIES.intersection(foreign):
        remedy = "give it as annotation, and the CT series as input"
    return InputError(name, found=f"this is {kinds}", expected="CT", remedy=remedy)


def _article(kind: str) -> str:
    return "an" if kind[0] in "AEIO" or (kind.isupper() and kind[0] in "FHLMNRX") or kind in ("SR", "SM") else "a"


def build_series(headers: Sequence[Header]) -> CTSeries:
    """Build the series of some CT images, which have the same series, study and patient."""
    series_uid, study_uid = (_uid(headers[0], name) for name in ("SeriesInstanceUID", "StudyInstanceUID"))
    fallback = "\n".join(sorted(_uid(header, "SOPInstanceUID") or header.path.name for header in headers))
    kind, identity = "patient", headers[0].patient_key
    if not identity:
        kind, identity = ("study", study_uid) if study_uid else ("series", series_uid or fallback)
    return CTSeries(
        series_instance_uid=series_uid,
        study_instance_uid=study_uid,
        patient_hash=hash_identity(kind, identity),
        series_hash=hash_identity("series", series_uid or fallback),
        headers=tuple(headers),
    )


def _check_uids(planes: Sequence[Plane], name: str) -> None:
    """Log SOP instance UIDs that are empty or shared by several files: the volume keeps them as they are."""
    files = {plane.path: plane.sop_instance_uid for plane in planes}
    uids = [uid for uid in files.values() if uid]
    if len(uids) < len(files):
        logger.warning("%s: %s without SOPInstanceUID", name, _count(len(files) - len(uids), "file", "files"))
    if len(set(uids)) < len(uids):
        shared = _count(len(uids) - len(set(uids)), "file has", "files have")
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
