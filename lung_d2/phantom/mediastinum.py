"""Heart, great vessels, oesophagus, trachea and main bronchi."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.shapes import Plane, Vector, capsule, ellipsoid, ellipsoid_matrix, smooth_min


@dataclass(frozen=True)
class Part:
    """An organ between the lungs.

    Attributes:
        name: What it is.
        hu: Attenuation without contrast medium, HU.
        margin: Fat around it before the lung begins, mm.
        wall: Thickness of a wall around a lumen that ``hu`` describes, mm (0: solid).
    """

    name: str
    hu: float
    margin: float = 3.0
    wall: float = 0.0


BLOOD_HU = 42.0
_HEART = Part("heart", 44.0, 4.0)
_VESSEL = Part("vessel", BLOOD_HU, 3.0)
_AIRWAY = Part("airway", -990.0, 1.0, 1.6)
_OESOPHAGUS = Part("oesophagus", 34.0, 3.0)


@dataclass(frozen=True)
class Rod:
    """A straight piece of a tube, in mm."""

    part: Part
    start: Vector
    end: Vector
    radius_start: float
    radius_end: float


def hilum(anatomy: Anatomy, side: int) -> Vector:
    """Return the point where artery and bronchus enter a lung; ``side`` is -1 (right) or 1 (left)."""
    _, spine_y = anatomy.spine(anatomy.carina)
    if side < 0:
        return -44.0 * anatomy.heart, spine_y - 36.0, anatomy.carina - 30.0
    return 48.0 * anatomy.heart, spine_y - 30.0, anatomy.carina - 26.0


def vein_gate(anatomy: Anatomy, side: int) -> Vector:
    """Return the point where the pulmonary veins of a lung meet the left atrium."""
    _, spine_y = anatomy.spine(anatomy.carina)
    return side * 42.0 * anatomy.heart, spine_y - 48.0, anatomy.carina - 58.0


def airway_rods(anatomy: Anatomy) -> tuple[Rod, ...]:
    """Return trachea and main bronchi."""
    x, y = anatomy.spine(anatomy.carina)
    c = anatomy.carina
    right, left = hilum(anatomy, -1), hilum(anatomy, 1)
    _, top_y = anatomy.spine(c + 150)
    fork = (x - 1.0, y - 36.0, c)
    return (
        Rod(_AIRWAY, (x - 1.0, top_y - 32.0, c + 150), fork, 8.2, 8.6),
        Rod(_AIRWAY, fork, (right[0] + 6, right[1] + 4, right[2] + 6), 7.2, 5.8),
        Rod(_AIRWAY, fork, (left[0] - 6, left[1] + 3, left[2] - 2), 6.6, 5.2),
    )


def _great_vessels(anatomy: Anatomy) -> Iterator[Rod]:
    x, y = anatomy.spine(anatomy.carina)
    _, low = anatomy.spine(0)
    _, top = anatomy.spine(anatomy.carina + 120)
    c, a, s = anatomy.carina, anatomy.aorta, anatomy.heart
    right, left = hilum(anatomy, -1), hilum(anatomy, 1)
    arch = ((x + 24, y - 10, c + 8), (x + 16, y - 34, c + 22), (x - 8, y - 62, c + 16), (x - 17, y - 76, c - 8))
    yield Rod(_VESSEL, (x + 14, low - 14, -90), (x + 24, y - 10, c + 8), a * 0.9, a)
    for start, end in pairwise(arch):
        yield Rod(_VESSEL, start, end, a, a * 1.03)
    yield Rod(_VESSEL, arch[-1], (x - 6, y - 72, c - 55), a * 1.05, a * 1.15)
    yield Rod(_VESSEL, (x - 28 * s, y - 60, c + 60), (x - 27 * s, y - 66, c - 48), 7.5, 9.5)
    yield Rod(_VESSEL, (x + 16, y - 92, c - 52), (x + 20, y - 70, c - 18), 13.5, 12.0)
    yield Rod(_VESSEL, (x + 18, y - 68, c - 22), (right[0] + 4, right[1] - 9, right[2]), 11.5, 8.0)
    yield Rod(_VESSEL, (x + 20, y - 68, c - 18), (left[0] - 2, left[1] - 7, left[2] + 6), 11.0, 8.0)
    yield Rod(_OESOPHAGUS, (x + 4, y - 22, c + 150), (x + 8, low - 30, -40), 6.5, 7.5)
    for dx, dy, radius in ((-16, -52, 5.8), (2, -48, 4.2), (17, -40, 5.0)):
        yield Rod(_VESSEL, (x + dx, y + dy, c + 18), (x + 1.5 * dx, top + dy + 8, c + 120), radius, radius * 0.9)
    for side in (-1, 1):
        yield Rod(_VESSEL, (x + 8 * side, y - 48, c - 60), vein_gate(anatomy, side), 12.0, 6.5)


def _chambers(anatomy: Anatomy) -> Iterator[tuple[Vector, Vector, Vector]]:
    x, y = anatomy.spine(anatomy.carina)
    c, s = anatomy.carina, anatomy.heart
    yield (x + 26 * s, y - 80, c - 92), (59 * s, 44 * s, 47 * s), (0.75, -0.35, -0.55)
    yield (x - 24 * s, y - 74, c - 84), (36 * s, 34 * s, 46 * s), (0.2, 0.1, -1.0)
    yield (x + 2, y - 50, c - 64), (38 * s, 24 * s, 27 * s), (1.0, 0.0, 0.0)


def mediastinum_parts(anatomy: Anatomy, bent: Plane) -> tuple[tuple[Part, np.ndarray], ...]:
    """Return the organs that a plane meets, each with its distance, float32 ``(H, W)``, mm."""
    found: list[tuple[Part, np.ndarray]] = []
    heart: np.ndarray | None = None
    for center, semi_axes, axis in _chambers(anatomy):
        if abs(bent.z - center[2]) < max(semi_axes) + 14:
            ratio = ellipsoid(bent, center, ellipsoid_matrix(semi_axes, axis))
            distance = (ratio - 1.0) * np.float32(min(semi_axes))
            heart = distance if heart is None else smooth_min(heart, distance, 16.0)
    if heart is not None:
        found.append((_HEART, heart))
    for rod in (*_great_vessels(anatomy), *airway_rods(anatomy)):
        reach = max(rod.radius_start, rod.radius_end) + 14
        if min(rod.start[2], rod.end[2]) - reach < bent.z < max(rod.start[2], rod.end[2]) + reach:
            distance = capsule(bent, rod.start, rod.end, rod.radius_start, rod.radius_end)
            found.append((rod.part, distance))
    return tuple(found)


def envelope_distance(anatomy: Anatomy, bent: Plane, parts: tuple[tuple[Part, np.ndarray], ...]) -> np.ndarray:
    """Return the distance to the outside of the mediastinum with its fat, float32 ``(H, W)``, mm."""
    x, y = anatomy.spine(bent.z)
    front = anatomy.cage_center(bent.z) - anatomy.cage_axes(bent.z)[1]
    lean = 8.0 * anatomy.heart * np.exp(-(((bent.z - anatomy.carina + 80) / 50) ** 2))
    above = float(np.clip((bent.z - anatomy.carina) / 40.0, 0.0, 1.0))
    # The pleurae nearly touch behind the sternum and separate again above the arch.
    whole = capsule(bent, (x, y - 14, bent.z), (x + lean, front - 8, bent.z), 6.0 + 7 * above, 2.5 + 8 * above)
    sternum = capsule(bent, (x - 8, front - 6, bent.z), (x + 8 + lean, front - 6, bent.z), 9.0, 9.0)
    whole = smooth_min(whole, sternum, 14.0)
    for part, distance in parts:
        whole = smooth_min(whole, distance - part.margin, 8.0)
    return whole
