"""Warnings: what a reader should know before trusting the numbers of a series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lung_d2.ct.grey import GreyLevels
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import Warning
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LungLabels
from lung_d2.lesions.measure import Measurement

THICK_MM = 3.0
"""Twice the 1.5 mm of thin-section CT, by which ground glass and bronchi are judged (Hansell et al., Radiology 2008;
246:697-722)."""
UNEVEN_SHARE = 0.1
"""Largest difference of the gaps between slices, as a share of their mean."""
CUT_SHARE = 0.2
"""The lungs continue beyond the scan if the end slice shows this share of their largest area."""
_LISTED = 8


def find_warnings(
    volume: CTVolume,
    lesions: Sequence[Lesion],
    measurements: Sequence[Measurement],
    grey: GreyLevels,
    lungs: LungLabels | None,
) -> tuple[Warning, ...]:
    """Find what makes the findings of a series less certain.

    Args:
        volume: The series.
        lesions: What was found.
        measurements: Of each.
        grey: Grey levels of the network's pictures.
        lungs: Where the lungs are, where known.

    Returns:
        The warnings; usually none.
    """
    warnings = []
    if grey.kind == "minmax_clahe":
        text = (
            "The model was trained on 8-bit pictures without Hounsfield units. The grey levels of this CT only imitate "
            "them: expect more errors than on such pictures."
        )
        warnings.append(Warning("grey_levels", text))
    warnings += _about_slices(volume)
    if lungs is not None:
        warnings += _about_lungs(lungs, measurements)
    ends = {0, len(volume.hu) - 1}
    cut = [lesion.number for lesion in lesions if ends & set(lesion.slice_indices)]
    if cut:
        text = f"{_list_lesions(cut)} on the first or last slice and may continue beyond the scan."
        warnings.append(Warning("lesions_at_end_of_scan", text))
    return tuple(warnings)


def _about_slices(volume: CTVolume) -> Iterator[Warning]:
    spacing_mm = volume.spacing_mm[0]
    if spacing_mm > THICK_MM:
        yield Warning(
            "thick_slices",
            f"Slices are {spacing_mm:.1f} mm apart: small lesions and narrow bronchi may be missed, and volumes of "
            "lesions on few slices are coarse.",
        )
    gaps_mm = np.diff(volume.slice_positions_mm)
    if len(gaps_mm) and np.ptp(gaps_mm) > UNEVEN_SHARE * gaps_mm.mean():
        yield Warning(
            "uneven_slices",
            f"Slices are not evenly spaced: gaps from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm.",
        )


def _about_lungs(lungs: LungLabels, measurements: Sequence[Measurement]) -> Iterator[Warning]:
    areas = np.array([np.count_nonzero(plane) for plane in lungs.labels])
    if not areas.any():
        yield Warning("no_lungs", "No lungs were found in this series. Is it a chest CT?")
        return
    ends = [name for name, index in (("first", 0), ("last", -1)) if areas[index] > CUT_SHARE * areas.max()]
    if ends:
        text = f"The lungs continue beyond the {' and the '.join(ends)} slice: shares refer to the part in the scan."
        yield Warning("lungs_cut", text)
    outside = [one.lesion_number for one in measurements if one.side is None]
    if outside:
        yield Warning("lesions_outside_lungs", f"{_list_lesions(outside)} wholly outside the lungs.")


def _list_lesions(numbers: Sequence[int]) -> str:
    shown = [str(number) for number in numbers[:_LISTED]]
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"Lesion {shown[0]} lies" if len(numbers) == 1 else f"Lesions {', '.join(shown)}{more} lie"
