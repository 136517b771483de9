"""From what a source marks to instances: by connected components in 2-D or 3-D, or as the source tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lung_d2.categories import Category
from lung_d2.ct.volume import CTVolume
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.labels import Label, Meaning
from lung_d2.errors import ConfigError
from lung_d2.lungs.field import BUILTIN, LungField, choose_finder
from lung_d2.masks import Mask, connected_components

COMPONENTS, COMPONENTS_3D, VALUES = "components", "components-3d", "values"
INSTANCE_KINDS = (COMPONENTS, COMPONENTS_3D, VALUES)


@dataclass(frozen=True, eq=False)
class Region:
    """What a source marks in one slice.

    Attributes:
        meaning: Category, or ``Label.IGNORE`` for what is undecided, or ``Label.BACKGROUND`` for what is decided to be
            no lesion (it only matters where the rest is undecided).
        mask: bool ``(H, W)``.
        lesion: What the source calls the lesion, for regions of one lesion; None where it does not tell.
    """

    meaning: Meaning
    mask: Mask
    lesion: str | None = None


@dataclass(frozen=True)
class InstanceRule:
    """What one instance is.

    Attributes:
        kind: ``"components"``: the parts of a category's mask in a slice that touch by edge or corner;
            ``"components-3d"``: those of its volume, which may have several parts in a slice; ``"values"``: what the
            source tells apart, even where lesions touch.
        min_area_mm2: Smaller instances of a slice are left out and counted as specks. A pixel of unknown size counts
            as 1 mm2.
        lungs: Who finds the lungs, in which regions are judged: see :func:`lung_d2.lungs.choose_finder`.
    """

    kind: str = COMPONENTS
    min_area_mm2: float = 0.0
    lungs: str | Path = BUILTIN

    def __post_init__(self) -> None:
        """Refuse a rule that no function here knows."""
        if self.kind not in INSTANCE_KINDS:
            raise ConfigError(
                f"--instances {self.kind}", found="no such rule", expected=", ".join(INSTANCE_KINDS), remedy="take one"
            )
        if not self.min_area_mm2 >= 0:
            raise ConfigError(
                f"--min-area-mm2 {self.min_area_mm2:g}", found="no area", expected="0 or more", remedy="correct it"
            )

    def find_lungs(self, volume: CTVolume) -> LungField:
        """Find the lungs of a volume by the chosen finder."""
        return choose_finder(self.lungs)(volume)


def annotate_slice(
    plane: npt.NDArray[np.generic],
    regions: Iterable[Region],
    rule: InstanceRule,
    slice_index: int,
    *,
    pixel_spacing_mm: tuple[float, float] | None = None,
    slice_position_mm: float | None = None,
    lungs: Mask | None = None,
    name: str = "",
) -> AnnotatedSlice:
    """Turn the regions of one slice into instances.

    Args:
        plane: ``(H, W)``, int16 in HU or uint8 grey.
        regions: What the source marks; each ``(H, W)``.
        rule: What one instance is; 3-D components of a single slice are its 2-D ones.
        slice_index: 0-based.
        pixel_spacing_mm: Row and column spacing, where known.
        slice_position_mm: Position along the normal, where known.
        lungs: The lung field ``(H, W)``, where known.
        name: What messages call the slice; empty: its case and index.

    Returns:
        The slice; instances are in the order of the categories. A lesion wins over what is undecided.
    """
    regions = list(regions)
    area = pixel_spacing_mm[0] * pixel_spacing_mm[1] if pixel_spacing_mm else 1.0
    categories = _sort({region.meaning for region in regions if isinstance(region.meaning, Category)})
    found = [(category, part) for category in categories for part in _parts(regions, category, rule.kind)]
    kept = [(category, part) for category, part in found if np.count_nonzero(part) * area >= rule.min_area_mm2]
    return AnnotatedSlice(
        plane=plane,
        instances=tuple(kept),
        slice_index=slice_index,
        pixel_spacing_mm=pixel_spacing_mm,
        slice_position_mm=slice_position_mm,
        undecided=_undecided(regions),
        lungs=lungs,
        specks=len(found) - len(kept),
        name=name,
    )


def annotate_volume(
    volume: CTVolume,
    regions_of: Callable[[int], Sequence[Region]],
    rule: InstanceRule,
    *,
    find_lung_field: bool = True,
) -> Iterator[AnnotatedSlice]:
    """Turn the regions of a volume into its annotated slices.

    Args:
        volume: The CT.
        regions_of: What the source marks in a slice, by its index; may be called twice for each.
        rule: What one instance is.
        find_lung_field: Find the lungs, which selection and report ask for.

    Yields:
        The slices in order.
    """
    lungs = rule.find_lungs(volume).mask if find_lung_field else None
    grouped = _label_in_3d(volume, regions_of) if rule.kind == COMPONENTS_3D else regions_of
    for index, plane in enumerate(volume.hu):
        yield annotate_slice(
            plane,
            grouped(index),
            rule,
            index,
            pixel_spacing_mm=(volume.spacing_mm[1], volume.spacing_mm[2]),
            slice_position_mm=float(volume.slice_positions_mm[index]),
            lungs=None if lungs is None else lungs[index],
        )


def _sort(categories: Iterable[Category]) -> list[Category]:
    return sorted(categories, key=lambda category: category.coco_id)


def _parts(regions: Sequence[Region], category: Category, kind: str) -> list[Mask]:
    """Return the instances of one category in one slice."""
    mine = [region for region in regions if region.meaning == category and region.mask.any()]
    if kind == COMPONENTS or (kind == COMPONENTS_3D and any(region.lesion is None for region in mine)):
        return connected_components(np.logical_or.reduce([region.mask for region in mine])) if mine else []
    lesions: dict[object, Mask] = {}
    for number, region in enumerate(mine):
        key = number if region.lesion is None else region.lesion
        lesions[key] = lesions[key] | region.mask if key in lesions else region.mask
    return list(lesions.values())


def _undecided(regions: Sequence[Region]) -> Mask | None:
    ignored = [region.mask for region in regions if region.meaning == Label.IGNORE]
    if not ignored:
        return None
    decided = [region.mask for region in regions if region.meaning != Label.IGNORE]
    return np.logical_or.reduce(ignored) & ~np.logical_or.reduce([np.zeros_like(ignored[0]), *decided])


def _label_in_3d(volume: CTVolume, regions_of: Callable[[int], Sequence[Region]]) -> Callable[[int], Sequence[Region]]:
    """Group the regions of each category by the component of its volume (by face, edge or corner)."""
    unions: dict[Category, npt.NDArray[np.uint8]] = {}
    for index in range(len(volume.hu)):
        for region in regions_of(index):
            if isinstance(region.meaning, Category):
                union = unions.setdefault(region.meaning, np.zeros(volume.hu.shape, np.uint8))
                union[index][region.mask] = 1
    labels = {}
    for category in _sort(unions):
        image = sitk.GetImageFromArray(unions.pop(category))
        values = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
        labels[category] = values.astype(np.min_scalar_type(int(values.max())))

    def grouped(index: int) -> list[Region]:
        others = [region for region in regions_of(index) if isinstance(region.meaning, Label)]
        parts = [
            Region(category, values[index] == value, str(value))
            for category, values in labels.items()
            for value in np.unique(values[index])
            if value
        ]
        return [*others, *parts]

    return grouped
