"""One synthetic patient with known lesions, laid into space in several ways: what every importer is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.uid import generate_uid

from ct.dicom_files import make_slice, write
from lung_d2.categories import CATEGORIES, Category
from lung_d2.ct.labels import LabelVolume, labels_on_grid
from lung_d2.ct.volume import CTVolume, read_volume
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.phantom.patient import build_patient
from lung_d2.phantom.spec import QUICK

Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint16]

SPEC = replace(QUICK, matrix=(160, 192), slice_count=8, slice_spacing_mm=18.0)


@dataclass(frozen=True, eq=False)
class Truth:
    """A CT and its lesions.

    Attributes:
        hu: int16 ``[Z, Y, X]``.
        instances: For each category uint16 ``[Z, Y, X]``; 0 outside, 1..n a lesion.
        affine_lps: ``(4, 4)``; index (x, y, z, 1) to LPS mm. Rows and columns are perpendicular.
    """

    hu: npt.NDArray[np.int16]
    instances: dict[Category, Labels]
    affine_lps: Affine

    def mask(self, category: Category) -> npt.NDArray[np.bool_]:
        return self.instances[category] > 0

    def label_map(self) -> npt.NDArray[np.uint8]:
        """Return one map of both categories by their COCO ids; where they overlap, the later one wins."""
        values = np.zeros(self.hu.shape, np.uint8)
        for category in CATEGORIES:
            values[self.mask(category)] = category.coco_id
        return values


def _turn(degrees: float) -> Affine:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def _axial(affine: Affine) -> Affine:
    return affine


def _oblique(affine: Affine) -> Affine:
    return _turn(15.0) @ affine


def _prone(affine: Affine) -> Affine:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # rows to the right, columns to the front


def _head_down(affine: Affine) -> Affine:
    return np.diag([1.0, -1.0, -1.0, 1.0]) @ affine


def _anisotropic(affine: Affine) -> Affine:
    return affine @ np.diag([1.0, 0.6, 0.25, 1.0])


GEOMETRIES: dict[str, Callable[[Affine], Affine]] = {
    "axial": _axial,
    "oblique": _oblique,
    "prone": _prone,
    "head down": _head_down,
    "anisotropic": _anisotropic,
}
"""Each keeps the handedness of (row, column, normal), as DICOM needs it."""


@cache
def make_truth(geometry: str = "axial") -> Truth:
    """Build the patient (about 3 s, once) and lay it into space."""
    patient = _patient()
    instances = {category: patient.instances[category.name] for category in CATEGORIES}
    return Truth(np.array(patient.volume.hu), instances, GEOMETRIES[geometry](np.array(patient.volume.affine_lps)))


@cache
def _patient():
    patient = build_patient(SPEC, 0)
    assert all((patient.instances[category.name] > 0).sum() > 100 for category in CATEGORIES)
    return patient


def write_ct(truth: Truth, folder: Path, *, reverse: bool = False, **tags: object) -> list[Path]:
    """Write the CT as a classic DICOM series.

    Args:
        truth: What to write.
        folder: Made where it is missing.
        reverse: Number and name the files from the last slice on.
        tags: Further DICOM attributes, by keyword.

    Returns:
        The files, in the order of the slices of ``truth``.
    """
    affine = truth.affine_lps
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    common = {
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "ImageOrientationPatient": [float(v) for v in (affine[:3, :2] / spacing[:2]).T.ravel()],
        "PixelSpacing": [float(spacing[1]), float(spacing[0])],
    } | tags
    count, paths = len(truth.hu), []
    for index, plane in enumerate(truth.hu):
        position = affine @ [0.0, 0.0, index, 1.0]
        number = count - index if reverse else index + 1
        stored = (plane.astype(np.int32) + 1024).astype(np.uint16)
        where = {"ImagePositionPatient": [float(v) for v in position[:3]], "InstanceNumber": number}
        paths.append(write(make_slice(stored, **(common | where)), folder / f"{number:04d}.dcm"))
    return paths


def compare(slices: Iterable[AnnotatedSlice], truth: Truth, source: object) -> dict[str, float]:
    """Compare what was imported with the truth, in patient coordinates.

    Args:
        slices: What a case loads.
        truth: What was written.
        source: What ``read_volume`` reads the same CT from; a :class:`CTVolume` as it is.

    Returns:
        Intersection over union of the voxels of each category, by name.
    """
    volume = source if isinstance(source, CTVolume) else read_volume(source)  # type: ignore[arg-type]
    slices = list(slices)
    assert [item.slice_index for item in slices] == list(range(len(volume.hu)))
    assert all(np.array_equal(item.plane, plane) for item, plane in zip(slices, volume.hu, strict=True))
    spacing = (volume.spacing_mm[1], volume.spacing_mm[2])
    assert all(item.pixel_spacing_mm is None or np.allclose(item.pixel_spacing_mm, spacing) for item in slices)
    scores = {}
    for category in CATEGORIES:
        wanted = labels_on_grid(LabelVolume(truth.mask(category).astype(np.uint8), truth.affine_lps), volume) > 0
        found = np.zeros(volume.hu.shape, bool)
        for item in slices:
            for one, mask in item.instances:
                found[item.slice_index] |= mask & (one == category)
        scores[category.name] = float((found & wanted).sum() / (found | wanted).sum())
    return scores
