"""The measures of a lesion, each defined once.

:data:`MEASURES` is the only place that knows them: ``findings.json``, ``lesions.csv``, the page and the DICOM SR follow
it. To add a measure, add a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from lung_d2.categories import Category
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LobeField, LobeShare, LungLabels, Occupancy, Surroundings, build_surroundings
from lung_d2.lesions.size_and_density import (
    Density,
    Diameters,
    measure_centroid,
    measure_density,
    measure_diameters,
    measure_extent,
)

CodeTuple = tuple[str, str, str]
"""A DICOM code: value, scheme, meaning."""

_MILLIMETER = ("mm", "UCUM", "millimeter")
_HOUNSFIELD = ("[hnsf'U]", "UCUM", "Hounsfield unit")
_PERCENT = ("%", "UCUM", "percent")
_ATTENUATION = ("112031", "DCM", "Attenuation Coefficient")


@dataclass(frozen=True, eq=False)
class LesionContext:
    """A lesion in its surroundings: what the measures are computed from, each part once."""

    lesion: Lesion
    around: Surroundings

    @cached_property
    def occupancy(self) -> Occupancy:
        """Voxels, volume, and shares of lungs and lobes."""
        return self.around.occupancy(self.lesion.patches())

    @cached_property
    def diameters(self) -> Diameters:
        """Long and short axis."""
        return measure_diameters(self.lesion, self.around.volume.spacing_mm)

    @cached_property
    def density(self) -> Density:
        """HU."""
        return measure_density(self.lesion, self.around.volume)


@dataclass(frozen=True)
class CodedNumber:
    """How DICOM SR states a number (TID 300; the concepts of CID 7469).

    Attributes:
        concept: What it is.
        unit: In UCUM.
        derivation: As mean, of several values (CID 7464).
        factor: From the measure to this unit.
    """

    concept: CodeTuple
    unit: CodeTuple
    derivation: CodeTuple | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Measure:
    """One measure of a lesion.

    Attributes:
        name: Key in ``findings.json``.
        unit: What the page shows behind the number; empty for counts, scores and words.
        title: What people call it.
        compute: From a lesion to the value: a number, a word, a tuple of numbers, or None if it is unknown.
        columns: Columns of ``lesions.csv``; by default one of this name; several for a tuple.
        coded: For each number how DICOM SR states it; empty: it is not in the SR.
        digits: Decimals on the page; None for words.
        page: Where the page shows it: in the table of lesions, beside the pictures of a lesion (``details``), or not.
    """

    name: str
    unit: str
    title: str
    compute: Callable[[LesionContext], Any]
    columns: tuple[str, ...] = ()
    coded: tuple[CodedNumber, ...] = ()
    digits: int | None = 0
    page: Literal["table", "details", ""] = ""

    def row(self, value: Any) -> dict[str, Any]:
        """Return the value by column of ``lesions.csv``."""
        columns = self.columns or (self.name,)
        return dict(zip(columns, value if len(columns) > 1 else (value,), strict=True))


MEASURES: tuple[Measure, ...] = (
    # How sure the network is, 0..1.
    Measure(
        "score",
        "",
        "score",
        lambda of: of.lesion.score,
        coded=(CodedNumber(("111012", "DCM", "Certainty of Finding"), _PERCENT, factor=100.0),),  # CID 6048
        digits=2,
        page="table",
    ),
    # A slice is as thick as half the gaps to its neighbours. Slices on which the lesion was missed do not count.
    Measure(
        "volume_ml",
        "ml",
        "volume",
        lambda of: of.occupancy.volume_ml,
        coded=(CodedNumber(("118565006", "SCT", "Volume"), ("ml", "UCUM", "milliliter")),),
        page="table",
    ),
    Measure("voxel_count", "", "voxels", lambda of: of.occupancy.voxel_count),
    Measure("slice_count", "", "slices", lambda of: len(of.lesion.slice_indices)),
    # In the plane of the slices, on the slice where it is longest; the short axis on the same slice.
    Measure(
        "long_axis_mm",
        "mm",
        "long axis",
        lambda of: of.diameters.long_axis_mm,
        coded=(CodedNumber(("103339001", "SCT", "Long axis"), _MILLIMETER),),
        page="table",
    ),
    Measure(
        "short_axis_mm",
        "mm",
        "short axis",
        lambda of: of.diameters.short_axis_mm,
        coded=(CodedNumber(("103340004", "SCT", "Short axis"), _MILLIMETER),),
        page="table",
    ),
    Measure("long_axis_slice_index", "", "slice of the long axis", lambda of: of.diameters.slice_index),
    Measure(
        "mean_hu",
        "HU",
        "mean",
        lambda of: of.density.mean_hu,
        coded=(CodedNumber(_ATTENUATION, _HOUNSFIELD, ("373098007", "SCT", "Mean")),),
        page="table",
    ),
    Measure(
        "sd_hu",
        "HU",
        "standard deviation",
        lambda of: of.density.sd_hu,
        coded=(CodedNumber(_ATTENUATION, _HOUNSFIELD, ("386136009", "SCT", "Standard Deviation")),),
        page="table",
    ),
    Measure("p5_hu", "HU", "5th percentile", lambda of: of.density.p5_hu, page="details"),
    Measure(
        "median_hu",
        "HU",
        "median",
        lambda of: of.density.median_hu,
        coded=(CodedNumber(_ATTENUATION, _HOUNSFIELD, ("373099004", "SCT", "Median")),),
        page="details",
    ),
    Measure("p95_hu", "HU", "95th percentile", lambda of: of.density.p95_hu, page="details"),
    # right, left, or both if the smaller side has a tenth or more; None if no voxel lies in the lungs.
    Measure("side", "", "side", lambda of: of.occupancy.side, digits=None),
    # Its volume inside the lungs over the volume of both lungs.
    Measure(
        "lung_share_percent",
        "%",
        "of the lungs",
        lambda of: of.occupancy.lung_share_percent,
        coded=(CodedNumber(("lung_share", "99LUNGD2", "Volume inside the lungs over volume of the lungs"), _PERCENT),),
        digits=2,
        page="table",
    ),
    # It is seen on the first or the last slice: its volume may be larger.
    Measure(
        "reaches_end_of_scan",
        "",
        "reaches the end of the scan",
        lambda of: bool({0, len(of.around.volume.hu) - 1} & set(of.lesion.slice_indices)),
        digits=None,
    ),
    # Size of its box along the axes of the patient, from edge to edge of its voxels.
    Measure(
        "extent_lps_mm",
        "mm",
        "extent right to left, front to back, foot to head",
        lambda of: measure_extent(of.lesion, of.around.volume),
        columns=("extent_right_left_mm", "extent_front_back_mm", "extent_foot_head_mm"),
        coded=(
            CodedNumber(("103355008", "SCT", "Width"), _MILLIMETER),
            CodedNumber(("131197000", "SCT", "Depth"), _MILLIMETER),
            CodedNumber(("121207", "DCM", "Height"), _MILLIMETER),
        ),
        page="details",
    ),
    Measure(
        "centroid_lps_mm",
        "mm",
        "centre of volume",
        lambda of: measure_centroid(of.lesion, of.around.volume),
        columns=("centroid_x_lps_mm", "centroid_y_lps_mm", "centroid_z_lps_mm"),
    ),
)


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measures of one lesion; each can be read as an attribute, as ``measurement.volume_ml``.

    Attributes:
        lesion_number: :attr:`Lesion.number`.
        category: Its category.
        key_slice_index: The slice that shows most of it.
        lobes: What it occupies of each of the five lobes; empty without lobes.
        values: The value of each of :data:`MEASURES` by its name. What needs lungs is None without them.
    """

    lesion_number: int
    category: Category
    key_slice_index: int
    lobes: tuple[LobeShare, ...] = field(repr=False)
    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Return a measure by its name."""
        values = self.__dict__.get("values", {})  # empty while it is unpickled
        if name in values:
            return values[name]
        raise AttributeError(f"no measure {name!r}: see lung_d2.lesions.measure.MEASURES")


def measure_lesion(
    lesion: Lesion, volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> Measurement:
    """Measure one lesion; for several use :func:`measure_lesions`, which measures the lungs once.

    Raises:
        GeometryError: Lesion, lungs or lobes are not on the grid of the volume.
    """
    return measure_lesions([lesion], volume, lungs, lobes)[0]


def measure_lesions(
    lesions: Sequence[Lesion], volume: CTVolume, lungs: LungLabels | None = None, lobes: LobeField | None = None
) -> list[Measurement]:
    """Measure the lesions of a volume.

    Args:
        lesions: From :func:`lung_d2.lesions.link.link_lesions`.
        volume: The volume on which they were found.
        lungs: Where the lungs are.
        lobes: Where the lobes are.

    Returns:
        A measurement for each lesion, in their order.

    Raises:
        GeometryError: Lesions, lungs or lobes are not on the grid of the volume.
    """
    around = build_surroundings(volume, lungs, lobes)
    measurements = []
    for lesion in lesions:
        if any(part.stop > size for part, size in zip(lesion.box, volume.hu.shape, strict=True)):
            where = f"lesion {lesion.number}"
            raise GeometryError(where, found="voxels outside the volume", remedy="measure it on its own volume")
        of = LesionContext(lesion, around)
        values = {measure.name: measure.compute(of) for measure in MEASURES}
        key = lesion.key_slice_index
        measurements.append(Measurement(lesion.number, lesion.category, key, of.occupancy.lobes, values))
    return measurements
