"""The slices of the truth as pictures, and what came back of the lesions that a tool drew on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from data.importers.truth import make_truth
from lung_d2.categories import CATEGORIES, Category
from lung_d2.data.cases import Case
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import LabelTable, Meaning

Mask = npt.NDArray[np.bool_]

NAMES = [f"p{index // 4}_{index:02d}.png" for index in range(8)]
"""Of two patients."""
PATIENTS = PatientRule(r"(p\d)_")


def make_request(
    source: Path, table: dict[str, Meaning] | None = None, instances: str = "values", **options: object
) -> Request:
    options.setdefault("patients", PATIENTS)
    return Request(source, LabelTable(table or {}), InstanceRule(instances), **options)


def grey_slices() -> npt.NDArray[np.uint8]:
    """Return the slices of the truth in a lung window, uint8 ``(8, 160, 192)``."""
    hu = make_truth().hu.astype(np.float64)
    return np.rint(np.clip((hu + 1350) / 1500, 0, 1) * 255).astype(np.uint8)


def write_pictures(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, plane in zip(NAMES, grey_slices(), strict=True):
        assert cv2.imwrite(str(folder / name), plane)
    return [folder / name for name in NAMES]


def lesions_of(index: int) -> Iterator[tuple[Category, int, Mask]]:
    """Give the lesions of a slice: category, number and mask."""
    for category in CATEGORIES:
        values = make_truth().instances[category][index]
        for value in np.unique(values):
            if value:
                yield category, int(value), values == value


def contours_of(mask: Mask) -> list[tuple[npt.NDArray[np.int32], bool]]:
    """Return the contours through the centres of the outermost pixels, and whether each is a hole."""
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [(contour[:, 0], row[3] >= 0) for contour, row in zip(contours, hierarchy[0], strict=True)]


def compare(cases: Iterable[Case]) -> dict[str, float]:
    """Compare what was imported with the truth: every slice of it, with as many lesions of each category.

    Args:
        cases: In any order.

    Returns:
        Intersection over union of the pixels of each category by name, and the lowest of a lesion as ``"worst"``.
    """
    slices = [item for case in cases for item in case.load()]
    grey = {plane.tobytes(): index for index, plane in enumerate(grey_slices())}
    assert len(slices) == len(grey) == len(NAMES)
    found = {category: np.zeros(make_truth().hu.shape, bool) for category in CATEGORIES}
    worst = 1.0
    for item in slices:
        index = grey[item.plane.tobytes()]
        wanted = [(category, mask) for category, _, mask in lesions_of(index)]
        assert sorted(one.name for one, _ in item.instances) == sorted(one.name for one, _ in wanted)
        for category, mask in wanted:
            worst = min(worst, max(overlap(mask, other) for one, other in item.instances if one == category))
        for category, mask in item.instances:
            found[category][index] |= mask
    scores = {category.name: overlap(found[category], make_truth().mask(category)) for category in CATEGORIES}
    return scores | {"worst": worst}


def overlap(first: Mask, second: Mask) -> float:
    return float((first & second).sum() / (first | second).sum())
