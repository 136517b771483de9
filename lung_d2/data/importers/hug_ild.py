"""The HUG-ILD database: series of DICOM slices with regions of tissue in text files, beside them.

::

    ROOT/35/CT-1186-0001.dcm        the slices; their last number is the slice_number of the regions
    ROOT/35/CT-INSPIRIUM-1186.txt   the regions, see hug_ild_text.py; any name, several files count together
    ROOT/8/CT-INSPIRIUM-8871/...    a patient of several series has a folder for each

The radiologists marked representative regions, not all lesions. So the tissue inside a region is known (a lesion or
not), the rest of the lungs is undecided, and slices without a known region are left out. What remains are single
slices, mostly 10 mm apart, that are not neighbours. :data:`TISSUES` says what the labels mean.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import CTVolume, find_series, read_volume
from lung_d2.ct.headers import READ_ERRORS, quiet_pydicom
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.hug_ild_text import Contour, RoiText, read_roi_text
from lung_d2.data.importers.registry import Importer, Request, check_folder, name_below
from lung_d2.data.importers.volume_cases import may_be_image
from lung_d2.data.instances import InstanceRule, Region, annotate_slice
from lung_d2.data.labels import Label, LabelTable, Meaning
from lung_d2.errors import DatasetError, GeometryError
from lung_d2.files import hash_file_stats, hash_identity
from lung_d2.masks import fill_polygon

logger = logging.getLogger(__name__)

TISSUES: dict[str, Meaning] = {
    "healthy": Label.BACKGROUND,
    "emphysema": Label.BACKGROUND,
    "ground_glass": GROUND_GLASS_OPACITY,
    "fibrosis": Label.BACKGROUND,
    "micronodules": Label.BACKGROUND,
    "consolidation": Label.BACKGROUND,
    "bronchial_wall_thickening": Label.BACKGROUND,
    "reticulation": Label.BACKGROUND,
    "macronodules": Label.BACKGROUND,
    "cysts": Label.BACKGROUND,
    "peripheral_micronodules": Label.BACKGROUND,
    "bronchiectasis": BRONCHIECTASIS,
    "air_trapping": Label.BACKGROUND,
    "early_fibrosis": Label.BACKGROUND,
    # An infection, or any haze: it may show as ground-glass opacity.
    "increased_attenuation": Label.IGNORE,
    "tuberculosis": Label.IGNORE,
    "pcp": Label.IGNORE,
}
"""The meaning of the database's labels, in the order of the numbers that its README gives them, from 1."""
SPACING_TOLERANCE = 0.01
"""How far the spacing in a text may differ from that of the slice, relatively: texts have few digits."""
MARGIN_PX = 2.0
"""How far a contour may leave the picture, since contours drawn by hand at its border do."""
_NUMBERED = re.compile(r"-(\d{1,9})$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    parser.add_argument("--only-annotated", action="store_true", help="leave out the series without regions")


def find_cases(request: Request, *, only_annotated: bool = False) -> list[Case]:
    """Find the series with regions.

    Args:
        request: Its labels come before :data:`TISSUES`. The patient is the first folder whose name is a number, else
            the one of the DICOM header.
        only_annotated: Leave out the series without regions.

    Returns:
        One case for each series, sorted by folder.

    Raises:
        DatasetError: A series has no regions; or a text is damaged, names a slice that is missing, or holds a label
            without a meaning.
    """
    check_folder(request.source, "series with regions")
    numbers = {str(number): meaning for number, meaning in enumerate(TISSUES.values(), 1)}
    labels = LabelTable({**numbers, **TISSUES, **request.labels.entries}, request.labels.categories)
    series, texts = list_series(request.source)
    cases, empty = [], []
    for folder, files in series.items():
        decided = _decided_slices(texts[folder], labels)
        if decided:
            slices = _slices_of(folder, files, decided)
        elif request.allow_unannotated:
            slices = tuple(number_slices(folder, files).items())
        else:
            empty.append(folder)
            continue
        cases.append(_build_case(folder, slices, [text.path for text in texts[folder]], labels, request))
    _check_regions(empty, cases, only_annotated, request.source)
    return cases


IMPORTER = Importer("hug-ild", "the HUG-ILD database: DICOM series with regions in text", find_cases, add_arguments)


def _decided_slices(texts: Sequence[RoiText], labels: LabelTable) -> dict[int, str]:
    """Return the numbers of the slices with a known region, and where the texts state it."""
    decided: dict[int, str] = {}
    for text in texts:
        if text.skipped:
            logger.warning("%s: %d contours of fewer than 3 points mark nothing", text.path, text.skipped)
        names = {contour.label: [contour.label] for contour in text.contours}
        meanings = labels.meanings(names, text.path)
        for contour in text.contours:
            if meanings[contour.label] != Label.IGNORE:
                decided.setdefault(contour.slice_number, text.place(contour))
    return decided


def _slices_of(folder: Path, files: Sequence[Path], decided: Mapping[int, str]) -> tuple[tuple[int, Path], ...]:
    numbered = number_slices(folder, files)
    for number, where in decided.items():
        if number not in numbered:
            raise DatasetError(
                where,
                found=f"slice {number}",
                expected=f"one of {min(numbered)} to {max(numbered)}, the {len(numbered)} slices in {folder}",
                remedy="add the slice, or correct the text",
            )
    return tuple((number, numbered[number]) for number in sorted(decided))


def _build_case(
    folder: Path,
    slices: tuple[tuple[int, Path], ...],
    texts: Sequence[Path],
    labels: LabelTable,
    request: Request,
) -> Case:
    inner = folder.relative_to(request.source)
    named = next((part for part in inner.parts if part.isdecimal()), None)
    own = hash_identity("patient", named) if named else find_series([slices[0][1]])[0].patient_hash
    return Case(
        name=inner.as_posix() if inner.parts else folder.resolve().name,
        patient=request.patients.patient_of(folder, request.source, own),
        series=hash_identity("series", inner.as_posix()),
        load=partial(_load_slices, slices, list(texts), labels, request.rule, request.source),
        contiguous=False,
        fingerprint=hash_file_stats([*(path for _, path in slices), *texts]),
        categories=labels.categories,
    )


def _check_regions(empty: Sequence[Path], cases: Sequence[Case], only_annotated: bool, source: Path) -> None:
    """Refuse series without known regions, unless they are left out on request."""
    if empty and not only_annotated:
        raise DatasetError(
            empty[0],
            found=f"it has no regions that decide anything, as {len(empty)} of {len(empty) + len(cases)} series",
            expected="a text of regions beside its slices",
            remedy="give the folder ILD_DB_txtROIs, or --only-annotated to leave such series out",
        )
    if not cases:
        raise DatasetError(source, found="no regions", expected="texts beside the slices", remedy="correct the path")
    if empty:
        logger.info("left out %d of %d series, which have no regions", len(empty), len(empty) + len(cases))


def _load_slices(
    slices: Sequence[tuple[int, Path]], texts: Sequence[Path], labels: LabelTable, rule: InstanceRule, source: Path
) -> Iterator[AnnotatedSlice]:
    read = [text for text in map(read_roi_text, texts) if text is not None]
    for number, path in slices:
        volume = read_volume(path)
        lungs = rule.find_lungs(volume).mask[0]
        regions = [
            _region(contour, text, volume, labels)
            for text in read
            for contour in text.contours
            if contour.slice_number == number
        ]
        if regions:
            regions.append(Region(Label.IGNORE, lungs if lungs.any() else np.ones_like(lungs)))
        yield annotate_slice(
            volume.hu[0],
            regions,
            rule,
            number - 1,
            pixel_spacing_mm=(volume.spacing_mm[1], volume.spacing_mm[2]),
            slice_position_mm=float(volume.slice_positions_mm[0]),
            lungs=lungs,
            name=name_below(source, path),
        )


def _region(contour: Contour, text: RoiText, volume: CTVolume, labels: LabelTable) -> Region:
    where = text.place(contour)
    shape = (volume.hu.shape[1], volume.hu.shape[2])
    points = _to_pixels(contour, text, volume)
    if (points < -MARGIN_PX).any() or (points > np.array(shape[::-1]) - 1 + MARGIN_PX).any():
        raise GeometryError(
            where,
            found="a contour that leaves the picture",
            expected=f"up to {shape[1] * text.spacing_mm[1]:.0f} x {shape[0] * text.spacing_mm[0]:.0f} mm",
            remedy="put the text beside the series it was drawn on",
        )
    try:
        mask = fill_polygon(points, shape)
    except DatasetError as error:
        raise error.at(where) from error
    return Region(labels.meaning(contour.label, where=where), mask, where)


def _to_pixels(contour: Contour, text: RoiText, volume: CTVolume) -> npt.NDArray[np.float64]:
    """Return points ``(N, 2)``, x and y in pixels from the centre of the first one.

    The millimetres begin at the corner of the picture: public readers truncate ``mm / spacing`` to a pixel index.
    """
    own = volume.spacing_mm[1:]
    if not np.allclose(text.spacing_mm, own, rtol=SPACING_TOLERANCE, atol=0):
        raise GeometryError(
            text.path,
            found=f"spacing {text.spacing_mm[0]:g} x {text.spacing_mm[1]:g} mm",
            expected=f"that of the slices, {own[0]:g} x {own[1]:g} mm",
            remedy="put the text beside the series it was drawn on",
        )
    return contour.points_mm / text.spacing_mm[::-1] - 0.5


def list_series(source: Path) -> tuple[dict[Path, list[Path]], dict[Path, list[RoiText]]]:
    """Find the folders of slices, and the texts beside them.

    Returns:
        The slices of each folder, and its texts; both sorted.

    Raises:
        DatasetError: There are no slices, or a text is damaged or has no slices beside it.
    """
    series: dict[Path, list[Path]] = {}
    found: list[RoiText] = []
    for root, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        written = [path for path in paths if path.suffix.casefold() == ".txt"]
        slices = [path for path in paths if path not in written and may_be_image(path)]
        if slices:
            series[Path(root)] = slices
        found.extend(text for text in map(read_roi_text, written) if text is not None)
    texts: dict[Path, list[RoiText]] = defaultdict(list)
    for text in found:
        # Beside its slices, or beside their folder, which has the name of the text.
        folder = next((place for place in (text.path.parent, text.path.with_suffix("")) if place in series), None)
        if folder:
            texts[folder].append(text)
        elif text.contours:
            raise DatasetError(
                text.path, found="no DICOM slices beside it", expected="those it was drawn on", remedy="add them"
            )
    if not series:
        raise DatasetError(source, found="no DICOM slices", expected="folders of them", remedy="correct the path")
    return dict(sorted(series.items())), texts


def number_slices(folder: Path, files: Sequence[Path]) -> dict[int, Path]:
    """Number the slices as ``slice_number`` does.

    It is the number at the end of a name such as ``CT-1186-0004.dcm``, by which the database's own readers go; or
    InstanceNumber if the names have no number, or begin with 0, which a ``slice_number`` never is.

    Raises:
        DatasetError: A slice has no number, or two have the same.
    """
    found = [_NUMBERED.search(path.stem) for path in files]
    numbers = [int(match[1]) if match else None for match in found]
    if None in numbers or 0 in numbers:
        numbers = [_instance_number(path) for path in files]
    numbered = {number: path for number, path in zip(numbers, files, strict=True) if number is not None}
    if len(numbered) < len(files):
        raise DatasetError(
            folder,
            found="slices without a number, or two of one number",
            expected="names as CT-1186-0004.dcm, or an InstanceNumber in each",
            remedy="name the files so, and keep one series in a folder",
        )
    return numbered


def _instance_number(path: Path) -> int | None:
    try:
        with quiet_pydicom():
            value = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"]).InstanceNumber
            return None if value is None else int(value)
    except READ_ERRORS:
        return None
