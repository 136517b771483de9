"""Ribs, spine, sternum, shoulder blades and collar bones."""

from __future__ import annotations

import numpy as np

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.shapes import Vector, capsule, coverage, ellipsoid, ellipsoid_matrix, paint, smooth_min
from lung_d2.phantom.thorax import Frame

CORTEX = 620.0
MARROW = 170.0
CARTILAGE = 95.0
_FAR = 1e3


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
    """Ribs descend from the spine to the front, so that a slice cuts several of them, each obliquely."""
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
