"""Sample a patient on slices: the image in HU, and the voxels that each lesion fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.ct.scanner_noise import Kernel, apply_kernel, scanner_noise
from lung_d2.phantom.anatomy import Anatomy
from lung_d2.phantom.lesions import DilatedBronchi, Opacity, haze, radius_on_plane
from lung_d2.phantom.lungs import Distractors, LungContents
from lung_d2.phantom.mediastinum import BLOOD_HU
from lung_d2.phantom.shapes import Plane, coverage, paint, smooth_step
from lung_d2.phantom.thorax import Frame, build_frame
from lung_d2.phantom.tissue import dependent_band, paint_body, paint_fissures, parenchyma
from lung_d2.phantom.tubes import tube_coverage, tube_distance

LUMEN_HU = -955.0


@dataclass(frozen=True)
class Scene:
    """A whole patient, continuous, in mm and HU.

    Attributes:
        anatomy: Build.
        contents: Vessels and airways.
        opacities: Ground-glass opacities; instance ``i + 1`` is ``opacities[i]``.
        bronchi: Clusters of dilated bronchi; likewise.
        distractors: Structures that are not lesions.
    """

    anatomy: Anatomy
    contents: LungContents
    opacities: tuple[Opacity, ...]
    bronchi: tuple[DilatedBronchi, ...]
    distractors: Distractors


@dataclass(frozen=True)
class Layer:
    """A plane or a slice of a patient, as painted.

    Attributes:
        hu: float32 ``(H, W)``.
        opacities: Bool masks ``(H, W)`` of the opacities that the plane meets, by index.
        bronchi: Bool masks ``(H, W)`` of the clusters that the plane meets, by index.
    """

    hu: np.ndarray
    opacities: dict[int, np.ndarray]
    bronchi: dict[int, np.ndarray]


def render_layer(scene: Scene, plane: Plane) -> Layer:
    """Paint one plane of a patient, without noise and blur."""
    anatomy, extra = scene.anatomy, scene.distractors
    frame = build_frame(anatomy, plane)
    image = paint_body(anatomy, frame, extra.motion_mm)
    inside = coverage(frame.lungs, plane.pixel_mm)
    if not inside.any():
        return Layer(image, {}, {})
    lung = parenchyma(anatomy, frame) + extra.mosaic_hu * anatomy.warp.on_plane(plane, 22.0, shift=11.0)
    lung = lung.astype(np.float32)
    _paint_holes(lung, scene, plane)
    paint_fissures(lung, anatomy, frame, inside)
    streaks = 60.0 * anatomy.grain.on_plane(plane, 4.0, shift=8.0)
    paint(lung, dependent_band(anatomy, frame, extra.dependent_mm), extra.dependent_hu + streaks)
    opacities = _paint_haze(lung, scene, frame)
    _paint_contents(lung, scene, plane)
    bronchi = _paint_bronchi(lung, scene, frame)
    if extra.motion_mm:
        _smear_heart(lung, frame, extra.motion_mm)
    paint(image, inside, lung)
    return Layer(image, opacities, bronchi)


def _paint_holes(lung: np.ndarray, scene: Scene, plane: Plane) -> None:
    extra = scene.distractors
    if extra.emphysema:
        upper = float(smooth_step(0.3, 0.8, np.array(plane.z / scene.anatomy.lung_height)))
        holes = smooth_step(1.2, 1.6, scene.anatomy.grain.on_plane(plane, 6.0, shift=12.0))
        paint(lung, holes * extra.emphysema * upper, -965.0)
    paint(lung, tube_coverage(extra.walls, plane), -260.0)
    paint(lung, tube_coverage(extra.bullae, plane), -972.0)


def _paint_haze(lung: np.ndarray, scene: Scene, frame: Frame) -> dict[int, np.ndarray]:
    masks = {}
    for index, opacity in enumerate(scene.opacities):
        reach = 1.5 * opacity.reach_mm
        if abs(frame.plane.z - opacity.center[2]) > reach:
            continue
        rows, columns = frame.plane.window(opacity.center[:2], reach)
        part = frame.plane.crop(rows, columns)
        if 0 in part.shape:
            continue
        radius = radius_on_plane(opacity, scene.anatomy.grain, part, frame.lungs[rows, columns])
        texture = 22.0 * scene.anatomy.grain.on_plane(part, 8.0, opacity.shift + 4)
        texture += 24.0 * scene.anatomy.grain.on_plane(part, 2.6, opacity.shift + 5)
        paint(lung[rows, columns], haze(opacity, radius), opacity.hu + texture)
        # Only in the lung in which the lesion lies: the mediastinum separates the two.
        mask = (radius < 1.0) & (frame.lungs[rows, columns] < 0) & (part.x * opacity.center[0] > 0)
        if mask.any():
            whole = np.zeros(frame.plane.shape, bool)
            whole[rows, columns] = mask
            masks[index] = whole
    return masks


def _paint_contents(lung: np.ndarray, scene: Scene, plane: Plane) -> None:
    contents, extra = scene.contents, scene.distractors
    airways = ((contents.walls, -120.0), (contents.airways, LUMEN_HU))
    for tubes, hu in ((extra.bands, -120.0), (contents.vessels, BLOOD_HU), *airways, (extra.nodules, 35.0)):
        paint(lung, tube_coverage(tubes, plane), hu)


def _paint_bronchi(lung: np.ndarray, scene: Scene, frame: Frame) -> dict[int, np.ndarray]:
    masks, soft = {}, frame.plane.pixel_mm
    for index, cluster in enumerate(scene.bronchi):
        if abs(frame.plane.z - cluster.center[2]) > cluster.reach_mm + 3.0:
            continue
        paint(lung, tube_coverage(cluster.artery, frame.plane), BLOOD_HU)
        outer = tube_distance(cluster.outer, frame.plane, 3.0)
        paint(lung, coverage(outer, soft), cluster.wall_hu)
        paint(lung, coverage(tube_distance(cluster.lumen, frame.plane, 3.0), soft), LUMEN_HU)
        mask = (outer < 0) & (frame.lungs < 0)
        if mask.any():
            masks[index] = mask
    return masks


def _smear_heart(lung: np.ndarray, frame: Frame, motion_mm: float) -> None:
    """Blur the beating heart into the lung beside it."""
    for part, distance in frame.mediastinum:
        if part.name == "heart":
            paint(lung, 0.34 * smooth_step(2.5 * motion_mm, 0.0, distance - part.margin), -300.0)


def render_slice(
    scene: Scene, plane: Plane, thickness_mm: float, kernel: Kernel, noise_hu: float, rng: np.random.Generator
) -> Layer:
    """Sample one slice with its thickness, the scanner's blur and its noise.

    Args:
        scene: The patient.
        plane: The middle of the slice.
        thickness_mm: What the slice averages over, mm.
        kernel: Reconstruction kernel.
        noise_hu: Standard deviation of the noise of a soft kernel in the middle of the body, HU.
        rng: Source of the noise.

    Returns:
        The image, and masks of the voxels that a lesion fills at least by half.
    """
    count = int(np.clip(round(thickness_mm / 2.4), 1, 3))
    offsets = (np.arange(count) + 0.5) / count * thickness_mm - thickness_mm / 2
    layers = [render_layer(scene, Plane(plane.x, plane.y, plane.z + o, plane.pixel_mm)) for o in offsets.tolist()]
    hu = sum((layer.hu for layer in layers[1:]), start=layers[0].hu) / count
    hu = apply_kernel(hu.astype(np.float32), plane.pixel_mm, kernel)
    hu = hu + _noise(scene, plane, kernel, noise_hu, rng)
    return Layer(hu, _majority([la.opacities for la in layers]), _majority([la.bronchi for la in layers]))


def _majority(masks: list[dict[int, np.ndarray]]) -> dict[int, np.ndarray]:
    out: dict[int, np.ndarray] = {}
    for index in sorted({key for part in masks for key in part}):
        share = np.sum([part[index] for part in masks if index in part], axis=0)
        mask: np.ndarray = 2 * share >= len(masks)
        if mask.any():
            out[index] = mask
    return out


def _noise(scene: Scene, plane: Plane, kernel: Kernel, noise_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise, strongest where rays cross most tissue: in the middle, and as streaks at the shoulders."""
    noise = scanner_noise(plane.shape, plane.pixel_mm, kernel, rng)
    width, depth = scene.anatomy.body_axes(plane.z)
    inside = np.exp(-0.9 * ((plane.x / width) ** 2 + (plane.y / depth) ** 2))
    rise = float(smooth_step(0.82, 1.0, np.array(plane.z / scene.anatomy.lung_height)))
    streak = rng.standard_normal(plane.shape[0]).astype(np.float32)[:, None] * inside
    return noise_hu * kernel.noise_gain * (noise * (0.35 + 0.65 * inside) * (1 + 0.5 * rise) + 0.35 * rise * streak)
