"""The two lesion categories, said once: name, COCO id, colour and DICOM code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lung_d2.errors import DatasetError


@dataclass(frozen=True)
class Category:
    """A lesion category.

    Attributes:
        name: Name used in files, metadata (``thing_classes``) and tables.
        coco_id: ``category_id`` in COCO JSON, from 1.
        color: RGB of overlays, 0..255; the two differ for colour-blind eyes too (Okabe and Ito 2008).
        code: DICOM code ``(value, scheme, meaning)`` of the segmented property type.
    """

    name: str
    coco_id: int
    color: tuple[int, int, int]
    code: tuple[str, str, str]


GROUND_GLASS_OPACITY = Category("ground_glass_opacity", 1, (230, 159, 0), ("112120", "DCM", "Ground glass opacity"))
BRONCHIECTASIS = Category("bronchiectasis", 2, (86, 180, 233), ("12295008", "SCT", "Bronchiectasis"))

CATEGORIES: tuple[Category, ...] = (GROUND_GLASS_OPACITY, BRONCHIECTASIS)
COCO_NAMES = {category.coco_id: category.name for category in CATEGORIES}
"""The name of each COCO id."""
NUMBER_OF_COCO_ID = {category.coco_id: number for number, category in enumerate(CATEGORIES)}
"""The place of a category in :data:`CATEGORIES`, by its COCO id."""


def category_by_name(name: str) -> Category:
    """Return the category of that name.

    Raises:
        DatasetError: No category has this name.
    """
    for category in CATEGORIES:
        if category.name == name:
            return category
    names = ", ".join(category.name for category in CATEGORIES)
    raise DatasetError(f"category {name!r}", found="unknown", expected=f"one of {names}", remedy="rename it")


def category_by_coco_id(coco_id: int) -> Category:
    """Return the category of that COCO id.

    Raises:
        DatasetError: No category has this id.
    """
    for category in CATEGORIES:
        if category.coco_id == coco_id:
            return category
    ids = ", ".join(str(category.coco_id) for category in CATEGORIES)
    raise DatasetError(f"category_id {coco_id}", found="unknown", expected=f"one of {ids}", remedy="correct it")


def coco_categories() -> list[dict[str, Any]]:
    """Return the ``categories`` of a COCO file."""
    return [{"id": item.coco_id, "name": item.name, "supercategory": "lung lesion"} for item in CATEGORIES]
