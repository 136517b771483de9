"""Thousands of short round cones drawn onto a plane at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lung_d2.phantom.shapes import Plane, Vector, unit

_BLOCKS = (3, 6, 12, 24, 48, 96)
_BATCH = 2_000_000
_MURRAY = 2.6


@dataclass(frozen=True)
class Tubes:
    """Pieces of tubes.

    Attributes:
        start: float32 ``(N, 3)``, ``(x, y, z)`` in mm.
        end: float32 ``(N, 3)``, mm.
        radius_start: float32 ``(N,)``, mm.
        radius_end: float32 ``(N,)``, mm.
    """

    start: np.ndarray
    end: np.ndarray
    radius_start: np.ndarray
    radius_end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def balls(cls, center: np.ndarray, radius: np.ndarray) -> Tubes:
        """Return balls with centres ``(N, 3)`` and radii ``(N,)``, mm."""
        return cls(*(values.astype(np.float32) for values in (center, center, radius, radius)))

    @classmethod
    def along(cls, path: np.ndarray, radius: np.ndarray) -> Tubes:
        """Return the pieces between the points ``(N, 3)`` of a path with radii ``(N,)``, mm."""
        return cls(*(values.astype(np.float32) for values in (path[:-1], path[1:], radius[:-1], radius[1:])))

    def reach(self, margin_mm: float) -> np.ndarray:
        """Return how far each piece reaches from its axis with a margin, ``(N,)``, mm."""
        return np.maximum(self.radius_start, self.radius_end) + margin_mm

    def near(self, z: float, margin_mm: float) -> Tubes:
        """Return the pieces that with a margin meet the height ``z``, mm."""
        low, high = np.minimum(self.start[:, 2], self.end[:, 2]), np.maximum(self.start[:, 2], self.end[:, 2])
        reach = self.reach(margin_mm)
        return self.take((low - reach <= z) & (high + reach >= z))

    def take(self, chosen: np.ndarray) -> Tubes:
        """Return the pieces that an index or boolean array chooses."""
        return Tubes(self.start[chosen], self.end[chosen], self.radius_start[chosen], self.radius_end[chosen])

    def resized(self, scale: float = 1.0, add_mm: float = 0.0, least_mm: float = 0.05) -> Tubes:
        """Return the same axes with other radii."""
        first = np.maximum(self.radius_start * scale + add_mm, least_mm).astype(np.float32)
        last = np.maximum(self.radius_end * scale + add_mm, least_mm).astype(np.float32)
        return Tubes(self.start, self.end, first, last)


def join_tubes(parts: list[Tubes]) -> Tubes:
    """Put several sets of pieces into one."""
    if not parts:
        empty, none = np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
        return Tubes(empty, empty, none, none)
    names = ("start", "end", "radius_start", "radius_end")
    return Tubes(*(np.concatenate([getattr(part, name) for part in parts]).astype(np.float32) for name in names))


def tube_distance(tubes: Tubes, plane: Plane, reach_mm: float = 4.0) -> np.ndarray:
    """Return the distance to the nearest surface, float32 ``(H, W)``, mm, exact up to ``reach_mm`` outside."""
    out = np.full(plane.shape, np.float32(reach_mm), np.float32)
    flat = out.reshape(-1)
    for index, distance, _ in _pieces(tubes, plane, reach_mm):
        np.minimum.at(flat, index, distance)
    return out


def tube_coverage(tubes: Tubes, plane: Plane) -> np.ndarray:
    """Return the share of each pixel inside the tubes, float32 ``(H, W)``, 0..1.

    A tube thinner than a pixel covers it only in part: the share is scaled by width over pixel.
    """
    out = np.zeros(plane.shape, np.float32)
    flat = out.reshape(-1)
    soft = np.float32(plane.pixel_mm)
    for index, distance, radius in _pieces(tubes, plane, 0.6 * plane.pixel_mm):
        thin = np.minimum(1.0, 2.0 * np.maximum(radius, 0.0) / soft)
        np.maximum.at(flat, index, np.clip(0.5 - distance / soft, 0.0, 1.0) * thin)
    return out


def _pieces(tubes: Tubes, plane: Plane, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield flat pixel indices, distances and local radii, in batches of pieces of like size."""
    tubes = tubes.near(plane.z, reach)
    half = np.abs(tubes.end - tubes.start)[:, :2].max(axis=1) / 2 + tubes.reach(reach)
    half_pixels = np.ceil(half / plane.pixel_mm).astype(int) + 1
    previous = 0
    for block in _BLOCKS:
        chosen = np.flatnonzero((half_pixels > previous) & (half_pixels <= block))
        previous = block
        step = max(1, _BATCH // (2 * block + 1) ** 2)
        for first in range(0, chosen.size, step):
            yield _block(tubes.take(chosen[first : first + step]), plane, block, reach)


def _block(tubes: Tubes, plane: Plane, block: int, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = plane.shape
    x0, y0 = float(plane.x[0, 0]), float(plane.y[0, 0])
    step_x = float(plane.x[0, 1] - x0)
    step_y = float(plane.y[1, 0] - y0)
    middle = (tubes.start + tubes.end) / 2
    offsets = np.arange(-block, block + 1)
    columns = np.rint((middle[:, 0] - x0) / step_x).astype(int)[:, None] + offsets
    rows = np.rint((middle[:, 1] - y0) / step_y).astype(int)[:, None] + offsets
    px = ((x0 + columns * step_x).astype(np.float32) - tubes.start[:, :1])[:, None, :]
    py = ((y0 + rows * step_y).astype(np.float32) - tubes.start[:, 1:2])[:, :, None]
    pz = (np.float32(plane.z) - tubes.start[:, 2])[:, None, None]
    axis = (tubes.end - tubes.start)[:, :, None, None]
    squared = np.maximum((axis * axis).sum(axis=1), 1e-6)
    t = np.clip((px * axis[:, 0] + py * axis[:, 1] + pz * axis[:, 2]) / squared, 0.0, 1.0)
    dx, dy, dz = px - t * axis[:, 0], py - t * axis[:, 1], pz - t * axis[:, 2]
    first, last = tubes.radius_start[:, None, None], tubes.radius_end[:, None, None]
    radius = first + t * (last - first)
    distance = np.sqrt(dx * dx + dy * dy + dz * dz) - radius
    valid = ((columns >= 0) & (columns < width))[:, None, :] & ((rows >= 0) & (rows < height))[:, :, None]
    valid &= distance < reach
    index = (rows[:, :, None] * width + columns[:, None, :])[valid]
    return index, distance[valid], radius[valid]


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


def grow_tree(points: np.ndarray, root: Vector, heading: Vector, rng: np.random.Generator, ends: int) -> Tree:
    """Grow a tree from a root into a cloud of points.

    Args:
        points: ``(N, 3)``, mm, spread evenly over the lung.
        root: ``(x, y, z)``, mm, where the tree enters.
        heading: ``(x, y, z)``, first direction.
        rng: Source of randomness.
        ends: About how many branches end at most.

    Returns:
        The tree; branch 0 is the root.
    """
    least = max(2, len(points) // ends)  # the smallest number of points that still gets a branch
    branches: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    todo = [(points, np.asarray(root), unit(np.asarray(heading)), -1)]
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
        leaving = unit(unit(end - start) + rng.normal(0, 0.12, 3))
        todo += [(half, end, leaving, index) for half in _split(cloud, leaving, rng) if len(half) >= least]
    return _finish(branches)


def _limit_turn(aim: np.ndarray, direction: np.ndarray, least_cosine: float) -> np.ndarray:
    cosine = float(aim @ direction)
    if cosine >= least_cosine:
        return aim
    side = unit(aim - cosine * direction)
    return least_cosine * direction + np.sqrt(1 - least_cosine**2) * side


def _split(cloud: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split a cloud across its longest extent beside the direction of growth."""
    centered = cloud - cloud.mean(axis=0)
    beside = centered - np.outer(centered @ direction, direction)
    sample = beside[:: max(1, len(beside) // 400)]
    _, vectors = np.linalg.eigh(sample.T @ sample)
    # Eigenvectors have no sign of their own; another LAPACK must not turn the tree round.
    longest = vectors[:, 2] * (1.0 if vectors[np.argmax(np.abs(vectors[:, 2])), 2] > 0 else -1.0)
    normal = unit(longest + rng.normal(0, 0.25, 3))
    projection = centered @ normal
    ranked = np.sort(projection[:: max(1, len(projection) // 400)])
    cut = ranked[int(rng.uniform(0.35, 0.65) * len(ranked))]
    return cloud[projection < cut], cloud[projection >= cut]


def _finish(branches: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> Tree:
    start, end, heading = (np.array([branch[k] for branch in branches]) for k in range(3))
    parent = np.array([branch[3] for branch in branches])
    ends = np.ones(len(branches), int)
    ends[parent[1:]] = 0
    # Children come after their parents: one pass backwards sums the ends.
    for index in range(len(branches) - 1, 0, -1):
        ends[parent[index]] += ends[index]
    return Tree(start, end, heading, parent, ends)


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
    before = np.where(tree.parent >= 0, radius[np.maximum(tree.parent, 0)], radius)
    # A daughter narrows within its first stretch.
    entry = np.minimum(before, 1.25 * radius)
    points, radii = [], []
    for t in (t0, t1):
        radii.append(entry[branch] + (radius - entry)[branch] * np.minimum(2 * t, 1))
        t = t[:, None]
        points.append((1 - t) ** 2 * tree.start[branch] + 2 * t * (1 - t) * control[branch] + t**2 * tree.end[branch])
    return Tubes(*(values.astype(np.float32) for values in (*points, *radii))), branch
