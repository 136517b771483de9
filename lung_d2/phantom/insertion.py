"""Phantom lesions in a real, healthy lung: the CT keeps its anatomy, vessels, noise and sharpness.

An opacity raises the parenchyma towards ground glass and leaves vessels and airways as they are; dilated bronchi are
laid beside real vessels and blurred as the series is. What such copies teach and prove is limited: all copies of a
series are one patient, who has the lesions of a generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.phantom.insert_blend import paint_slice
from lung_d2.phantom.insert_draw import Drawing, draw_insertion
from lung_d2.phantom.insert_lung import RealLung
from lung_d2.phantom.patient import HIGHEST_HU, LOWEST_HU
from lung_d2.phantom.spec import LesionSpec, PhantomSpec, Range
from lung_d2.phantom.truth import PhantomLesion, list_lesions, stack_instances

INSERTED = PhantomSpec(
    ground_glass_opacity=LesionSpec((1, 4), Range(7.0, 24.0), Range(0.2, 1.0)),
    bronchiectasis=LesionSpec((3, 6), Range(2.6, 5.8), Range(0.2, 1.0)),
    distractors=0.15,
    overlap_share=0.35,
    patients=10,
    seed=40_551,
)
"""Lesions of a copy; ``patients`` are copies. What else a spec says, the real CT decides."""


_CATEGORIES = (GROUND_GLASS_OPACITY, BRONCHIECTASIS)


@dataclass(frozen=True, eq=False)
class InsertedCopy:
    """A real CT with phantom lesions and their truth.

    Attributes:
        number: Number of the copy; with the spec's seed it decides everything.
        hu: int16 ``[Z, Y, X]``, HU, on the grid of the CT.
        instances: For each category's name, uint16 ``[Z, Y, X]``: 0 background, 1..n a lesion.
        lesions: All lesions that are marked.
        drawing: What was inserted.
    """

    number: int
    hu: np.ndarray
    instances: dict[str, np.ndarray]
    lesions: tuple[PhantomLesion, ...]
    drawing: Drawing


def insert_lesions(lung: RealLung, number: int = 0, spec: PhantomSpec = INSERTED) -> InsertedCopy:
    """Make one copy of a real CT with phantom lesions in its lungs.

    Args:
        lung: The CT, see :func:`lung_d2.phantom.insert_lung.prepare_lung`.
        number: Number of the copy.
        spec: Number, size and evidence of the lesions, and the seed.

    Returns:
        The copy: the same for the same arguments. Voxels that no lesion reaches are as they were.
    """
    drawing = draw_insertion(spec, number, lung)
    hu, maps = _paint(lung, drawing)
    seen = [np.unique(one)[1:] - 1 for one in maps]
    if (len(seen[0]), len(seen[1])) != (len(drawing.opacities), len(drawing.bronchi)):
        # What is too small to be marked must not be there either.
        opacities, bronchi = (
            tuple(shapes[index] for index in kept)
            for shapes, kept in zip((drawing.opacities, drawing.bronchi), seen, strict=True)
        )
        drawing = replace(drawing, opacities=opacities, bronchi=bronchi)
        hu, maps = _paint(lung, drawing)
    voxel_mm3 = float(np.prod(lung.volume.spacing_mm))
    instances: dict[str, np.ndarray] = {}
    lesions: tuple[PhantomLesion, ...] = ()
    for category, shapes, stacked in zip(_CATEGORIES, (drawing.opacities, drawing.bronchi), maps, strict=True):
        instances[category.name], found = list_lesions(category.name, shapes, stacked, voxel_mm3)
        lesions += tuple(replace(one, center_mm=lung.to_lps(one.center_mm)) for one in found)
    return InsertedCopy(number, hu, instances, lesions, drawing)


def _paint(lung: RealLung, drawing: Drawing) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return HU int16 ``[Z, Y, X]``, and for each category a map of instances, value index + 1."""
    hu = lung.volume.hu.copy()
    masks: tuple[list, list] = ([], [])
    for plane, index in zip(hu, range(len(hu)), strict=True):
        painted = paint_slice(lung, drawing, index)
        changed = painted.hu != plane
        plane[changed] = np.clip(np.rint(painted.hu[changed]), LOWEST_HU, HIGHEST_HU)
        masks[0].append(painted.opacities)
        masks[1].append(painted.bronchi)
    return hu, [stack_instances(one, hu.shape[1:], lung.pixel_mm) for one in masks]
