"""Draw the lesions of a copy: opacities where a real lung has room, dilated bronchi along its vessels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from lung_d2.phantom.lesions import (
    DilatedBronchi,
    Opacity,
    build_tube,
    draw_bronchi,
    draw_opacities,
    draw_radii,
    is_apart,
)
from lung_d2.phantom.lungs import Distractors, LungMap, draw_distractors
from lung_d2.phantom.real_lung import RealLung
from lung_d2.phantom.shapes import NoiseField, draw_perpendicular, unit
from lung_d2.phantom.spec import LesionSpec, PhantomSpec
from lung_d2.phantom.tubes import Tubes, join_tubes
from lung_d2.phantom.vessels import VesselPath

HEIGHT_SHARE = 0.72
"""Lesions lie in this share of the height of the lungs, a different part in each copy."""
HAZE_HU = (-700.0, -400.0)
"""Ground of an opacity, by the usual range of ground glass of -700 to -300 HU; its middle is denser."""
_TRIES = 200
_ARTERY_MM = (0.8, 2.6)
_DILATION = 1.35
"""The outer radius of a dilated bronchus is at least this many times that of its artery (signet ring)."""
_MOST_DENSE = 0.2
"""Share of a bronchus that may replace vessels."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """The lesions of one copy.

    Attributes:
        opacities: Ground-glass opacities; instance ``i + 1`` is ``opacities[i]``.
        bronchi: Clusters of dilated bronchi; likewise.
        distractors: Structures that are not lesions.
        grain: Texture and ragged edges of the opacities.
    """

    opacities: tuple[Opacity, ...]
    bronchi: tuple[DilatedBronchi, ...]
    distractors: Distractors
    grain: NoiseField


def draw_insertion(spec: PhantomSpec, number: int, lung: RealLung) -> Drawing:
    """Draw the lesions of one copy.

    Args:
        spec: Number, size and evidence of lesions, ``overlap_share``, ``distractors`` and ``seed`` count.
        number: Number of the copy; with the seed it decides everything.
        lung: The CT that receives them.

    Returns:
        The drawing: the same for the same arguments.
    """
    rng = [np.random.default_rng([spec.seed, number, purpose]) for purpose in range(5)]
    height = _draw_height(lung.axes[2], rng[0])
    opacities = [_shade(one, rng[1]) for one in draw_opacities(spec, lung.lungs, height, rng[1])]
    bronchi = _draw_bronchi(spec, lung, opacities, height, rng[2])
    distractors = draw_distractors(spec.distractors, lung.lungs, rng[3])
    return Drawing(tuple(opacities), tuple(bronchi), distractors, NoiseField.draw(rng[4]))


def _draw_height(z: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    low, high = float(z.min()), float(z.max())
    start = low + rng.uniform(0.0, 1.0 - HEIGHT_SHARE) * (high - low)
    return start, start + HEIGHT_SHARE * (high - low)


def _shade(opacity: Opacity, rng: np.random.Generator) -> Opacity:
    """Give an opacity a density and a ragged edge, because no real one is a ball."""
    ragged = max(opacity.raggedness, float(rng.uniform(0.10, 0.22)))
    return replace(opacity, hu=float(rng.uniform(*HAZE_HU)), raggedness=ragged, analytic_ml=None)


def _draw_bronchi(
    spec: PhantomSpec, lung: RealLung, opacities: list[Opacity], height: tuple[float, float], rng: np.random.Generator
) -> list[DilatedBronchi]:
    """Place clusters along vessels, or radially where the series shows none."""
    wanted = spec.bronchiectasis
    points = lung.vessels.points
    starts = points[(points[:, 2] > height[0]) & (points[:, 2] < height[1])]
    if len(starts) < _TRIES:
        axes = _radial_axes(lung.lungs, rng)
        return draw_bronchi(spec, lung.lungs, axes, opacities, height, rng)
    found: list[DilatedBronchi] = []
    for _ in range(int(rng.integers(wanted.count[0], wanted.count[1] + 1))):
        inside = _within(starts, opacities) if rng.random() < spec.overlap_share else starts
        for attempt in range(_TRIES):
            source = inside if len(inside) and attempt < _TRIES // 2 else starts
            path = lung.vessels.trace(source[int(rng.integers(len(source)))], rng.uniform(16, 40))
            cluster = _draw_cluster(wanted, lung, path, rng) if path else None
            if cluster and all(is_apart(cluster, other, 3.0) for other in found):
                found.append(cluster)
                break
    return found


def _within(points: np.ndarray, opacities: list[Opacity]) -> np.ndarray:
    """Return the points inside opacities: bronchi there are pulled open (traction bronchiectasis)."""
    near = [np.linalg.norm((points - one.center) @ one.matrix.T, axis=1) < 1.0 for one in opacities]
    return points[np.any(near, axis=0)] if near else points[:0]


def _radial_axes(lungs: LungMap, rng: np.random.Generator, count: int = 400) -> np.ndarray:
    """Return pieces of lines from the middle of the chest outwards, ``(count, 2, 3)``, mm."""
    start = lungs.points[rng.integers(len(lungs.points), size=count)]
    way = start - lungs.points.mean(axis=0)
    return np.stack([start, start + 8.0 * way / np.linalg.norm(way, axis=1, keepdims=True)], axis=1)


def _draw_cluster(
    wanted: LesionSpec, lung: RealLung, vessel: VesselPath, rng: np.random.Generator
) -> DilatedBronchi | None:
    """Lay a bronchus beside a vessel and up to two more against it; return None where there is no room."""
    if not _ARTERY_MM[0] <= vessel.radius_mm <= _ARTERY_MM[1]:
        return None
    kind = str(rng.choice(["cylindric", "varicose", "cystic"], p=[0.45, 0.30, 0.25]))
    size = max(rng.uniform(wanted.size_mm.low, wanted.size_mm.high), _DILATION * vessel.radius_mm)
    evidence = rng.uniform(wanted.evidence.low, wanted.evidence.high)
    paths = _draw_paths(vessel, size, kind, rng)
    if any(lung.lungs.depth_at(point) < 1.3 * size + 2.0 for path, _ in paths for point in path[::3]):
        return None
    if _dense_share(lung, np.concatenate([path for path, _ in paths])) > _MOST_DENSE:
        return None
    outer = join_tubes([build_tube(path, radius, kind) for path, radius in paths])
    return DilatedBronchi(
        kind=kind,
        outer=outer,
        lumen=join_tubes([_lumen(path, radius, kind, evidence, rng) for path, radius in paths]),
        artery=join_tubes([]),
        wall_hu=float(-260 + 240 * evidence + rng.uniform(-40, 40)),
    )


def _lumen(path: np.ndarray, radius: np.ndarray, kind: str, evidence: float, rng: np.random.Generator) -> Tubes:
    """Leave a wall whose thickness varies between bronchi and along each."""
    wall = (0.6 + 0.7 * evidence + 0.07 * float(radius.mean())) * rng.uniform(0.8, 1.25)
    if kind == "cystic":  # some of its points are left out, depending on their radii
        return build_tube(path, radius, kind).resized(add_mm=-wall, least_mm=0.3)
    thickness = wall * (1.0 + 0.22 * ndimage.gaussian_filter1d(rng.normal(0, 1.6, len(path)), 1.0))
    return build_tube(path, np.maximum(radius - thickness, 0.3), kind)


def _draw_paths(
    vessel: VesselPath, size: float, kind: str, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    along = unit(vessel.points[-1] - vessel.points[0])
    beside = draw_perpendicular(along, rng)
    other = np.cross(along, beside)
    first = vessel.points + beside * (vessel.radius_mm + 0.97 * size)
    paths = [(first, _radii(first, size, kind, rng))]
    touch = 0.86 if kind == "cystic" else 0.94  # cysts press into one another; tubes share a wall
    for _ in range(int(rng.integers(0, 3))):
        scale, turn = rng.uniform(0.6, 0.95), rng.uniform(-1.2, 1.2)
        # Each lies beside the one before, never over the vessel.
        before, radius = paths[-1]
        part = slice(int(rng.integers(0, 3)), len(before) - int(rng.integers(0, 3)))
        aside = np.cos(turn) * beside + np.sin(turn) * other
        path = before[part] + aside * touch * (float(np.median(radius)) + scale * size)
        paths.append((path, _radii(path, scale * size, kind, rng)))
    return paths


def _radii(path: np.ndarray, size: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    steps = np.linspace(0.0, 1.0, len(path))
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    radius = draw_radii(steps, length, size, kind, rng)
    if kind == "cystic":
        return radius
    uneven = 1.0 + 0.07 * ndimage.gaussian_filter1d(rng.normal(0, 1.8, len(path)), 1.2)
    # It opens from a bronchus of normal width.
    return radius * uneven * np.clip(0.6 + 3.0 * steps, 0.6, 1.0)


def _dense_share(lung: RealLung, points: np.ndarray, dense_hu: float = -500.0) -> float:
    """Return the share of points that lie in vessels or outside the lung field."""
    index = tuple(
        np.clip(np.rint((points[:, axis] - values[0]) / (values[1] - values[0])).astype(int), 0, len(values) - 1)
        for axis, values in enumerate(lung.axes)
    )[::-1]
    return float(np.mean((lung.volume.hu[index] > dense_hu) | (lung.labels[index] == 0)))
