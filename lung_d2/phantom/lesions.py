"""Shapes of ground-glass opacities and dilated bronchi, from which the truth is derived."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lung_d2.phantom.lungs import LungMap
from lung_d2.phantom.shapes import (
    NoiseField,
    Plane,
    Vector,
    draw_perpendicular,
    ellipsoid,
    ellipsoid_matrix,
    smooth_step,
    unit,
)
from lung_d2.phantom.spec import LesionSpec, PhantomSpec
from lung_d2.phantom.tubes import Tubes, join_tubes

_TRIES = 200


@dataclass(frozen=True)
class Opacity:
    """A hazy patch; its mask ends where the haze has fallen to half.

    Attributes:
        kind: ``round``, ``patch``, ``crescent`` (along the pleura) or ``large``.
        center: ``(x, y, z)``, mm.
        matrix: ``(3, 3)``, unit axes over semi-axes, see :func:`lung_d2.phantom.shapes.ellipsoid`.
        reach_mm: No point of it lies farther from the centre, mm.
        raggedness: How far noise moves the edge, as a share of the radius (0: exactly an ellipsoid).
        shift: Which part of the patient's noise shapes it.
        pleural_mm: Depth under the pleura to which a crescent reaches (0: not a crescent).
        hu: Attenuation of its ground, between the vessels.
        vagueness: Half the width of its edge, as a share of the radius.
        analytic_ml: Exact volume where a formula gives it.
    """

    kind: str
    center: Vector
    matrix: np.ndarray
    reach_mm: float
    raggedness: float
    shift: float
    pleural_mm: float
    hu: float
    vagueness: float
    analytic_ml: float | None


@dataclass(frozen=True)
class DilatedBronchi:
    """A cluster of dilated bronchi that touch one another: one lesion.

    The mask covers lumen and wall of all of them, but neither the artery beside them nor the lung between them.

    Attributes:
        kind: ``cylindric``, ``varicose`` or ``cystic``.
        outer: Outer radii.
        lumen: Radii of the lumen.
        artery: The artery beside the first bronchus.
        wall_hu: Attenuation of the wall.
    """

    kind: str
    outer: Tubes
    lumen: Tubes
    artery: Tubes
    wall_hu: float

    @cached_property
    def center(self) -> Vector:
        """The mean of its points, ``(x, y, z)``, mm."""
        return _vector(np.concatenate([self.outer.start, self.outer.end]).mean(axis=0))

    @cached_property
    def reach_mm(self) -> float:
        """No point of it lies farther from the centre, mm."""
        points = np.concatenate([self.outer.start, self.outer.end])
        return float(np.linalg.norm(points - points.mean(axis=0), axis=1).max() + self.outer.radius_start.max())


def radius_on_plane(opacity: Opacity, grain: NoiseField, plane: Plane, pleura: np.ndarray) -> np.ndarray:
    """Return the normalised radius of an opacity on a plane: 1 at its edge.

    Args:
        opacity: The opacity.
        grain: The patient's field of fine texture.
        plane: The plane.
        pleura: Distance to the pleura, mm, negative inside the lungs, float32 ``(H, W)``.

    Returns:
        float32 ``(H, W)``.
    """
    radius = ellipsoid(plane, opacity.center, opacity.matrix)
    if opacity.raggedness:
        scale = max(0.55 * opacity.reach_mm, 7.0)
        radius = radius + opacity.raggedness * grain.on_plane(plane, scale, opacity.shift)
        radius = radius + 0.55 * opacity.raggedness * grain.on_plane(plane, 0.4 * scale, opacity.shift + 1)
    if opacity.pleural_mm:
        depth = -pleura / opacity.pleural_mm
        wave = opacity.raggedness * grain.on_plane(plane, 9.0, opacity.shift + 2)
        radius = np.maximum(radius, depth + wave)
    return radius


def haze(opacity: Opacity, radius: np.ndarray) -> np.ndarray:
    """Return the share of the lung that an opacity replaces: 1 within, 0.5 at the edge, 0 outside."""
    return smooth_step(1.0 + opacity.vagueness, 1.0 - opacity.vagueness, radius)


def draw_opacities(spec: PhantomSpec, lungs: LungMap, height: Vector2, rng: np.random.Generator) -> list[Opacity]:
    """Place the opacities of a patient.

    Args:
        spec: The cohort.
        lungs: Where the lungs are.
        height: Lowest and highest slice, mm.
        rng: Source of randomness.

    Returns:
        Opacities that do not touch one another.
    """
    wanted = spec.ground_glass_opacity
    found: list[Opacity] = []
    for _ in range(int(rng.integers(wanted.count[0], wanted.count[1] + 1))):
        for _ in range(_TRIES):
            opacity = _draw_opacity(wanted, lungs, height, rng)
            if opacity and all(is_apart(opacity, other, 4.0) for other in found):
                found.append(opacity)
                break
    return found


Vector2 = tuple[float, float]


def is_apart(a: Opacity | DilatedBronchi, b: Opacity | DilatedBronchi, gap_mm: float) -> bool:
    """Return whether two lesions are at least ``gap_mm`` apart."""
    return float(np.linalg.norm(np.subtract(a.center, b.center))) > a.reach_mm + b.reach_mm + gap_mm


def _draw_opacity(wanted: LesionSpec, lungs: LungMap, height: Vector2, rng: np.random.Generator) -> Opacity | None:
    kind = str(rng.choice(["round", "patch", "crescent", "large"], p=[0.22, 0.42, 0.20, 0.16]))
    size = rng.uniform(wanted.size_mm.low, wanted.size_mm.high)
    stretch = {"round": (1.0, 0.8), "patch": (1.15, 0.75), "crescent": (1.5, 1.1), "large": (1.6, 0.9)}[kind]
    middle, last = rng.uniform(min(stretch[1], 0.8), stretch[1] + 0.1), rng.uniform(stretch[1], stretch[0])
    semi = (size * stretch[0], size * middle, size * last)
    reach = max(semi) * (1.0 if kind == "round" else 1.25)
    depth = {"round": (max(semi) + 2.5, 90), "patch": (4, 0.9 * size), "crescent": (1, 6), "large": (0.4 * size, 60)}
    center = _draw_place(lungs, depth[kind], (height[0] + 0.5 * size, height[1] - 0.5 * size), rng)
    if center is None:
        return None
    evidence = rng.uniform(wanted.evidence.low, wanted.evidence.high)
    round_ml = 4e-3 / 3 * np.pi * float(np.prod(semi)) if kind == "round" else None
    return Opacity(
        kind=kind,
        center=center,
        matrix=ellipsoid_matrix(semi, tuple(rng.normal(0, 1, 3))),
        reach_mm=reach,
        raggedness=0.0 if kind == "round" else float(rng.uniform(0.10, 0.20)),
        shift=float(rng.uniform(0, 30)),
        pleural_mm=float(rng.uniform(0.75, 1.1) * max(size, 10)) if kind == "crescent" else 0.0,
        hu=-655.0 + 165.0 * evidence + float(rng.uniform(-20, 30)),
        vagueness=float(0.34 - 0.20 * evidence),
        analytic_ml=round_ml,
    )


def _draw_place(lungs: LungMap, depth: Vector2, height: Vector2, rng: np.random.Generator) -> Vector | None:
    z = lungs.points[:, 2]
    fits = np.flatnonzero((lungs.depth >= depth[0]) & (lungs.depth <= depth[1]) & (z > height[0]) & (z < height[1]))
    if not fits.size:
        return None
    # Towards the back and the base, where both diseases are most common.
    weight = 1.0 + 0.008 * (lungs.points[fits, 1] - lungs.points[:, 1].min())
    chosen = rng.choice(fits, p=weight / weight.sum())
    return _vector(lungs.points[chosen] + rng.uniform(-2, 2, 3))


def _vector(point: np.ndarray) -> Vector:
    x, y, z = (float(value) for value in point)
    return x, y, z


def draw_bronchi(
    spec: PhantomSpec,
    lungs: LungMap,
    bronchi: np.ndarray,
    opacities: list[Opacity],
    height: Vector2,
    rng: np.random.Generator,
) -> list[DilatedBronchi]:
    """Place the clusters of dilated bronchi of a patient.

    Args:
        spec: The cohort.
        lungs: Where the lungs are.
        bronchi: Axes of airways, float32 ``(K, 2, 3)``, mm.
        opacities: Opacities in which some of the clusters lie.
        height: Lowest and highest slice, mm.
        rng: Source of randomness.

    Returns:
        Clusters that do not touch one another.
    """
    wanted = spec.bronchiectasis
    found: list[DilatedBronchi] = []
    for _ in range(int(rng.integers(wanted.count[0], wanted.count[1] + 1))):
        inside = bool(opacities) and rng.random() < spec.overlap_share
        for attempt in range(_TRIES):
            axis = _draw_axis(bronchi, opacities if inside and attempt < 60 else [], height, rng)
            cluster = _draw_cluster(wanted, lungs, axis, rng) if axis is not None else None
            if cluster and all(is_apart(cluster, other, 3.0) for other in found):
                found.append(cluster)
                break
    return found


def _draw_axis(
    bronchi: np.ndarray, opacities: list[Opacity], height: Vector2, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    middle = bronchi.mean(axis=1)
    fits = (middle[:, 2] > height[0] + 4) & (middle[:, 2] < height[1] - 4)
    if opacities:
        opacity = opacities[int(rng.integers(len(opacities)))]
        fits &= np.linalg.norm(middle - np.array(opacity.center), axis=1) < max(opacity.reach_mm, 10.0)
    if not fits.any():
        return None
    start, end = bronchi[rng.choice(np.flatnonzero(fits))]
    return start, unit(unit(end - start) + rng.normal(0, 0.25, 3))


def _draw_cluster(
    wanted: LesionSpec, lungs: LungMap, axis: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> DilatedBronchi | None:
    kind = str(rng.choice(["cylindric", "varicose", "cystic"], p=[0.35, 0.30, 0.35]))
    size = rng.uniform(wanted.size_mm.low, wanted.size_mm.high)
    evidence = rng.uniform(wanted.evidence.low, wanted.evidence.high)
    start, direction = axis
    paths = _draw_paths(start, direction, size, kind, rng)
    depth = [lungs.depth_at(point) for path, _ in paths for point in path[:: len(path) - 1]]
    if min(depth) < 1.3 * size + 2.0:
        return None
    wall = 0.75 + 0.85 * evidence + 0.08 * size
    outer = join_tubes([_build_tube(path, radius, kind) for path, radius in paths])
    first, _ = paths[0]
    beside = draw_perpendicular(direction, rng)
    artery_radius = np.full(len(first), 0.42 * size) * np.linspace(1.05, 0.7, len(first))
    away = size * (1.15 if kind == "cystic" else 1.0) + 0.42 * size - 0.3
    return DilatedBronchi(
        kind=kind,
        outer=outer,
        lumen=outer.resized(add_mm=-wall, least_mm=0.3),
        artery=_build_tube(first + beside * away, artery_radius, "cylindric"),
        wall_hu=float(-160 + 190 * evidence + rng.uniform(-20, 20)),
    )


def _draw_paths(
    start: np.ndarray, direction: np.ndarray, size: float, kind: str, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lay a first bronchus along the axis and one to three more against it."""
    first_side = draw_perpendicular(direction, rng)
    other_side = np.cross(direction, first_side)
    count = int(rng.integers(2, 5))
    turn = rng.uniform(0, 2 * np.pi)
    # Cysts press into one another; tubes share a wall.
    touch = 0.86 if kind == "cystic" else 0.94
    paths = []
    for index in range(count):
        scale = 1.0 if index == 0 else rng.uniform(0.6, 1.0)
        length = size * rng.uniform(3.2, 6.0) * scale
        steps = np.linspace(0, 1, max(5, int(length / 2.5)))
        turn += rng.uniform(1.3, 2.4)
        aside = np.cos(turn) * first_side + np.sin(turn) * other_side
        offset = 0.0 if index == 0 else touch * size * (1.0 + scale)
        slide = 0.0 if index == 0 else rng.uniform(0, 0.5) * size
        sway = 0.35 * size * np.sin(np.pi * steps) * rng.uniform(-1, 1)
        path = start + (slide + steps[:, None] * length) * direction + (offset + sway[:, None] * (index == 0)) * aside
        paths.append((path, _draw_radii(steps, length, size * scale, kind, rng)))
    return paths


def _draw_radii(steps: np.ndarray, length: float, size: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the outer radii, mm, at ``steps`` (0..1) of the length."""
    if kind == "cylindric":
        return size * (1.06 - 0.12 * steps)
    if kind == "varicose":
        return size * (1.0 + 0.20 * np.sin(2 * np.pi * steps * length / rng.uniform(8, 11) + rng.uniform(0, 6)))
    return size * rng.uniform(0.85, 1.35, steps.shape)


def _build_tube(path: np.ndarray, radius: np.ndarray, kind: str) -> Tubes:
    """Build the pieces of a bronchus along a path ``(N, 3)`` with radii ``(N,)``, mm."""
    if kind == "cystic":
        # Cysts are balls along the path, close enough to touch.
        keep = [0]
        for index in range(1, len(path)):
            gap = float(np.linalg.norm(path[index] - path[keep[-1]]))
            if gap > 0.88 * (radius[index] + radius[keep[-1]]):
                keep.append(index)
        return Tubes.balls(path[keep], radius[keep])
    return Tubes.along(path, radius)
