"""Body, rib cage, bones, mediastinum and lungs on one axial plane, as signed distances in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.mediastinum import Part, envelope_distance, mediastinum_parts
from lung_d2.phantom.shapes import (
    Plane,
    Vector,
    capsule,
    coverage,
    ellipsoid,
    ellipsoid_matrix,
    paint,
    smooth_max,
    smooth_min,
    smooth_step,
)

CORTEX = 620.0
MARROW = 170.0
CARTILAGE = 95.0
_FAR = 1e3


@dataclass(frozen=True)
class Frame:
    """One plane of one patient with the distances used to paint the organs; arrays are float32 ``(H, W)``.

    Attributes:
        plane: The plane as it is sampled.
        bent: The plane after the patient's own bending of all outlines.
        back_angle: Angle around the cage's middle: 0 at the back, pi at the front.
        cage: Distance to the inside of the rib cage, mm.
        body: Distance to the skin, mm.
        lungs: Distance to the pleura, mm; negative inside the lungs.
        diaphragm: Height above the diaphragm, mm; negative below it.
        mediastinum: The organs between the lungs.
    """

    plane: Plane
    bent: Plane
    back_angle: np.ndarray
    cage: np.ndarray
    body: np.ndarray
    lungs: np.ndarray
    diaphragm: np.ndarray
    mediastinum: tuple[tuple[Part, np.ndarray], ...]


def build_frame(anatomy: Anatomy, plane: Plane) -> Frame:
    """Measure a plane of a patient.

    Args:
        anatomy: The patient's build.
        plane: Where to measure.

    Returns:
        The distances on that plane.
    """
    x = plane.x + 4.0 * anatomy.warp.on_plane(plane, 62.0)
    y = plane.y + 4.0 * anatomy.warp.on_plane(plane, 62.0, shift=1.0)
    bent = Plane(x, y, plane.z, plane.pixel_mm)
    across, along = x, y - anatomy.cage_center(plane.z)
    # The spine indents the cage from behind, the sternum a little from the front.
    behind = smooth_step(0.0, 50.0, along) * np.exp(-((across / 46.0) ** 2)) * 12.0
    before = smooth_step(0.0, -50.0, along) * np.exp(-((across / 36.0) ** 2)) * 6.0
    cage = _superellipse(across, along + behind - before, anatomy.cage_axes(plane.z), anatomy.squareness)
    parts = mediastinum_parts(anatomy, bent)
    diaphragm = diaphragm_height(anatomy, bent)
    lungs = _lung_distance(anatomy, bent, cage, diaphragm, parts)
    # Skin and fat follow the bending of the inner organs only in part.
    skin = Plane(0.7 * plane.x + 0.3 * x, 0.7 * plane.y + 0.3 * y, plane.z, plane.pixel_mm)
    body = _body_distance(anatomy, skin)
    return Frame(plane, bent, np.abs(np.arctan2(across, along)), cage, body, lungs, diaphragm, parts)


def _superellipse(x: np.ndarray, y: np.ndarray, axes: tuple[float, float], power: float) -> np.ndarray:
    ratio = (np.abs(x / axes[0]) ** power + np.abs(y / axes[1]) ** power) ** (1.0 / power)
    radius = np.hypot(x, y)
    return np.where(ratio > 1e-3, radius - radius / np.maximum(ratio, 1e-3), -min(axes)).astype(np.float32)


def _body_distance(anatomy: Anatomy, bent: Plane) -> np.ndarray:
    width, depth = anatomy.body_axes(bent.z)
    y = bent.y - anatomy.cage_center(bent.z) + 0.05 * depth
    body = _superellipse(bent.x, y, (width, depth), 2.3)
    if anatomy.breast:
        level = np.exp(-(((bent.z / anatomy.lung_height - 0.38) / 0.2) ** 2))
        for side in (-1, 1):
            start = (side * 78.0, anatomy.cage_center(bent.z) - depth + 32, bent.z)
            bump = capsule(bent, start, start, 30 + level * anatomy.breast, 0)
            body = smooth_min(body, bump, 25.0)
    back = bent.y - (anatomy.cage_axes(0)[1] + 19.0 + 0.8 * anatomy.fat + 7.0 * anatomy.muscle)
    if anatomy.prone:
        front = -bent.y - (anatomy.cage_axes(0)[1] + 16.0 + 0.6 * anatomy.fat)
        body = smooth_max(body, front, 24.0)
    return smooth_max(body, back, 30.0)


def diaphragm_height(anatomy: Anatomy, bent: Plane) -> np.ndarray:
    """Return how far the plane lies above the diaphragm, float32 ``(H, W)``, mm, measured across its slope."""
    width, depth = anatomy.cage_axes(bent.z)
    height = np.full(bent.shape, -1e3, np.float32)
    for side, top in ((-1, anatomy.dome_right), (1, anatomy.dome_left)):
        across = (bent.x - side * 0.44 * width) / (0.62 * width)
        along = (bent.y + 0.20 * depth) / (1.16 * depth)
        radial = across * across + along * along
        # A dome with steep flanks: flat on top, falling into the costophrenic recess.
        height = np.maximum(height, top * (1.0 - radial * radial * 0.62 - 0.38 * radial))
    return (bent.z - height) * np.float32(0.7)


def _lung_distance(
    anatomy: Anatomy, bent: Plane, cage: np.ndarray, diaphragm: np.ndarray, parts: tuple[tuple[Part, np.ndarray], ...]
) -> np.ndarray:
    lungs = smooth_max(cage + 1.0, -diaphragm, 9.0)
    lungs = smooth_max(lungs, -_spine_column(anatomy, bent), 12.0)
    lungs = smooth_max(lungs, -envelope_distance(anatomy, bent, parts), 7.0)
    return smooth_max(lungs, _apex_distance(anatomy, bent), 16.0)


def _spine_column(anatomy: Anatomy, bent: Plane) -> np.ndarray:
    x, y = anatomy.spine(bent.z)
    body = capsule(bent, (x, y, bent.z), (x, y + 4, bent.z), 21.0, 23.0)
    processes = capsule(bent, (x, y + 26, bent.z), (x, y + 70, bent.z), 25.0, 46.0)
    return smooth_min(body, processes, 14.0)


def _apex_distance(anatomy: Anatomy, bent: Plane) -> np.ndarray:
    """Close each lung at the top with a dome."""
    distance = np.full(bent.shape, 1e3, np.float32)
    shoulder = 0.62 * anatomy.lung_height
    rise = np.clip((bent.z - shoulder) / (anatomy.lung_height - shoulder), 0.0, None)
    for side in (-1, 1):
        width = 92.0 * (1 - rise**2.6) if rise < 1 else -30.0 * (rise - 1) - 1
        depth = 96.0 * (1 - rise**2.8) if rise < 1 else width
        if width <= 1:
            continue
        center = (side * (50.0 + 4.0 * (1 - rise)), anatomy.cage_center(bent.z) + 0.12 * anatomy.cage_axes(bent.z)[1])
        dome = _superellipse(bent.x - center[0], bent.y - center[1], (width, depth), 2.1)
        distance = np.minimum(distance, dome)
    return distance


def paint_bones(image: np.ndarray, anatomy: Anatomy, frame: Frame) -> None:
    """Paint all bones onto a slice.

    Args:
        image: float32 ``(H, W)``, HU, changed in place.
        anatomy: The patient's build.
        frame: The plane.
    """
    marrow = MARROW + 45.0 * anatomy.grain.on_plane(frame.plane, 2.2, shift=4.0)
    _paint_ribs(image, anatomy, frame, marrow)
    _paint_spine(image, anatomy, frame, marrow)
    _paint_bone(image, _sternum(anatomy, frame), frame, marrow, 1.3)
    if frame.plane.z > 0.40 * anatomy.lung_height:
        _paint_bone(image, _shoulder_blades(anatomy, frame), frame, marrow, 1.5)
    if frame.plane.z > 0.86 * anatomy.lung_height:
        _paint_bone(image, _collar_bones(anatomy, frame), frame, marrow, 1.8)


def _paint_bone(image: np.ndarray, distance: np.ndarray, frame: Frame, marrow: np.ndarray, cortex_mm: float) -> None:
    soft = frame.plane.pixel_mm
    paint(image, coverage(distance, soft), CORTEX)
    paint(image, coverage(distance + cortex_mm, soft), marrow)


def _paint_ribs(image: np.ndarray, anatomy: Anatomy, frame: Frame, marrow: np.ndarray) -> None:
    """Paint the ribs, which descend from the spine to the front, so that a slice cuts several of them obliquely."""
    turn = frame.back_angle / np.pi
    upper = float(np.clip(frame.plane.z / anatomy.lung_height, 0.0, 1.0))
    drop = anatomy.rib_drop * (1.0 - 0.55 * upper)
    phase = (frame.plane.z + drop * turn * (1.15 - 0.15 * turn)) / anatomy.rib_pitch + anatomy.rib_phase
    vertical = (phase - np.round(phase)) * anatomy.rib_pitch * 0.86
    across = frame.cage - 6.2
    shape = np.hypot(across / 4.1, vertical / 7.3)
    distance = (shape - 1.0) * 4.1
    distance = np.where(turn < 0.10, _FAR, distance)
    bony = turn < 0.80
    _paint_bone(image, np.where(bony, distance, _FAR), frame, marrow, 1.1)
    if frame.plane.z < 0.85 * anatomy.lung_height:
        paint(image, coverage(np.where(bony | (turn > 0.96), _FAR, distance), frame.plane.pixel_mm), CARTILAGE)


def _paint_spine(image: np.ndarray, anatomy: Anatomy, frame: Frame, marrow: np.ndarray) -> None:
    x, y = anatomy.spine(frame.plane.z)
    z, bent, soft = frame.plane.z, frame.bent, frame.plane.pixel_mm
    level = z / anatomy.rib_pitch + anatomy.rib_phase
    offset = (level - np.round(level)) * anatomy.rib_pitch
    width = 18.5 - 1.8 * np.cos(2 * np.pi * (level - 0.5)) * 0.5
    body = ellipsoid(bent, (x, y, z), ellipsoid_matrix((width, 15.5, 10.0)))
    flat = bent.y - (y + 10.5)
    vertebra = np.maximum((body - 1.0) * 15.0, flat)
    if abs(offset) > 0.5 * anatomy.rib_pitch - 2.6:
        paint(image, coverage(vertebra, soft), 105.0)
    else:
        end_plate = abs(offset) > 0.5 * anatomy.rib_pitch - 4.2
        _paint_bone(image, vertebra, frame, marrow + (220.0 if end_plate else 20.0), 1.0)
    arch = np.abs(capsule(bent, (x, y + 20, z), (x, y + 20, z), 10.5, 10.5)) - 2.8
    arch = np.where(bent.y < y + 8, _FAR, arch)
    pedicle_gap = abs(offset) > 0.28 * anatomy.rib_pitch
    if pedicle_gap:
        arch = np.where(bent.y < y + 21, _FAR, arch)
    spinous = capsule(bent, (x, y + 31, z), (x, y + 44 + 5 * np.sin(2 * np.pi * level), z), 3.6, 2.4)
    whole = smooth_min(arch, spinous, 3.0)
    for side in (-1, 1):
        tip = (x + side * 36.0, y + 32.0, z - offset + 1.0)
        process = capsule(bent, (x + side * 11.0, y + 21.0, z - offset + 3.0), tip, 6.5, 6.0)
        whole = smooth_min(whole, process, 3.0)
    _paint_bone(image, whole, frame, marrow, 1.6)
    canal = capsule(bent, (x, y + 19.5, z), (x, y + 19.5, z), 8.0, 8.0)
    paint(image, coverage(canal, soft), 20.0)
    paint(image, coverage(canal + 3.0, soft), 38.0)


def _sternum(anatomy: Anatomy, frame: Frame) -> np.ndarray:
    z, height = frame.plane.z, anatomy.lung_height
    if not 0.24 * height < z < 0.90 * height:
        return np.full(frame.plane.shape, _FAR, np.float32)
    half_width = float(np.interp(z / height, (0.24, 0.32, 0.62, 0.72, 0.88), (6, 14, 15, 22, 26)))
    depth = float(np.interp(z / height, (0.24, 0.4, 0.9), (4.0, 5.2, 6.5)))
    y = anatomy.cage_center(z) - anatomy.cage_axes(z)[1] - 8.0
    reach = half_width - depth
    return capsule(frame.bent, (-reach, y + 1, z), (reach, y + 1, z), depth, depth)


def _shoulder_blades(anatomy: Anatomy, frame: Frame) -> np.ndarray:
    z, bent = frame.plane.z, frame.bent
    width, depth = anatomy.cage_axes(z)
    y, rise = anatomy.cage_center(z), float(np.clip((z / anatomy.lung_height - 0.40) / 0.6, 0, 1.2))
    whole = np.full(frame.plane.shape, _FAR, np.float32)
    for side in (-1, 1):
        inner = (side * (0.62 * width + 8), y + 0.80 * depth + 16 + 4 * rise, z)
        length = 22.0 + 62.0 * rise
        outer = (inner[0] + side * 0.80 * length, inner[1] - 0.60 * length, z)
        whole = np.minimum(whole, capsule(bent, inner, outer, 2.0, 3.2 + 3.5 * rise))
        if rise > 0.45:
            root: Vector = (0.45 * inner[0] + 0.55 * outer[0], 0.45 * inner[1] + 0.55 * outer[1], 0.45 * z + 0.55 * z)
            tip = (root[0] + side * 34 * rise, root[1] + 10.0, z)
            whole = smooth_min(whole, capsule(bent, root, tip, 2.2, 3.0), 4.0)
        if rise > 0.8:
            ball: Vector = (outer[0] + side * 24, outer[1] - 8, anatomy.lung_height * 1.0)
            whole = np.minimum(whole, capsule(bent, ball, ball, 23.0, 23.0))
    return whole


def _collar_bones(anatomy: Anatomy, frame: Frame) -> np.ndarray:
    z, height = frame.plane.z, anatomy.lung_height
    whole = np.full(frame.plane.shape, _FAR, np.float32)
    front = anatomy.cage_center(z) - anatomy.cage_axes(0.92 * height)[1]
    for side in (-1, 1):
        start: Vector = (side * 22.0, front - 8.0, 0.90 * height)
        middle: Vector = (side * 75.0, front - 10.0, 0.97 * height)
        end: Vector = (side * 140.0, front + 26.0, 1.03 * height)
        whole = np.minimum(whole, capsule(frame.bent, start, middle, 8.5, 6.0))
        whole = np.minimum(whole, capsule(frame.bent, middle, end, 6.0, 6.5))
    return whole
