"""Branching arteries, veins and airways that fill a lung.

The growth follows Tawhai, Pullan and Hunter (2000): the points of the lung are split at the centre of mass, and each
half is fed by a branch that runs part of the way to its own centre. Radii follow Murray's law over the ends fed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.tubes import Tubes

_MURRAY = 2.6


@dataclass(frozen=True)
class Tree:
    """A tree of branches.

    Attributes:
        start: float ``(B, 3)``, mm.
        end: float ``(B, 3)``, mm.
        heading: float ``(B, 3)``, unit direction in which a branch sets out.
        parent: int ``(B,)``; -1 for the root.
        ends: int ``(B,)``, terminal branches fed.
    """

    start: np.ndarray
    end: np.ndarray
    heading: np.ndarray
    parent: np.ndarray
    ends: np.ndarray

    def radius(self, root_radius: float) -> np.ndarray:
        """Return the radius of each branch, mm."""
        return root_radius * (self.ends / self.ends[0]) ** (1.0 / _MURRAY)


def grow_tree(points: np.ndarray, root: np.ndarray, heading: np.ndarray, rng: np.random.Generator, least: int) -> Tree:
    """Grow a tree from a root into a cloud of points.

    Args:
        points: ``(N, 3)``, mm, spread evenly over the lung.
        root: ``(3,)``, mm, where the tree enters.
        heading: ``(3,)``, first direction.
        rng: Source of randomness.
        least: Smallest number of points that still gets a branch.

    Returns:
        The tree; branch 0 is the root.
    """
    branches: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    todo = [(points, np.asarray(root, float), np.asarray(heading, float) / np.linalg.norm(heading), -1)]
    while todo:
        cloud, start, direction, parent = todo.pop()
        way = cloud.mean(axis=0) - start
        distance = float(np.linalg.norm(way))
        if distance < 1.5:
            continue
        aim = _limit_turn(way / distance, direction, 0.35)
        end = start + aim * min(max(0.47 * distance, 3.0), distance)
        branches.append((start, end, direction, parent))
        if len(cloud) < 2 * least or len(branches) > 20_000:
            continue
        index = len(branches) - 1
        leaving = _unit(_unit(end - start) + rng.normal(0, 0.12, 3))
        for half in _split(cloud, leaving, rng):
            if len(half) >= least:
                todo.append((half, end, leaving, index))
    return _finish(branches)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _limit_turn(aim: np.ndarray, direction: np.ndarray, least_cosine: float) -> np.ndarray:
    cosine = float(aim @ direction)
    if cosine >= least_cosine:
        return aim
    side = _unit(aim - cosine * direction)
    return least_cosine * direction + np.sqrt(1 - least_cosine**2) * side


def _split(cloud: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split a cloud across its longest extent beside the direction of growth."""
    centered = cloud - cloud.mean(axis=0)
    beside = centered - np.outer(centered @ direction, direction)
    sample = beside[:: max(1, len(beside) // 400)]
    _, vectors = np.linalg.eigh(sample.T @ sample)
    # Eigenvectors have no sign of their own; another LAPACK must not turn the tree round.
    longest = vectors[:, 2] * (1.0 if vectors[np.argmax(np.abs(vectors[:, 2])), 2] > 0 else -1.0)
    normal = _unit(longest + rng.normal(0, 0.25, 3))
    projection = centered @ normal
    ranked = np.sort(projection[:: max(1, len(projection) // 400)])
    cut = ranked[int(rng.uniform(0.35, 0.65) * len(ranked))]
    return cloud[projection < cut], cloud[projection >= cut]


def _finish(branches: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> Tree:
    start, end, heading = (np.array([branch[k] for branch in branches]) for k in range(3))
    parent = np.array([branch[3] for branch in branches])
    ends = np.zeros(len(branches), int)
    has_child = np.zeros(len(branches), bool)
    has_child[parent[parent >= 0]] = True
    # Children come after their parents: one pass backwards sums the ends.
    for index in range(len(branches) - 1, -1, -1):
        ends[index] += 0 if has_child[index] else 1
        if parent[index] >= 0:
            ends[parent[index]] += ends[index]
    return Tree(start, end, heading, parent, np.maximum(ends, 1))


def tree_tubes(tree: Tree, radius: np.ndarray, piece_mm: float = 4.0) -> tuple[Tubes, np.ndarray]:
    """Bend the branches along Bezier curves and cut them into straight pieces.

    Args:
        tree: The tree.
        radius: ``(B,)``, mm.
        piece_mm: Length of a piece, about.

    Returns:
        The pieces, and the branch that each belongs to, int ``(N,)``.
    """
    length = np.linalg.norm(tree.end - tree.start, axis=1)
    control = tree.start + tree.heading * (0.38 * length)[:, None]
    count = np.maximum(np.ceil(length / piece_mm).astype(int), 1)
    branch = np.repeat(np.arange(len(length)), count)
    order = np.arange(len(branch)) - np.repeat(np.cumsum(count) - count, count)
    t0, t1 = order / count[branch], (order + 1) / count[branch]
    before = np.where(tree.parent[branch] >= 0, radius[np.maximum(tree.parent[branch], 0)], radius[branch])
    # A daughter narrows within its first stretch.
    entry = np.minimum(before, 1.25 * radius[branch])
    r0 = entry + (radius[branch] - entry) * np.minimum(2 * t0, 1)
    r1 = entry + (radius[branch] - entry) * np.minimum(2 * t1, 1)
    points = [_bezier(tree, control, branch, t) for t in (t0, t1)]
    return Tubes(*(a.astype(np.float32) for a in (*points, r0, r1))), branch


def _bezier(tree: Tree, control: np.ndarray, branch: np.ndarray, t: np.ndarray) -> np.ndarray:
    t = t[:, None]
    return (1 - t) ** 2 * tree.start[branch] + 2 * t * (1 - t) * control[branch] + t**2 * tree.end[branch]
