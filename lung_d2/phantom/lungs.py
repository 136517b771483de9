"""The lungs of a patient: where they are, their vessels and airways, and distractors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.mediastinum import hilum, vein_gate
from lung_d2.phantom.shapes import Plane, unit
from lung_d2.phantom.thorax import build_frame
from lung_d2.phantom.tubes import Tubes, grow_tree, join_tubes, tree_tubes

_STEP_MM = 4.0
_ARTERY_ENDS = 1900
_VEIN_ENDS = 1500


@dataclass(frozen=True)
class LungMap:
    """The lungs on a coarse grid, for finding places.

    Attributes:
        points: float32 ``(N, 3)``, ``(x, y, z)`` in mm, grid points inside the lungs.
        depth: float32 ``(N,)``, distance from the pleura, mm.
    """

    points: np.ndarray
    depth: np.ndarray

    def depth_at(self, where: np.ndarray) -> float:
        """Return the depth of the grid point nearest to ``(x, y, z)``; 0 outside the lungs."""
        squared = ((self.points - np.asarray(where, np.float32)) ** 2).sum(axis=1)
        nearest = int(np.argmin(squared))
        return float(self.depth[nearest]) if squared[nearest] <= _STEP_MM**2 else 0.0


@dataclass(frozen=True)
class LungContents:
    """Vessels and airways of both lungs.

    Attributes:
        vessels: Arteries and veins, outer radii.
        airways: Airways, radii of the lumen.
        walls: The same airways, outer radii.
        bronchi: Axes of airways of middle size, for dilated bronchi: float32 ``(K, 2, 3)``, start and end, mm.
    """

    vessels: Tubes
    airways: Tubes
    walls: Tubes
    bronchi: np.ndarray


def map_lungs(anatomy: Anatomy) -> LungMap:
    """Find the lungs on a grid of 4 mm."""
    reach = anatomy.cage_width + 10
    axis = np.arange(-reach, reach, _STEP_MM, dtype=np.float32)
    rows = np.arange(-anatomy.cage_depth - 12, anatomy.cage_depth + 24, _STEP_MM, dtype=np.float32)
    heights = np.arange(0.0, anatomy.lung_height + _STEP_MM, _STEP_MM, dtype=np.float32)
    inside = np.stack(
        [build_frame(anatomy, Plane(axis[None], rows[:, None], float(z), _STEP_MM)).lungs < 0 for z in heights]
    )
    depth = ndimage.distance_transform_edt(inside) * _STEP_MM
    z, y, x = np.nonzero(inside)
    points = np.stack([axis[x], rows[y], heights[z]], axis=1).astype(np.float32)
    return LungMap(points, depth[inside].astype(np.float32))


def fill_lungs(anatomy: Anatomy, lungs: LungMap, rng: np.random.Generator) -> LungContents:
    """Grow vessels and airways into both lungs.

    Args:
        anatomy: The patient's build.
        lungs: Where the lungs are.
        rng: Source of randomness.

    Returns:
        Pieces of vessels and airways.
    """
    vessels, lumens, outers, bronchi = [], [], [], []
    for side in (-1, 1):
        points = lungs.points[(lungs.points[:, 0] * side > 0) & (lungs.depth > 3.0)]
        points = points + rng.uniform(-2.5, 2.5, points.shape)
        artery = grow_tree(points, hilum(anatomy, side), (side * 0.8, 0.15, -0.5), rng, _ARTERY_ENDS)
        some = points[rng.random(len(points)) < 0.8]
        vein = grow_tree(some, vein_gate(anatomy, side), (side, -0.1, 0.0), rng, _VEIN_ENDS)
        radius = artery.radius(rng.uniform(6.4, 7.4))
        pieces, branch = tree_tubes(artery, radius)
        vessels += [pieces, tree_tubes(vein, vein.radius(rng.uniform(5.4, 6.4)))[0]]
        lumen, outer = _airways(pieces, artery.ends[branch], side)
        lumens.append(lumen)
        outers.append(outer)
        middle = (radius > 0.8) & (radius < 2.6)
        bronchi.append(np.stack([artery.start[middle], artery.end[middle]], axis=1).astype(np.float32))
    return LungContents(join_tubes(vessels), join_tubes(lumens), join_tubes(outers), np.concatenate(bronchi))


def _airways(artery: Tubes, ends: np.ndarray, side: int) -> tuple[Tubes, Tubes]:
    """Lay airways beside the arteries, until they are too small to be seen."""
    seen = artery.take(ends >= 20)
    beside = unit(np.array([side * 0.25, 0.80, 0.55], np.float32))
    lumen0, lumen1 = 0.70 * seen.radius_start, 0.70 * seen.radius_end
    wall0, wall1 = 0.30 + 0.10 * lumen0, 0.30 + 0.10 * lumen1
    start = seen.start + beside * (0.95 * (seen.radius_start + lumen0 + wall0))[:, None]
    end = seen.end + beside * (0.95 * (seen.radius_end + lumen1 + wall1))[:, None]
    return Tubes(start, end, lumen0, lumen1), Tubes(start, end, lumen0 + wall0, lumen1 + wall1)


@dataclass(frozen=True)
class Distractors:
    """Structures of one patient that are not lesions and that mislead a simple rule.

    Attributes:
        bullae: Air without a lung around it: balls, most without a visible wall.
        walls: Hair-thin walls of some bullae.
        nodules: Small solid nodules.
        bands: Fibrous bands.
        emphysema: 0..1, how much of the upper lung has dark holes.
        dependent_mm: Depth of the collapse of the lowest lung, mm (0: none).
        dependent_hu: Attenuation of that collapsed lung, HU.
        motion_mm: Smear of the heart's edge, mm.
        mosaic_hu: Patchiness of the ventilation, HU.
    """

    bullae: Tubes
    walls: Tubes
    nodules: Tubes
    bands: Tubes
    emphysema: float
    dependent_mm: float
    dependent_hu: float
    motion_mm: float
    mosaic_hu: float


def draw_distractors(strength: float, lungs: LungMap, rng: np.random.Generator) -> Distractors:
    """Draw a patient's distractors.

    Args:
        strength: 0 (none) to 1 (many).
        lungs: Where the lungs are.
        rng: Source of randomness.

    Returns:
        The distractors.
    """
    has = rng.random(5) < 0.25 + 0.75 * strength
    bullae = _balls(lungs, int(strength * rng.integers(8, 60)) * has[0], (1.8, 9.0), (2.0, 40.0), rng)
    rows = _rows(lungs, int(strength * rng.integers(4, 22)) * (rng.random() < 0.85), rng)
    walled = join_tubes([bullae.take(rng.random(len(bullae)) < 0.5), rows])
    bullae = join_tubes([bullae, rows])
    return Distractors(
        bullae=bullae,
        walls=walled.resized(add_mm=0.9),
        nodules=_balls(lungs, int(strength * rng.integers(2, 16)) * has[1], (1.3, 3.8), (2.0, 60.0), rng),
        bands=_bands(lungs, int(strength * rng.integers(1, 9)) * has[2], rng),
        emphysema=float(strength * rng.uniform(0, 1) * (rng.random() < 0.5)),
        dependent_mm=float(strength * rng.uniform(8, 27) * has[3]),
        dependent_hu=float(rng.uniform(-640, -400)),
        motion_mm=float(strength * rng.uniform(1, 9) * has[4]),
        mosaic_hu=float(strength * rng.uniform(8, 40)),
    )


def _places(lungs: LungMap, count: int, depth: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    fits = np.flatnonzero((lungs.depth >= depth[0]) & (lungs.depth <= depth[1]))
    chosen = rng.choice(fits, size=count)
    return lungs.points[chosen] + rng.uniform(-2.5, 2.5, (count, 3))


def _balls(
    lungs: LungMap, count: int, radius: tuple[float, float], depth: tuple[float, float], rng: np.random.Generator
) -> Tubes:
    center = _places(lungs, count, depth, rng)
    # Small bullae are far more common than large ones.
    return Tubes.balls(center, radius[0] + (radius[1] - radius[0]) * rng.random(count) ** 2)


def _rows(lungs: LungMap, count: int, rng: np.random.Generator) -> Tubes:
    """Draw rows of bullae that touch one another under the pleura: paraseptal emphysema."""
    under = lungs.points[(lungs.depth > 3.0) & (lungs.depth < 8.5)]
    rows = []
    for start in under[rng.choice(len(under), size=count)]:
        near = under[np.linalg.norm(under - start, axis=1) < rng.uniform(9, 20)]
        center = near[rng.choice(len(near), size=min(len(near), int(rng.integers(3, 9))), replace=False)]
        center = (center + rng.uniform(-2, 2, center.shape)).astype(np.float32)
        apart = np.linalg.norm(center[:, None] - center[None], axis=2) + 99.0 * np.eye(len(center))
        # A thin wall stays between neighbours.
        rows.append(Tubes.balls(center, np.clip(0.5 * apart.min(axis=1) - 0.45, 1.5, 6.5)))
    return join_tubes(rows)


def _bands(lungs: LungMap, count: int, rng: np.random.Generator) -> Tubes:
    bands = []
    for start in _places(lungs, count, (0.0, 12.0), rng):
        direction = unit(rng.normal(0, 1, 3) * (1.0, 1.0, 0.35))
        length, bow = rng.uniform(15, 50), rng.normal(0, 4.0)
        t = np.linspace(0, 1, 9)
        side = np.cross(direction, (0.0, 0.0, 1.0))
        path = start + t[:, None] * length * direction + (bow * np.sin(np.pi * t))[:, None] * side
        bands.append(Tubes.along(path, rng.uniform(0.4, 1.1) * (1.0 - 0.5 * t)))
    return join_tubes(bands)
