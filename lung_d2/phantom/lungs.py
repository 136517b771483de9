"""What is inside the two lungs of a patient: where they are, their vessels and their airways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.mediastinum import hilum, vein_gate
from lung_d2.phantom.shapes import Plane
from lung_d2.phantom.thorax import lung_distance
from lung_d2.phantom.trees import Tree, grow_tree, tree_tubes
from lung_d2.phantom.tubes import Tubes, join_tubes

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
        [lung_distance(anatomy, Plane(axis[None], rows[:, None], float(z), _STEP_MM)) < 0 for z in heights]
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
        if len(points) < 50:
            continue
        gate = np.array(hilum(anatomy, side))
        artery = grow_tree(points, gate, np.array([side * 0.8, 0.15, -0.5]), rng, max(2, len(points) // _ARTERY_ENDS))
        gate_vein = np.array(vein_gate(anatomy, side))
        some = points[rng.random(len(points)) < 0.8]
        vein = grow_tree(some, gate_vein, np.array([side, -0.1, 0.0]), rng, max(2, len(some) // _VEIN_ENDS))
        radius = artery.radius(rng.uniform(6.4, 7.4))
        pieces, branch = tree_tubes(artery, radius)
        vessels += [pieces, tree_tubes(vein, vein.radius(rng.uniform(5.4, 6.4)))[0]]
        lumen, outer = _airways(pieces, artery.ends[branch], side)
        lumens.append(lumen)
        outers.append(outer)
        bronchi.append(_middle_bronchi(artery, radius))
    return LungContents(join_tubes(vessels), join_tubes(lumens), join_tubes(outers), np.concatenate(bronchi))


def _airways(artery: Tubes, ends: np.ndarray, side: int) -> tuple[Tubes, Tubes]:
    """Lay airways beside the arteries, until they are too small to be seen."""
    seen = artery.take(ends >= 20)
    beside = np.array([side * 0.25, 0.80, 0.55], np.float32)
    beside /= np.linalg.norm(beside)
    lumen0, lumen1 = 0.70 * seen.radius_start, 0.70 * seen.radius_end
    wall0, wall1 = 0.30 + 0.10 * lumen0, 0.30 + 0.10 * lumen1
    start = seen.start + beside * (0.95 * (seen.radius_start + lumen0 + wall0))[:, None]
    end = seen.end + beside * (0.95 * (seen.radius_end + lumen1 + wall1))[:, None]
    return Tubes(start, end, lumen0, lumen1), Tubes(start, end, lumen0 + wall0, lumen1 + wall1)


def _middle_bronchi(artery: Tree, radius: np.ndarray) -> np.ndarray:
    middle = (radius > 0.8) & (radius < 2.6)
    return np.stack([artery.start[middle], artery.end[middle]], axis=1).astype(np.float32)
