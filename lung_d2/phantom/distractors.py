"""Things in a lung that are no lesion of ours and that defeat a simple rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.lungs import LungMap
from lung_d2.phantom.tubes import Tubes, join_tubes


@dataclass(frozen=True)
class Distractors:
    """What one patient has of them.

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
    if not count:
        return join_tubes([])
    center = _places(lungs, count, depth, rng).astype(np.float32)
    # Small ones are far more common than large ones.
    size = (radius[0] + (radius[1] - radius[0]) * rng.random(count) ** 2).astype(np.float32)
    return Tubes(center, center, size, size)


def _rows(lungs: LungMap, count: int, rng: np.random.Generator) -> Tubes:
    """Rows of bullae that touch one another under the pleura: paraseptal emphysema."""
    under = lungs.points[(lungs.depth > 3.0) & (lungs.depth < 8.5)]
    rows = []
    for start in under[rng.choice(len(under), size=count)]:
        near = under[np.linalg.norm(under - start, axis=1) < rng.uniform(9, 20)]
        center = near[rng.choice(len(near), size=min(len(near), int(rng.integers(3, 9))), replace=False)]
        center = (center + rng.uniform(-2, 2, center.shape)).astype(np.float32)
        apart = np.linalg.norm(center[:, None] - center[None], axis=2) + 99.0 * np.eye(len(center))
        # A thin wall stays between neighbours.
        size = np.clip(0.5 * apart.min(axis=1) - 0.45, 1.5, 6.5).astype(np.float32)
        rows.append(Tubes(center, center, size, size))
    return join_tubes(rows)


def _bands(lungs: LungMap, count: int, rng: np.random.Generator) -> Tubes:
    bands = []
    for start in _places(lungs, count, (0.0, 12.0), rng):
        direction = rng.normal(0, 1, 3) * (1.0, 1.0, 0.35)
        direction /= np.linalg.norm(direction)
        length, bow = rng.uniform(15, 50), rng.normal(0, 4.0)
        t = np.linspace(0, 1, 9)
        side = np.cross(direction, (0.0, 0.0, 1.0))
        path = start + t[:, None] * length * direction + (bow * np.sin(np.pi * t))[:, None] * side
        radius = rng.uniform(0.4, 1.1) * (1.0 - 0.5 * t)
        bands.append(Tubes(*(a.astype(np.float32) for a in (path[:-1], path[1:], radius[:-1], radius[1:]))))
    return join_tubes(bands)
