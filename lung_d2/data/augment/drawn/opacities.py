"""Opacities: haze, patches, crescents along the pleura, and consolidation."""

from __future__ import annotations

import cv2
import numpy as np

from lung_d2.data.augment.drawn.canvas import AIR_LEVEL, Canvas, Discs, Floats, Mask, Points, Window, size_of

SIZE_MM = (5.0, 38.0)
"""Radius."""
DENSE = 0.7
"""From this level on an opacity is consolidation, which hides vessels."""
MARKED_SHARE = 0.5
"""The mask ends where the opacity has fallen to this share of its density."""
LEAST_MM2 = 30.0
COLLAPSE_MM = (5.0, 16.0)
"""How far a collapsed part of a lobe reaches beyond the aerated lung."""


def draw_opacity(canvas: Canvas, dense: bool | None = None, place: Points | None = None) -> Mask | None:
    """Draw one opacity.

    Args:
        canvas: The slice.
        dense: Consolidation, or haze; None: either.
        place: Its middle; None: anywhere in the lung.

    Returns:
        Its mask, bool ``(H, W)``; None where there was no room.
    """
    rng = canvas.rng
    dense = rng.random() < 0.3 if dense is None else dense
    along_pleura = rng.random() < 0.35
    place = canvas.draw_place(0.0, 6.0 if along_pleura else np.inf) if place is None else place
    if place is None:
        return None
    size = canvas.px(float(np.exp(rng.uniform(*np.log(SIZE_MM)))))
    window = Discs(place[None], np.array([1.6 * size])).window(canvas.shape, 2.0)
    height, width = size_of(window)
    if min(height, width) < 4:
        return None
    field = _draw_field(canvas, place, size, window, along_pleura)
    level = float(rng.uniform(DENSE, 1.05) if dense else rng.uniform(0.16, 0.6))
    share = _soften(canvas, field, rng.uniform(0.4, 1.5) if dense else rng.uniform(0.6, 5.0)) * canvas.near_lung[window]
    marked = (share > MARKED_SHARE) & canvas.lung[window]
    if np.count_nonzero(marked) * canvas.pixel_mm**2 < LEAST_MM2:
        return None
    mottle = canvas.waves(max(canvas.px(rng.uniform(3.0, 9.0)), 2.0), (height, width))
    grain = canvas.waves(max(canvas.px(rng.uniform(1.0, 3.0)), 1.5), (height, width))
    rough = 0.25 if dense else 1.0
    levels = level * (1.0 + rough * (rng.uniform(0.05, 0.3) * mottle + rng.uniform(0.0, 0.2) * grain))
    if not dense and rng.random() < 0.2:  # crazy paving
        lines = 1.0 - np.clip(np.abs(canvas.waves(canvas.px(rng.uniform(3.0, 7.0)), (height, width))) / 0.35, 0, 1)
        levels = levels + rng.uniform(0.15, 0.4) * lines
    canvas.raise_to(window, share, np.clip(levels, 0.05, 1.1))
    if dense:
        np.maximum(canvas.painted[window], share, out=canvas.painted[window])
        if rng.random() < 0.5:
            _draw_air_bronchograms(canvas, place, size)
    mask = np.zeros(canvas.shape, bool)
    mask[window] = cv2.morphologyEx(marked.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
    return mask if mask.any() else None


def draw_collapse(canvas: Canvas) -> tuple[Mask, Mask] | None:
    """Draw a collapsed part of a lobe: dense lung that reaches into the soft tissue beside it.

    Bronchi may then be drawn in all of it, so ``canvas.lung`` grows by it.

    Returns:
        What was aerated lung before, which is marked, and the whole, bool ``(H, W)`` each; None without room.
    """
    rng = canvas.rng
    place = canvas.draw_place(0.0, 4.0, within=canvas.away_from_hilum)
    if place is None:
        return None
    size = canvas.px(rng.uniform(8.0, 24.0))
    window = Discs(place[None], np.array([1.6 * size])).window(canvas.shape, 2.0)
    height, width = size_of(window)
    if min(height, width) < 4:
        return None
    field = _draw_field(canvas, place, size, window, along_pleura=False)
    outside = cv2.distanceTransform((~canvas.lung).astype(np.uint8), cv2.DIST_L2, 3)[window]
    field = np.minimum(field, canvas.px(rng.uniform(*COLLAPSE_MM)) - outside)
    share = _soften(canvas, field, 0.6)
    near = cv2.GaussianBlur(canvas.near_lung[window].astype(np.float32), (0, 0), canvas.blur_px)
    level = rng.uniform(0.8, 1.0) * (1.0 + 0.05 * canvas.waves(canvas.px(3.0), (height, width)))
    canvas.raise_to(window, share * near, level)
    np.maximum(canvas.painted[window], share * near, out=canvas.painted[window])
    whole = np.zeros(canvas.shape, bool)
    whole[window] = share > MARKED_SHARE
    marked = whole & canvas.lung
    canvas.lung = canvas.lung | whole
    return (marked, whole) if np.count_nonzero(whole) >= 40 else None


def _draw_field(canvas: Canvas, place: Points, size: float, window: Window, along_pleura: bool) -> Floats:
    """Draw how deep each pixel lies in the opacity, in pixels; negative outside."""
    rng = canvas.rng
    rows, columns = np.mgrid[window].astype(np.float32)
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
    dy, dx = rows - np.float32(place[0]), columns - np.float32(place[1])
    u, v = dy * np.cos(angle) + dx * np.sin(angle), (dx * np.cos(angle) - dy * np.sin(angle)) / flat
    depth = size * flat - np.hypot(u, v) * flat
    if along_pleura:  # no deeper than a rim
        rim = canvas.px(rng.uniform(4.0, 18.0))
        depth = np.minimum(depth, rim - canvas.depth_px[window])
    ragged = rng.uniform(0.08, 0.4) * size
    for scale in (1.0, 0.4):
        depth = depth + ragged * scale * canvas.waves(max(scale * size * rng.uniform(0.4, 0.9), 2.0), depth.shape)
    # Whatever the waves add, it ends within the window.
    return np.asarray(np.minimum(depth, 1.5 * size - np.hypot(dy, dx)), np.float32)


def _soften(canvas: Canvas, field: Floats, edge_mm: float) -> Floats:
    share = np.clip(0.5 + field / max(2.0 * canvas.px(edge_mm), 1.0), 0.0, 1.0)
    return cv2.GaussianBlur(share.astype(np.float32), (0, 0), canvas.blur_px)  # type: ignore[return-value]


def _draw_air_bronchograms(canvas: Canvas, place: Points, size: float) -> None:
    """Draw narrow air in consolidation: bronchi of normal width, which are not dilated."""
    rng = canvas.rng
    for _ in range(int(rng.integers(1, 4))):
        radius = max(canvas.px(rng.uniform(0.5, 1.1)), 0.6)
        start, way = place + canvas.draw_way() * rng.uniform(0, 0.6) * size, canvas.draw_way()
        count = int(rng.integers(2, 12))
        points = start + np.outer(np.arange(count) * 1.5 * radius, way)
        canvas.paint_discs(Discs(points, np.linspace(radius, 0.6 * radius, count)), AIR_LEVEL + 0.05)
