"""Where slices lie: affines, and planes sorted to a stack, evenly spaced, without gaps, duplicates or other views."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.ct.planes import MAX_SPACING_MM, MAX_VOXELS, SIDE_IMAGE_TYPES, Plane
from lung_d2.errors import GeometryError, InputError

Affine = npt.NDArray[np.float64]
logger = logging.getLogger(__name__)

Vector = npt.NDArray[np.float64]

SAME_POSITION_MM = 0.01
"""Slices nearer than this lie at the same position."""
GAP_RATIO = 1.5
"""A step this many times the usual one is a gap: at least half a slice is missing."""
STEP_TOLERANCE = (0.1, 0.06)
"""A step may differ from the usual one by this share of it, plus these mm: positions are often rounded to 0.1 mm."""
SAME_ORIENTATION = 1e-3
OTHER_VIEW_COSINE = 0.98
"""Normals that differ by more than 11 degrees show another view, as a localizer does."""
MAX_OTHER_VIEWS = 3


def normal_of(affine_lps: Affine) -> npt.NDArray[np.float64]:
    """Return the slice normal, row x column direction, a unit vector in LPS."""
    normal = np.cross(affine_lps[:3, 0], affine_lps[:3, 1])
    unit: npt.NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def spacing_of(affine_lps: Affine) -> tuple[float, float, float]:
    """Return the spacing (z, y, x) in mm; z is along the slice normal, whatever the shear."""
    x, y = np.linalg.norm(affine_lps[:3, :2], axis=0)
    return float(abs(affine_lps[:3, 2] @ normal_of(affine_lps))), float(y), float(x)


def positions_along_normal(affine_lps: Affine, count: int) -> npt.NDArray[np.float64]:
    """Return the positions of ``count`` slices along the normal in mm, float64 ``[Z]``."""
    normal = normal_of(affine_lps)
    positions: npt.NDArray[np.float64] = affine_lps[:3, 3] @ normal + np.arange(count) * (affine_lps[:3, 2] @ normal)
    return positions


def describe_grid(shape: tuple[int, ...], affine_lps: Affine) -> str:
    """Say size, spacing, first voxel and direction of the axes in a few words."""
    z, y, x = spacing_of(affine_lps)
    origin = ", ".join(f"{value:.1f}" for value in affine_lps[:3, 3])
    directions = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    axes = " ".join("(" + " ".join(f"{value:.2f}" for value in axis) + ")" for axis in directions.T)
    size = " x ".join(str(size) for size in shape)
    return f"{size} voxels of {z:.3g} x {y:.3g} x {x:.3g} mm from ({origin}) along {axes}"


def no_orientation(path: Path, why: str) -> GeometryError:
    """Return the error of a file that does not say how its axes lie in the patient."""
    return GeometryError(
        path,
        found=f"no orientation ({why})",
        expected="a position in the patient, so that left and right are known",
        remedy="export it with its orientation",
    )


def check_affine(affine_lps: Affine, where: str | Path) -> None:
    """Refuse an affine that is singular, not finite, or skews rows against columns.

    Raises:
        GeometryError: It is one of these, or a spacing is out of bounds.
    """
    linear = affine_lps[:3, :3]
    if not np.isfinite(affine_lps).all():
        raise GeometryError(where, found="NaN or infinity in its affine", remedy="export the file again")
    lengths = np.linalg.norm(linear, axis=0)
    if not ((lengths > 1e-4) & (lengths <= MAX_SPACING_MM)).all():
        raise GeometryError(
            where,
            found="spacing " + " x ".join(f"{length:g}" for length in lengths) + " mm",
            expected=f"above 0, up to {MAX_SPACING_MM:g} mm",
            remedy="export the file again with its true spacing",
        )
    unit = linear / lengths
    if abs(np.linalg.det(unit)) < 0.1 or abs(unit[:, 0] @ unit[:, 1]) > 1e-3:
        raise GeometryError(
            where,
            found="axes that are skewed",
            expected="rows perpendicular to columns",
            remedy="resample it to a grid with right angles",
        )


@dataclass(frozen=True)
class Stack:
    """Parallel planes that make a volume.

    Attributes:
        planes: Sorted along the normal, lowest first.
        spacing_mm: (z, y, x); z is along the normal.
        slice_positions_mm: float64 ``[Z]``, along the normal.
        affine_lps: float64 ``(4, 4)``; index (x, y, z, 1) to LPS mm. The third column holds the shear of a tilted
            gantry.
    """

    planes: tuple[Plane, ...]
    spacing_mm: tuple[float, float, float]
    slice_positions_mm: Vector
    affine_lps: Vector


def stack_planes(planes: Sequence[Plane], name: str) -> Stack:
    """Sort planes along their normal and check that they make one volume.

    Args:
        planes: At least one plane.
        name: What messages call the series.

    Returns:
        The stack; localizers and other views that were mixed in are left out, with a log line.

    Raises:
        GeometryError: Sizes, spacings or orientations differ; slices are missing, doubled or unevenly spaced.
        InputError: The planes are localizers only, or more voxels than can be read.
    """
    planes = _drop_other_views(_drop_side_images(planes, name), name)
    _check_alike(planes, name)
    if len(planes) * planes[0].size[0] * planes[0].size[1] > MAX_VOXELS:
        raise InputError(name, found=f"{len(planes)} slices", expected="at most 2^30 voxels", remedy="give fewer files")
    row, column = _directions(planes)
    normal = np.cross(row, column)
    origins = np.array([plane.image_position_patient for plane in planes], dtype=np.float64)
    order = np.argsort(origins @ normal, kind="stable")
    planes, origins = [planes[index] for index in order], origins[order]
    positions = origins @ normal
    _check_doubles(planes, positions, name)
    step = _slice_step(planes, origins, positions, normal, name)
    rows_mm, columns_mm = planes[0].pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * columns_mm, column * rows_mm, step, origins[0]
    return Stack(tuple(planes), (round(float(step @ normal), 9), rows_mm, columns_mm), positions, affine)


def _drop_side_images(planes: Sequence[Plane], name: str) -> list[Plane]:
    kept = [plane for plane in planes if not plane.image_type & SIDE_IMAGE_TYPES]
    if not kept:
        raise InputError(
            name, found="only localizer or report images", expected="axial CT slices", remedy="give the CT series"
        )
    if len(kept) < len(planes):
        logger.info("%s: left out %d localizer or report images", name, len(planes) - len(kept))
    return kept


def _drop_other_views(planes: list[Plane], name: str) -> list[Plane]:
    """Leave out the few planes that cut the stack at an angle: localizers that do not say so."""
    if len(planes) == 1:
        return planes
    keys = [tuple(round(value, 2) + 0.0 for value in plane.image_orientation_patient) for plane in planes]
    main = _normal(planes[keys.index(Counter(keys).most_common(1)[0][0])])
    kept = [plane for plane in planes if _normal(plane) @ main > OTHER_VIEW_COSINE]
    dropped = len(planes) - len(kept)
    if dropped > MAX_OTHER_VIEWS or (2 * dropped >= len(kept) > 0 and dropped):
        other = next(plane for plane in planes if _normal(plane) @ main <= OTHER_VIEW_COSINE)
        raise GeometryError(
            other.name,
            found=f"another orientation than {len(kept)} of the {len(planes)} images of its series",
            expected="parallel slices",
            remedy="give the files of one stack",
        )
    if dropped:
        logger.info("%s: left out %d images of another orientation", name, dropped)
    return kept


def _normal(plane: Plane) -> Vector:
    cosines = np.asarray(plane.image_orientation_patient, dtype=np.float64)
    normal: Vector = np.cross(cosines[:3], cosines[3:])
    return normal


def _check_alike(planes: Sequence[Plane], name: str) -> None:
    """Refuse planes that differ in size, pixel spacing or, slightly, in orientation."""
    first = planes[0]
    for plane in planes[1:]:
        if plane.size != first.size:
            difference = f"size {plane.size[0]} x {plane.size[1]} and {first.size[0]} x {first.size[1]}"
        elif not np.allclose(plane.pixel_spacing_mm, first.pixel_spacing_mm, rtol=1e-3, atol=1e-5):
            a, b = plane.pixel_spacing_mm, first.pixel_spacing_mm
            difference = f"pixel spacing {a[0]:g} x {a[1]:g} and {b[0]:g} x {b[1]:g} mm"
        elif not np.allclose(
            plane.image_orientation_patient, first.image_orientation_patient, rtol=0, atol=2 * SAME_ORIENTATION
        ):
            difference = "orientations that differ slightly"
        else:
            continue
        raise GeometryError(
            name,
            found=f"{plane.name} and {first.name} have {difference}",
            expected="slices alike",
            remedy="give the files of one stack",
        )


def _directions(planes: Sequence[Plane]) -> tuple[Vector, Vector]:
    """Average the direction cosines and make them exactly orthonormal."""
    cosines: Vector = np.array([plane.image_orientation_patient for plane in planes], dtype=np.float64).mean(axis=0)
    row = cosines[:3] / np.linalg.norm(cosines[:3])
    column = cosines[3:] - (cosines[3:] @ row) * row
    return row, column / np.linalg.norm(column)


def _check_doubles(planes: Sequence[Plane], positions: Vector, name: str) -> None:
    """Refuse several planes at one position, and say whether they are copies, or phases of a 4-D series."""
    same = np.flatnonzero(np.diff(positions) < SAME_POSITION_MM)
    if not same.size:
        return
    first, second = planes[same[0]], planes[same[0] + 1]
    distinct = len(positions) - same.size
    copies = first.sop_instance_uid != "" and (first.sop_instance_uid, first.frame_number) == (
        second.sop_instance_uid,
        second.frame_number,
    )
    if not copies and len(positions) > 2 and same.size >= distinct:
        raise GeometryError(
            name,
            found=f"{len(positions)} images at {distinct} positions ({first.name} and {second.name} share one): "
            "several times, phases or reconstructions (4-D)",
            expected="one image for each position",
            remedy="give the files of one of them",
        )
    kind = "are the same image twice" if copies else "lie at the same position"
    raise GeometryError(
        name,
        found=f"{first.name} and {second.name} {kind} (slice {same[0]}, {positions[same[0]]:.2f} mm)",
        expected="one image for each position",
        remedy="take one of them away",
    )


def _slice_step(planes: Sequence[Plane], origins: Vector, positions: Vector, normal: Vector, name: str) -> Vector:
    """Return the vector from one slice to the next, having checked that it is the same throughout."""
    if len(planes) == 1:
        stated = planes[0].slice_spacing_mm
        if stated is None:
            logger.warning("%s: one slice without thickness: taken as 1 mm thick", name)
        return normal * (stated or 1.0)
    steps = np.diff(positions)
    _check_steps(planes, steps, name)
    if steps.max() > MAX_SPACING_MM:
        raise GeometryError(
            name,
            found=f"slices {steps.max():.0f} mm apart",
            expected=f"at most {MAX_SPACING_MM:g} mm",
            remedy="give the whole series",
        )
    step: Vector = (origins[-1] - origins[0]) / (len(planes) - 1)
    drift = origins - (origins[0] + np.arange(len(planes))[:, None] * step)
    along = np.abs(drift @ normal)
    across = np.linalg.norm(drift - np.outer(drift @ normal, normal), axis=1)
    worst = int(np.argmax(across))
    if across[worst] > 0.5 * min(planes[0].pixel_spacing_mm) + 0.1:
        raise GeometryError(
            planes[worst].name,
            found=f"shifted by {across[worst]:.2f} mm in its plane against the other slices",
            expected="slices in line",
            remedy="give the slices of one reconstruction",
        )
    if along.max() > 0.5 * float(step @ normal):
        raise _uneven(planes, int(np.argmax(along)), "positions that drift from even spacing", name)
    return step


def _check_steps(planes: Sequence[Plane], steps: Vector, name: str) -> None:
    usual = _usual_step(steps)
    wide = np.flatnonzero(steps > GAP_RATIO * usual)
    if wide.size:
        index = int(wide[0])
        more = f" (and {wide.size - 1} more gaps)" if wide.size > 1 else ""
        raise GeometryError(
            name,
            found=f"gap of {steps[index]:.2f} mm after slice {index} ({planes[index].name}){more}",
            expected=f"the usual spacing of {usual:.2f} mm",
            remedy="slices are missing: export the whole series again",
        )
    uneven = np.flatnonzero(np.abs(steps - usual) > STEP_TOLERANCE[0] * usual + STEP_TOLERANCE[1])
    if uneven.size:
        index = int(uneven[0])
        raise _uneven(planes, index, f"a step of {steps[index]:.2f} mm where {usual:.2f} mm is usual", name)


def _usual_step(steps: Vector) -> float:
    """Return the most common step within 5 %; of equally common ones the smallest, since a gap is never smaller."""
    counts = [(int(np.sum(np.abs(steps - step) <= 0.05 * step)), -float(step)) for step in np.unique(steps.round(3))]
    return float(-max(counts)[1])


def _uneven(planes: Sequence[Plane], index: int, finding: str, name: str) -> GeometryError:
    return GeometryError(
        name,
        found=f"{finding}, at slice {index} ({planes[index].name})",
        expected="evenly spaced slices",
        remedy="resample the series, or give the files of one even stack",
    )
