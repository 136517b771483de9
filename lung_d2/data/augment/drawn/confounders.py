"""Structures that look like lesions and are not: drawn, and never marked."""

from __future__ import annotations

import cv2
import numpy as np

from lung_d2.data.augment.drawn.bronchi import draw_airway, draw_central_airway
from lung_d2.data.augment.drawn.canvas import AIR_LEVEL, Canvas, Discs, size_of


def draw_airways(canvas: Canvas) -> None:
    """Draw vessels end on, and normal airways beside them."""
    for _ in range(int(canvas.rng.integers(2, 12))):
        draw_airway(canvas)


def draw_central_airways(canvas: Canvas) -> None:
    """Draw bronchi at the hila, which are as wide as dilated ones elsewhere."""
    for _ in range(int(canvas.rng.integers(1, 6))):
        draw_central_airway(canvas)


def draw_emphysema(canvas: Canvas) -> None:
    """Draw many small holes without a wall."""
    rng = canvas.rng
    middle, reach = canvas.draw_place(3.0), canvas.px(rng.uniform(15.0, 60.0))
    if middle is None:
        return
    largest = rng.uniform(1.5, 5.0)
    for _ in range(int(rng.integers(8, 45))):
        place = middle + rng.normal(0.0, 0.5 * reach, 2)
        _dig(canvas, Discs(place[None], np.array([max(canvas.px(rng.uniform(1.0, largest)), 1.0)])))


def draw_bulla(canvas: Canvas) -> None:
    """Draw a large hole without a wall, mostly beneath the pleura."""
    rng = canvas.rng
    radius = canvas.px(rng.uniform(3.0, 22.0))
    place = canvas.draw_place(0.3 * radius * canvas.pixel_mm)
    if place is not None:
        points = place + rng.normal(0.0, 0.5 * radius, (int(rng.integers(1, 4)), 2))
        _dig(canvas, Discs(points, radius * rng.uniform(0.6, 1.0, len(points))))


def _dig(canvas: Canvas, discs: Discs) -> None:
    """Take the parenchyma out; vessels at the edge stay."""
    window = discs.window(canvas.shape, 4.0)
    size = size_of(window)
    if min(size) < 3:
        return
    share = np.clip(0.5 - discs.distance(window, 0.25 * canvas.waves(4.0, size)[None].repeat(2, 0)), 0, 1)
    share = cv2.GaussianBlur(share * canvas.lung[window], (0, 0), max(canvas.blur_px, 0.8))
    low = np.minimum(canvas.structure[window], np.float32(AIR_LEVEL + canvas.rng.uniform(-0.01, 0.06)))
    airy = canvas.structure[window] < 0.5
    canvas.structure[window] += share * airy * (low - canvas.structure[window])


def draw_nodules(canvas: Canvas) -> None:
    """Draw nodules, plugs and twigs: soft tissue without a lumen."""
    rng = canvas.rng
    middle = canvas.draw_place(2.0)
    if middle is None:
        return
    spread = canvas.px(rng.uniform(5.0, 60.0))
    largest = float(np.exp(rng.uniform(np.log(1.2), np.log(6.0))))
    level = rng.uniform(0.5, 1.05)
    for _ in range(int(rng.integers(1, 16))):
        place, radius = middle + rng.normal(0.0, spread, 2), max(canvas.px(rng.uniform(0.7, largest)), 0.7)
        count = int(rng.integers(3, 9)) if rng.random() < 0.4 else 1
        points = (
            place + np.outer(np.arange(count) * radius, canvas.draw_way()) + rng.normal(0, 0.25 * radius, (count, 2))
        )
        canvas.paint_discs(Discs(points, radius * np.linspace(1.0, rng.uniform(0.4, 1.0), count)), level)


def draw_band(canvas: Canvas) -> None:
    """Draw a band or a thickened septum."""
    rng = canvas.rng
    place = canvas.draw_place(0.0)
    if place is None:
        return
    radius, count = max(canvas.px(rng.uniform(0.4, 1.6)), 0.5), 24
    length = canvas.px(rng.uniform(10.0, 60.0))
    t, way = np.linspace(-0.5, 0.5, count), canvas.draw_way()
    bend = np.outer(rng.normal(0.0, 0.15) * length * (4 * t**2 - 1), [-way[1], way[0]])
    canvas.paint_discs(Discs(place + np.outer(t * length, way) + bend, np.full(count, radius)), rng.uniform(0.5, 1.0))


def draw_pleura(canvas: Canvas) -> None:
    """Thicken the pleura along a part of the chest wall: soft tissue that is neither category."""
    rng = canvas.rng
    place = canvas.draw_place(0.0, 3.0)
    if place is None:
        return
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    along = np.hypot(rows - place[0], columns - place[1]) / canvas.px(rng.uniform(10.0, 45.0))
    thick = canvas.px(rng.uniform(1.0, 5.0)) * np.clip(1.3 - along**2, 0, 1)
    share = np.clip(thick - canvas.depth_px + 0.5, 0, 1).astype(np.float32) * canvas.near_lung * (thick > 0)
    whole = slice(0, canvas.shape[0]), slice(0, canvas.shape[1])
    canvas.raise_to(whole, cv2.GaussianBlur(share, (0, 0), canvas.blur_px), rng.uniform(0.8, 1.0))


def draw_dependent(canvas: Canvas) -> None:
    """Draw the haze that gravity makes along the back: it grows towards the pleura and has no edge."""
    rng = canvas.rng
    rows = np.flatnonzero(canvas.lung.any(axis=1))
    low, high = float(rows[0]), float(rows[-1])
    height = (np.arange(canvas.shape[0], dtype=np.float32)[:, None] - low) / max(high - low, 1.0)
    if rng.random() < 0.15:  # prone, or turned upside down
        height = 1.0 - height
    start = rng.uniform(0.55, 0.85)
    slope = np.clip((height - start) / (1.0 - start), 0, 1) ** rng.uniform(1.0, 2.5)
    near = np.exp(-canvas.depth_px / canvas.px(rng.uniform(6.0, 25.0)))
    canvas.structure += (rng.uniform(0.08, 0.3) * slope * near * canvas.lung).astype(np.float32)


def blur_by_motion(canvas: Canvas) -> None:
    """Double the outlines of a part of the lung, as the beating heart does."""
    rng = canvas.rng
    shift = canvas.px(rng.uniform(0.8, 3.0))
    matrix = np.array([[1, 0, rng.normal(0, 0.7) * shift], [0, 1, rng.normal(0, 0.7) * shift]], np.float32)
    moved = cv2.warpAffine(canvas.structure, matrix, canvas.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    share = np.clip(canvas.waves(0.35 * canvas.shape[1]), 0, 1) * np.float32(rng.uniform(0.3, 0.5))
    canvas.structure += share * (moved - canvas.structure)


DRAWERS = {
    "airways": (draw_airways, 0.45),
    "central airways": (draw_central_airways, 0.7),
    "emphysema": (draw_emphysema, 0.2),
    "bulla": (draw_bulla, 0.2),
    "nodules": (draw_nodules, 0.4),
    "band": (draw_band, 0.25),
    "pleura": (draw_pleura, 0.15),
    "dependent": (draw_dependent, 0.2),
    "motion": (blur_by_motion, 0.12),
}
"""What is drawn, and on which share of the slices."""


def draw_confounders(canvas: Canvas, strength: float = 1.0) -> None:
    """Draw some of all of these, before the lesions.

    Args:
        canvas: The slice.
        strength: Factor of the shares.
    """
    for draw, share in DRAWERS.values():
        if canvas.rng.random() < share * strength:
            draw(canvas)
