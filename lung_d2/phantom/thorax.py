"""Body, rib cage, mediastinum and lungs on one axial plane, as signed distances in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.mediastinum import Part, envelope_distance, mediastinum_parts
from lung_d2.phantom.shapes import Plane, capsule, smooth_max, smooth_min, smooth_step


@dataclass(frozen=True)
class Frame:
    """One plane of one patient with the distances that the organs are painted by; arrays are float32 ``(H, W)``.

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
    # Skin and fat follow the bending of what lies inside only in part.
    skin = Plane(0.7 * plane.x + 0.3 * x, 0.7 * plane.y + 0.3 * y, plane.z, plane.pixel_mm)
    body = _body_distance(anatomy, skin)
    return Frame(plane, bent, np.abs(np.arctan2(across, along)), cage, body, lungs, diaphragm, parts)


def lung_distance(anatomy: Anatomy, plane: Plane) -> np.ndarray:
    """Return the distance to the pleura alone, float32 ``(H, W)``, mm: negative inside the lungs."""
    return build_frame(anatomy, plane).lungs


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
    """Close the lungs above in one dome for each side."""
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
