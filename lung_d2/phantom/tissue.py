"""Paint one plane of a patient without lesions: wall, bones, mediastinum, abdomen, parenchyma."""

from __future__ import annotations

import numpy as np

from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.shapes import coverage, ellipsoid, ellipsoid_matrix, paint, smooth_step
from lung_d2.phantom.thorax import Frame, paint_bones

AIR = -1000.0
FAT = -102.0
MUSCLE = 52.0
SKIN = 10.0
LIVER = 58.0


def paint_body(anatomy: Anatomy, frame: Frame, motion_mm: float) -> np.ndarray:
    """Paint everything outside the lungs.

    Args:
        anatomy: The patient's build.
        frame: The plane.
        motion_mm: How far the heart's edge is smeared by its motion, mm.

    Returns:
        float32 ``(H, W)``, HU; the lungs hold mediastinal fat until the parenchyma is painted over it.
    """
    soft = frame.plane.pixel_mm
    image = np.full(frame.plane.shape, AIR, np.float32)
    _paint_table(image, anatomy, frame)
    paint(image, coverage(frame.body, soft), SKIN)
    fat = FAT + 9.0 * anatomy.grain.on_plane(frame.plane, 5.0, shift=6.0)
    paint(image, coverage(frame.body + 1.8, soft), fat)
    _paint_muscle(image, anatomy, frame)
    paint(image, coverage(frame.cage - 0.6, soft), FAT + 12)
    _paint_abdomen(image, anatomy, frame)
    paint_bones(image, anatomy, frame)
    _paint_mediastinum(image, anatomy, frame, motion_mm)
    return image


def _paint_table(image: np.ndarray, anatomy: Anatomy, frame: Frame) -> None:
    wall = 17.0 + 0.6 * anatomy.fat if anatomy.prone else 20.0 + 0.8 * anatomy.fat + 7.0 * anatomy.muscle
    y = anatomy.down * frame.plane.y
    trough = anatomy.cage_axes(0)[1] + wall + 7.0 - (frame.plane.x / 210.0) ** 2 * 62.0
    for offset, thickness, hu in ((-1.0, 9.0, -880.0), (5.0, 2.6, 180.0), (17.0, 22.0, -945.0), (29.0, 2.2, 60.0)):
        shell = np.maximum(np.abs(y - (trough + offset)) - thickness / 2, np.abs(frame.plane.x) - 205.0)
        paint(image, coverage(shell, frame.plane.pixel_mm), hu)


def _paint_muscle(image: np.ndarray, anatomy: Anatomy, frame: Frame) -> None:
    turn = frame.back_angle
    rise = float(np.clip(frame.plane.z / anatomy.lung_height, 0.0, 1.1))
    layer = 6.0 + 16.0 * np.exp(-((turn / 0.55) ** 2)) + 9.0 * np.exp(-(((turn - 1.1) / 0.5) ** 2))
    pectoral = float(smooth_step(0.35, 0.75, np.array(rise)))
    layer += 14.0 * pectoral * np.exp(-(((turn - 2.45) / 0.42) ** 2))
    layer = 9.0 + anatomy.muscle * layer + 60.0 * float(smooth_step(0.72, 1.0, np.array(rise)))
    outside = np.maximum(frame.cage - layer, frame.body + 1.8 + 0.55 * anatomy.fat)
    muscle = MUSCLE + 7.0 * anatomy.grain.on_plane(frame.plane, 3.0, shift=2.0)
    paint(image, coverage(outside, frame.plane.pixel_mm), muscle)
    # Sheets of fat separate the muscles: the zero surfaces of a smooth field, outside the ribs only.
    field = anatomy.warp.on_plane(frame.plane, 26.0, shift=3.0) + 0.02 * frame.cage
    gap = np.abs(field) * 16.0
    between = coverage(np.maximum(gap - 2.0, outside), max(frame.plane.pixel_mm, 1.0)) * (frame.cage > 11.0)
    paint(image, 0.6 * between, FAT)


def _paint_abdomen(image: np.ndarray, anatomy: Anatomy, frame: Frame) -> None:
    soft = frame.plane.pixel_mm
    below = frame.diaphragm + 2.5
    if float(below.min()) > 2:
        return
    inside = np.maximum(frame.cage + 1.5, frame.diaphragm)
    paint(image, coverage(inside, soft), MUSCLE)
    x, y, z = frame.bent.x, frame.bent.y, frame.plane.z
    texture = 6.0 * anatomy.grain.on_plane(frame.plane, 4.0, shift=9.0)
    organ = np.maximum(inside + 2.0, below)
    left = smooth_step(-5.0, 5.0, x - 26.0 - 0.25 * y)
    paint(image, coverage(organ, soft) * (1 - left), LIVER + texture)
    paint(image, coverage(organ, soft) * left, FAT + 10 + 2 * texture)
    width, depth = anatomy.cage_axes(z)
    spleen = ellipsoid(frame.bent, (0.72 * width, 0.35 * depth, 0.03 * z), ellipsoid_matrix((38, 46, 90)))
    paint(image, coverage(np.maximum((spleen - 1) * 38, organ + 1), soft) * left, 48.0 + texture)
    stomach_center = (0.40 * width, -0.12 * depth, anatomy.dome_left - 42.0)
    stomach = (ellipsoid(frame.bent, stomach_center, ellipsoid_matrix((40, 44, 42))) - 1) * 40
    stomach = np.maximum(stomach, organ + 3.0)
    paint(image, coverage(stomach, soft) * left, 35.0)
    paint(image, coverage(stomach + 4.0, soft) * left, 12.0 + 4 * texture)
    level = (y - (stomach_center[1] - 14.0)) * anatomy.down
    paint(image, coverage(np.maximum(stomach + 4.0, level), soft) * left, -960.0)


def _paint_mediastinum(image: np.ndarray, anatomy: Anatomy, frame: Frame, motion_mm: float) -> None:
    soft = frame.plane.pixel_mm
    inside = coverage(frame.cage + 2.0, soft)
    neck = smooth_step(0.95, 1.05, np.array(frame.plane.z / anatomy.lung_height))
    inside = np.maximum(inside, neck.astype(np.float32))
    above = coverage(-frame.diaphragm - 1.0, soft)
    airways = [(part, distance) for part, distance in frame.mediastinum if part.wall]
    for part, distance in frame.mediastinum:
        if part.name == "heart":
            paint(image, coverage(distance, soft + motion_mm) * inside * above, part.hu)
        elif not part.wall:
            paint(image, coverage(distance, soft) * inside, part.hu)
    for part, distance in airways:
        paint(image, coverage(distance - part.wall, soft), 35.0)
    for part, distance in airways:
        paint(image, coverage(distance, soft), part.hu)


def parenchyma(anatomy: Anatomy, frame: Frame) -> np.ndarray:
    """Return the attenuation of the normal lung with texture and gravity, float32 ``(H, W)``, HU."""
    height = frame.plane.y / anatomy.cage_depth * anatomy.down
    hu = anatomy.lung_hu + anatomy.gravity_hu * (0.5 * height + 0.5 * np.clip(height, 0, None) ** 2)
    hu = hu + 9.0 * anatomy.grain.on_plane(frame.plane, 34.0, shift=1.0)
    hu = hu + 6.0 * anatomy.grain.on_plane(frame.plane, 6.0, shift=2.0)
    return hu + 19.0 * anatomy.grain.on_plane(frame.plane, 2.0, shift=3.0)


def paint_fissures(image: np.ndarray, anatomy: Anatomy, frame: Frame, inside: np.ndarray) -> None:
    """Draw the oblique fissures and the right horizontal one as thin sheets between the lobes."""
    x, y, z = frame.bent.x, frame.bent.y, frame.plane.z
    wave = 5.0 * anatomy.warp.on_plane(frame.plane, 50.0, shift=5.0)
    middle = 0.52 * anatomy.lung_height
    slope = 0.75 if anatomy.prone else 0.80
    oblique = (y * slope + (z - middle) * 0.60 - 2.0 + wave + 0.10 * np.abs(x)) * 0.95
    sheet = coverage(np.abs(oblique) - 0.25, max(frame.plane.pixel_mm, 0.8)) * 0.9
    level = (z - middle - 4.0 + 0.12 * y + 1.4 * wave) * 0.97
    ahead = (x < 0) & (oblique < 0)
    sheet = np.maximum(sheet, coverage(np.abs(level) - 0.25, 0.9) * ahead * 0.8)
    paint(image, 0.6 * sheet * inside * min(1.0, 0.9 / frame.plane.pixel_mm), -430.0)


def dependent_band(anatomy: Anatomy, frame: Frame, depth_mm: float) -> np.ndarray:
    """Return how much the dependent lung collapses under its weight, float32 ``(H, W)``, 0..1."""
    if depth_mm <= 0:
        return np.zeros(frame.plane.shape, np.float32)
    down = frame.plane.y * anatomy.down
    streaks = anatomy.grain.on_plane(frame.plane, 9.0, shift=7.0)
    depth = -frame.lungs + 2.0 * streaks
    low = smooth_step(0.30, 0.72, down / anatomy.cage_depth)
    return smooth_step(depth_mm, 0.25 * depth_mm, depth) * low
