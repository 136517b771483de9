"""Dilated bronchi as a slice cuts them: rings, tubes cut lengthwise, cysts, and clusters with shared walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from lung_d2.data.augment.drawn.canvas import (
    AIR_LEVEL,
    Canvas,
    Discs,
    Floats,
    Mask,
    Points,
    Window,
    cover,
    join_discs,
    size_of,
)

OUTER_MM = (1.8, 17.0)
"""Outer radius: from what 0.7 mm pixels just show, to a cyst of the middle lobe."""
LEAST_PX = 2.1
"""Smaller rings no picture shows."""
LEAST_CONTRAST = 0.22
"""Least difference, in levels, between wall and lumen once blurred: what nobody could see is not drawn."""
TRIES = 12
PERIPHERAL = 0.97
"""Share of the clusters in lung that are drawn away from the hila, where normal bronchi are as wide."""
WALL_SHARE, CYST_MM, CYST_WALL_SHARE = (0.14, 0.62), 6.0, (0.05, 0.35)
"""Thickness of the wall as a share of the outer radius; from which radius on it is that of a cyst."""
PLUGGED = 0.08
"""Share of the further bronchi of a cluster that mucus fills; alone, such a one is a nodule to the eye."""
_TIGHT_PX = 5.5
"""Rings of smaller outer radius in a cluster that shares walls are one instance: nobody outlines them one by one."""
_HEIGHTS = (-1.0, 0.0, 1.0)
"""Places within the thickness of the slice that are averaged."""


@dataclass(frozen=True, eq=False)
class Bronchus:
    """One bronchus on a slice.

    Attributes:
        outer: Its outline.
        lumen: What is open, or filled.
        lumen_level: Level of the lumen.
        wall_level: Level of the wall.
        drift: How far the outline moves within half of the slice's thickness, pixels (row, column).
        growth: How much it grows there, as a share.
    """

    outer: Discs
    lumen: Discs
    lumen_level: float
    wall_level: float
    drift: Points
    growth: float

    @property
    def radius(self) -> float:
        """Median outer radius, pixels."""
        return float(np.median(self.outer.radii))


def draw_cluster(canvas: Canvas, taken: Mask, center: Points | None = None) -> list[Mask]:
    """Draw one bronchus or several that belong together, and what lies around them.

    Args:
        canvas: The slice.
        taken: bool ``(H, W)``: other bronchi, which stay as they are.
        center: Where; None: anywhere in the lung.

    Returns:
        The instances, bool ``(H, W)``: lumen and wall. Empty where there is no room.
    """
    rng = canvas.rng
    for _ in range(TRIES):
        size = _draw_size(canvas)
        within = canvas.away_from_hilum if rng.random() < PERIPHERAL else None
        place = canvas.draw_place(0.5 * min(size * canvas.pixel_mm, 5.0), within=within) if center is None else center
        if place is None:
            return []
        bronchi = _draw_bronchi(canvas, place, size)
        reach = _all_outer(bronchi).window(canvas.shape, 3.0)
        if _fits(canvas, bronchi, taken, reach):
            break
    else:
        return []
    if rng.random() < 0.35:
        _surround(canvas, bronchi)
    if rng.random() < 0.6:
        _draw_artery(canvas, bronchi)
    shown = [one for one in bronchi if _paint(canvas, one)]
    return _as_instances(canvas, shown)


def draw_airway(canvas: Canvas) -> None:
    """Draw a normal airway beside its artery, which is no narrower, or the artery alone: neither is a lesion."""
    rng = canvas.rng
    place = canvas.draw_place(4.0)
    if place is None:
        return
    artery = canvas.px(float(np.exp(rng.uniform(np.log(0.9), np.log(5.0)))))
    way = canvas.draw_way()
    canvas.paint_discs(Discs(place[None], np.array([artery])), rng.uniform(0.85, 1.1))
    if rng.random() < 0.65 and canvas.px(1.0) > 0.9:
        radius = artery * rng.uniform(0.6, 0.98)
        wall = max(canvas.px(rng.uniform(0.35, 0.7)), 0.12 * radius)
        outer = Discs((place + way * (artery + radius * 0.95))[None], np.array([radius]))
        lumen = outer.moved(add=-wall)
        one = Bronchus(outer, lumen, AIR_LEVEL, float(rng.uniform(0.35, 0.8)), np.zeros(2), 0.0)
        _paint(canvas, one, least_contrast=0.0)


def draw_central_airway(canvas: Canvas) -> None:
    """Draw a main or lobar bronchus at the hilum, among its large vessels: wide, and no lesion."""
    rng = canvas.rng
    place = canvas.draw_place(0.0, 18.0, within=canvas.lung & ~canvas.away_from_hilum)
    if place is None:
        return
    radius = max(canvas.px(float(np.exp(rng.uniform(np.log(2.2), np.log(7.5))))), LEAST_PX)
    for _ in range(int(rng.integers(1, 7))):
        vessel = radius * rng.uniform(0.5, 1.6)
        centers = (
            place
            + canvas.draw_way() * (0.9 * radius + 0.9 * vessel)
            + np.outer(np.arange(4) * 0.7 * vessel, canvas.draw_way())
        )
        canvas.paint_discs(Discs(centers, np.full(4, vessel)), rng.uniform(0.9, 1.1))
    wall = max(canvas.px(rng.uniform(0.5, 1.6)), 0.12 * radius)
    lengthwise = bool(rng.random() < 0.35)
    level = float(rng.uniform(0.7, 1.1))
    _paint(canvas, _draw_bronchus(canvas, place, radius, wall, level, canvas.draw_way(), lengthwise), 0.0)


def _draw_size(canvas: Canvas) -> float:
    """Draw an outer radius in pixels: mostly small, some cysts."""
    rng = canvas.rng
    kind = rng.random()
    low, high = (1.8, 4.5) if kind < 0.5 else (2.8, 7.5) if kind < 0.87 else (6.0, OUTER_MM[1])
    mm = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return max(canvas.px(mm), LEAST_PX)


def _draw_bronchi(canvas: Canvas, place: Points, size: float) -> list[Bronchus]:
    rng = canvas.rng
    most = 7 if size < canvas.px(6.0) else 4
    count = 1 if rng.random() < 0.5 else int(rng.integers(2, most + 1))
    wall, level = _draw_wall(canvas, size)
    touching = rng.random() < 0.7
    along = canvas.draw_way()
    lengthwise = rng.random() < 0.22
    first = _draw_bronchus(canvas, place, size, wall, level, along, lengthwise)
    found = [first]
    for _ in range(count - 1):
        before = found[int(rng.integers(len(found)))]
        radius = max(size * rng.uniform(0.5, 1.15), LEAST_PX)
        gap = -0.9 * wall if touching else canvas.px(rng.uniform(0.5, 6.0))
        anchor = before.outer.centers[int(rng.integers(len(before.outer.centers)))]
        way = np.array([-along[1], along[0]]) * rng.choice([-1, 1]) if lengthwise else canvas.draw_way()
        there = anchor + way * (before.radius + radius + gap)
        others = np.array([np.hypot(*(one.outer.centers - there).T).min() - one.radius - radius for one in found])
        if others.min() < -1.6 * wall - 0.5:
            continue
        own = max(wall * rng.uniform(0.6, 1.4), 0.5)
        aligned = lengthwise or rng.random() < 0.08
        one = _draw_bronchus(canvas, there, radius, own, level, along, aligned)
        plugged = rng.random() < PLUGGED and radius > canvas.px(2.2)
        found.append(replace(one, lumen_level=float(rng.uniform(0.6, 0.95))) if plugged else one)
    return found


def _draw_wall(canvas: Canvas, size: float) -> tuple[float, float]:
    """Draw thickness in pixels and level of the walls: from a line to as thick as the lumen is wide."""
    rng = canvas.rng
    size_mm = size * canvas.pixel_mm
    least, most = WALL_SHARE if size_mm < CYST_MM else CYST_WALL_SHARE
    mm = max(size_mm * rng.uniform(least, most), 0.5 + 0.03 * size_mm)
    wall = min(canvas.px(mm), 0.66 * size)
    # A thin wall is blurred to half of its level, and has to be dense to be seen.
    return max(wall, 0.45), float(rng.uniform(0.8 if mm < 1.2 else 0.6, 1.15))


def _draw_bronchus(
    canvas: Canvas, place: Points, size: float, wall: float, level: float, along: Points, lengthwise: bool
) -> Bronchus:
    rng = canvas.rng
    points, radii = _draw_axis(canvas, place, size, along, lengthwise)
    outer = Discs(points, radii)
    uneven = 1.0 + 0.3 * np.interp(np.linspace(0, 1, len(radii)), [0, 0.5, 1], rng.normal(0, 0.6, 3))
    off = canvas.draw_way() * rng.uniform(0.0, 0.45) * wall
    inner = np.minimum(wall * np.clip(uneven, 0.5, 1.7), 0.75 * radii)
    lumen = outer.moved(shift=off, add=-inner)
    if lengthwise and len(points) > 4 and rng.random() < 0.6:  # the slice leaves the tube: open ends or closed ones
        lumen = Discs(lumen.centers[1:-1], lumen.radii[1:-1])
    filled = rng.random()
    air = AIR_LEVEL + rng.uniform(-0.04, 0.10)
    lumen_level = float(air if filled < 0.9 else rng.uniform(0.0, 0.3))
    drift = canvas.draw_way() * canvas.px(abs(rng.normal(0.0, 0.5)))
    return Bronchus(outer, lumen, lumen_level, level, drift, float(rng.normal(0.0, 0.05)))


def _draw_axis(canvas: Canvas, place: Points, size: float, along: Points, lengthwise: bool) -> tuple[Points, Points]:
    """Draw the discs whose union is the outline."""
    rng = canvas.rng
    if lengthwise:
        length = min(size * rng.uniform(3.0, 9.0), canvas.px(55.0))
        way, bend = along, rng.normal(0.0, 0.22) * length
        count = int(np.clip(length / (0.45 * size), 5, 30))
    elif rng.random() < 0.6:  # cut obliquely
        length, way, bend = size * abs(rng.normal(0.0, 0.9)), canvas.draw_way(), 0.0
        count = 4
    else:
        return place[None].copy(), np.array([size])
    t = np.linspace(-0.5, 0.5, count)
    across = np.array([-way[1], way[0]])
    points = place + np.outer(t * length, way) + np.outer(bend * (4 * t**2 - 1) * 0.5, across)
    kind = rng.random()
    radii = np.full(count, size)
    if lengthwise and kind < 0.45:  # varicose
        beads = rng.uniform(1.0, 3.5)
        radii = size * (1.0 + rng.uniform(0.1, 0.35) * np.sin(2 * np.pi * (t * beads + rng.random())))
    elif lengthwise and kind < 0.75:  # opening towards the pleura
        radii = size * (1.0 + rng.uniform(-0.5, 0.5) * t)
    return points, radii * (1.0 + 0.05 * rng.normal(size=count))


def _fits(canvas: Canvas, bronchi: Sequence[Bronchus], taken: Mask, window: Window) -> bool:
    inside = _all_outer(bronchi).distance(window) < 0
    area = np.count_nonzero(inside)
    if not area or (inside & taken[window]).any():
        return False
    return bool(np.count_nonzero(inside & canvas.lung[window]) >= 0.85 * area)


def _paint(canvas: Canvas, bronchus: Bronchus, least_contrast: float = LEAST_CONTRAST) -> bool:
    """Paint wall and lumen; nothing where both would look alike. Returns whether it was painted."""
    rng = canvas.rng
    window = bronchus.outer.window(canvas.shape, 4.0 + 3.0 * canvas.blur_px)
    size = size_of(window)
    if 0 in size:
        return False
    warp = canvas.draw_warp(bronchus.radius, size)
    share, paint = np.zeros(size, np.float32), np.zeros(size, np.float32)
    shade = 1.0 + 0.12 * canvas.waves(max(0.8 * bronchus.radius, 2.0), size)  # no wall is even
    for height in _HEIGHTS:
        shift, grow = bronchus.drift * height, 1.0 + bronchus.growth * height
        outer = cover(bronchus.outer.moved(shift, grow).distance(window, warp))
        lumen = cover(bronchus.lumen.moved(shift, grow).distance(window, warp)) * outer
        share += outer / len(_HEIGHTS)
        paint += ((outer - lumen) * bronchus.wall_level * shade + lumen * bronchus.lumen_level) / len(_HEIGHTS)
    inside = canvas.lung[window]
    if not inside.all():  # nothing is drawn over the chest wall
        near = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.7)
        share, paint = share * near, paint * near
    if least_contrast and _contrast(canvas, bronchus, window, warp, share, paint) < least_contrast:
        return False
    canvas.stamp(window, share, paint)
    if rng.random() < 0.12 and bronchus.radius > canvas.px(3.0):
        _fill_partly(canvas, bronchus, window, warp)
    return True


def _contrast(canvas: Canvas, bronchus: Bronchus, window: Window, warp: Floats, share: Floats, paint: Floats) -> float:
    """Return how far the wall differs from the lumen (a plug: from the lung), blurred."""
    blurred = canvas.blur(paint)
    seen = blurred + (1.0 - canvas.blur(share)) * canvas.structure[window]
    outside = bronchus.outer.distance(window, warp)
    lumen = bronchus.lumen.distance(window, warp)
    wall = (outside < 0) & (lumen > 0)
    if bronchus.lumen_level > 0.5:
        return float(seen[outside < 0].mean()) - 0.2 if (outside < 0).any() else 0.0
    core = lumen <= max(float(lumen.min()) * 0.5, float(lumen.min()) + 0.5)
    if not wall.any() or not core.any():
        return 0.0
    return float(np.percentile(seen[wall], 60)) - float(seen[core].mean())


def _fill_partly(canvas: Canvas, bronchus: Bronchus, window: Window, warp: Floats) -> None:
    """Draw mucus along one side of the lumen, or a level of fluid."""
    way = np.array([1.0, 0.0]) if canvas.rng.random() < 0.5 else canvas.draw_way()
    part = bronchus.lumen.moved(shift=way * bronchus.radius * canvas.rng.uniform(0.5, 1.1))
    share = cover(part.distance(window, warp)) * cover(bronchus.lumen.distance(window, warp))
    canvas.stamp(window, share, share * np.float32(canvas.rng.uniform(0.7, 1.0)))


def _draw_artery(canvas: Canvas, bronchi: Sequence[Bronchus]) -> None:
    """Lay an artery against the first bronchus, narrower than it: the signet ring."""
    rng, first = canvas.rng, bronchi[0]
    radius = max(first.radius * rng.uniform(0.3, 0.8), 0.8)
    radius = min(radius, canvas.px(4.0))
    shift = canvas.draw_way() * (first.radius + radius * 0.8)
    level = float(rng.uniform(0.85, 1.1))
    if len(first.outer.radii) > 4 and rng.random() < 0.7:  # along the tube
        across = first.outer.centers[-1] - first.outer.centers[0]
        across = np.array([-across[1], across[0]]) / max(float(np.hypot(*across)), 1e-6)
        shift = across * (first.radius + 0.8 * radius)
        canvas.paint_discs(Discs(first.outer.centers + shift, np.full(len(first.outer.radii), radius)), level)
    else:
        canvas.paint_discs(Discs(first.outer.centers[:1] + shift, np.array([radius])), level)


def _surround(canvas: Canvas, bronchi: Sequence[Bronchus]) -> None:
    """Thicken the tissue around the bronchi: a cuff, scarring, or small nodules."""
    rng = canvas.rng
    whole = _all_outer(bronchi)
    reach = canvas.px(rng.uniform(1.0, 4.5))
    window = whole.window(canvas.shape, 2.0 * reach + 3)
    size = size_of(window)
    if 0 in size:
        return
    near = whole.distance(window) / np.float32(reach) + np.float32(0.45) * canvas.waves(max(reach, 3.0), size)
    share = np.clip(1.0 - near, 0.0, 1.0).astype(np.float32) * canvas.near_lung[window]
    level = float(rng.uniform(0.1, 0.9)) * (1.0 + 0.15 * canvas.waves(4.0, size))
    canvas.raise_to(window, canvas.blur(share), level)


def _as_instances(canvas: Canvas, bronchi: Sequence[Bronchus]) -> list[Mask]:
    """Return the masks: each ring its own, but small ones that share walls together."""
    masks = [(one, _mask_of(canvas, one)) for one in bronchi]
    small = np.zeros(canvas.shape, np.uint8)
    found = []
    for one, mask in masks:
        if one.radius < _TIGHT_PX:
            small |= mask.astype(np.uint8)
        elif mask.any():
            found.append(mask)
    for mask in found:
        small[mask] = 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=4)
    found += [labels == label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= 6]
    return _apart(found)


def _apart(masks: list[Mask]) -> list[Mask]:
    """Give each pixel to one instance alone, the smaller first: a shared wall belongs to one."""
    taken: Any = None
    found = []
    for mask in sorted(masks, key=np.count_nonzero):
        own = mask if taken is None else mask & ~taken
        taken = own.copy() if taken is None else taken | own
        if np.count_nonzero(own) >= 6:
            found.append(own)
    return found


def _mask_of(canvas: Canvas, bronchus: Bronchus) -> Mask:
    mask = np.zeros(canvas.shape, bool)
    window = bronchus.outer.window(canvas.shape, 2.0)
    mask[window] = (bronchus.outer.distance(window) < 0) & canvas.lung[window]
    return mask


def _all_outer(bronchi: Sequence[Bronchus]) -> Discs:
    return join_discs([one.outer for one in bronchi])
