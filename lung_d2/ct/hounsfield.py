"""Hounsfield units: from stored values, and whether what came out can be HU at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lung_d2.errors import InputError

AIR_HU = -1000
"""HU of air, by definition of the scale; padding outside the field of view is set to it."""
INT16 = np.iinfo(np.int16)

JUDGED_FIELD_MM = 32.0
"""Fields of view narrower than this are too small to judge, where the file does not state its rescale."""
STATED_FIELD_MM = 150.0
"""The same for DICOM that states slope 1 and intercept 0, which some writers fill in without knowing."""
SCANNER_INTERCEPT = -500.0
"""An intercept below this was stated by one who knew: scanners write -1024, -1000 or -8192."""
NORMALISED_SPAN = 20.0
"""Values that span less than this many HU are not a CT: noise alone spans more."""
WHOLE_FIELD_MM = 250.0
"""A field of view this wide in both directions holds air: around the body, in lung or in bowel."""
AIR_RANGE, SOFT_RANGE = (-1100, -600), (-200, 200)


def hu_from_stored(
    stored: npt.NDArray[np.generic], slope: float | None, intercept: float | None
) -> npt.NDArray[np.int16]:
    """Rescale stored values: slope x stored + intercept, rounded once and clipped to int16.

    Args:
        stored: Stored values of any shape.
        slope: HU per stored value; None stands for 1.
        intercept: HU of stored value 0; None stands for 0.

    Returns:
        HU int16 of the same shape: exact for whole slopes and intercepts, else within 0.5 HU.
    """
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    values = stored.astype(np.float64) * slope + intercept
    return np.clip(np.rint(values), INT16.min, INT16.max).astype(np.int16)


def check_hu(
    hu: npt.NDArray[np.int16],
    field_mm: tuple[float, float],
    *,
    where: str,
    judged_field_mm: float = 0.0,
    trusted: bool = False,
    padded: bool = False,
    span: float | None = None,
) -> None:
    """Refuse a volume whose values cannot be HU.

    Air is about -1000 HU. Values that were never rescaled, rescaled twice or normalised put it elsewhere. A crop
    inside the body has no air, so only what no tissue explains is refused: the wider the field of view, the more of
    it.

    Args:
        hu: The volume, int16 ``[Z, Y, X]``.
        field_mm: Field of view along y and x.
        where: What messages call the volume.
        judged_field_mm: Fields of view narrower than this are not judged.
        trusted: Whether the source states an intercept as scanners do: then only a second rescale is looked for.
        padded: Whether padding was set to ``AIR_HU``: it says nothing about air.
        span: Highest less lowest value before rounding, where it is known.

    Raises:
        InputError: The values cannot be HU.
    """
    judged = hu[hu != AIR_HU] if padded else hu
    if min(field_mm) < judged_field_mm or not judged.size:
        return
    low, high = int(judged.min()), int(judged.max())
    finding = _rescaled_twice(judged)
    if not finding and not trusted:
        finding = _not_rescaled(judged, low, high - low if span is None else span, min(field_mm))
    if finding:
        raise InputError(
            where,
            found=f"values from {low} to {high}: {finding}",
            expected="HU, with air at about -1000",
            remedy="apply slope and intercept (RescaleSlope, RescaleIntercept; scl_slope, scl_inter) once, or give "
            "the original CT",
        )


def _rescaled_twice(hu: npt.NDArray[np.int16]) -> str:
    if _share(hu, INT16.min, -1200) > 0.2 and _share(hu, *SOFT_RANGE) < 0.01 and _share(hu, -1150, -850) > 0.05:
        return "most of it below air and no soft tissue, as if the intercept had been applied twice"
    return ""


def _not_rescaled(hu: npt.NDArray[np.int16], low: int, span: float, field_mm: float) -> str:
    if span < NORMALISED_SPAN:
        return "too narrow a range for CT, as if it had been normalised"
    if low >= 0:
        return "nothing below 0, as if the intercept had not been applied"
    air = _share(hu, *AIR_RANGE)
    if air < 1e-4 and _share(hu, 800, INT16.max) > 0.1:
        return "no air and a tenth above 800, as if the intercept had not been applied"
    if field_mm >= WHOLE_FIELD_MM and air == 0:
        return "no air in a field of view as wide as the body"
    return ""


def _share(hu: npt.NDArray[np.int16], low: int, high: int) -> float:
    return float(np.count_nonzero((hu >= low) & (hu <= high))) / hu.size
