"""Insert phantom lesions into a real, healthy lung: the CT keeps its anatomy, vessels, noise and sharpness.

An opacity raises the parenchyma towards ground glass and leaves vessels and airways unchanged; dilated bronchi are laid
beside real vessels and blurred like the series. All copies of a series are one patient with generated lesions, which
limits what they teach and prove.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lung_d2.phantom.inserted_lesions import Drawing, draw_insertion
from lung_d2.phantom.lesions import DilatedBronchi, Opacity, haze, radius_on_plane
from lung_d2.phantom.mediastinum import BLOOD_HU
from lung_d2.phantom.patient import HIGHEST_HU, LOWEST_HU
from lung_d2.phantom.real_lung import RealLung
from lung_d2.phantom.render import LUMEN_HU, Layer
from lung_d2.phantom.shapes import Plane, smooth_step
from lung_d2.phantom.spec import LesionSpec, PhantomSpec, Range
from lung_d2.phantom.truth import SPECK_MM2, PhantomLesion, drop_specks, list_lesions, stack_instances
from lung_d2.phantom.tubes import Tubes, tube_coverage, tube_distance

INSERTED = PhantomSpec(
    ground_glass_opacity=LesionSpec((1, 4), Range(7.0, 24.0), Range(0.2, 1.0)),
    bronchiectasis=LesionSpec((3, 6), Range(2.6, 5.8), Range(0.2, 1.0)),
    distractors=0.15,
    overlap_share=0.35,
    patients=10,
    seed=40_551,
)
"""Lesions of a copy; ``patients`` is the number of copies. The real CT decides everything else in a spec."""

BACKGROUND_MM = 7.0
"""Standard deviation over which the surrounding parenchyma is averaged."""
PLAIN_HU = (-90.0, 130.0)
"""Range of parenchyma about the median of the lungs; beyond are airways and vessels."""
LUMEN_DARKER_HU = (45.0, 110.0)
"""How much darker than the parenchyma an airway is: ground glass leaves it dark, from not at all to entirely."""
CORE_HU = 110.0
"""How much denser the middle of an opacity is than its rim."""
HALO_MM = (2.0, 5.0)
"""Haze outside the mask of an opacity fades between these distances, so that no unmarked wisps remain."""
MOTTLE = ((9.0, 45.0), (4.0, 38.0))
"""Grain of an opacity: size in mm, standard deviation in HU."""
NOISE_KEPT = 3.0
"""Values within this many standard deviations of the local median are noise and stay; beyond are structures."""
LAYER_MM = 0.7
MOST_LAYERS = 5
_MARGIN_MM = 4.0


@dataclass(frozen=True, eq=False)
class InsertedCopy:
    """A real CT with phantom lesions and their truth.

    Attributes:
        number: Number of the copy; with the spec's seed it decides everything.
        hu: int16 ``[Z, Y, X]``, HU, on the grid of the CT.
        instances: For each category's name, uint16 ``[Z, Y, X]``: 0 background, 1..n a lesion.
        lesions: All lesions that are marked.
        drawing: The lesions as they were drawn.
    """

    number: int
    hu: np.ndarray
    instances: dict[str, np.ndarray]
    lesions: tuple[PhantomLesion, ...]
    drawing: Drawing


def insert_lesions(lung: RealLung, number: int = 0, spec: PhantomSpec = INSERTED) -> InsertedCopy:
    """Make one copy of a real CT with phantom lesions in its lungs.

    Args:
        lung: The CT, see :func:`lung_d2.phantom.real_lung.prepare_lung`.
        number: Number of the copy.
        spec: Number, size and evidence of the lesions, and the seed.

    Returns:
        The copy: the same for the same arguments. Voxels that no lesion reaches are unchanged.
    """
    drawing = draw_insertion(spec, number, lung)
    hu, maps = _paint(lung, drawing)
    seen = [np.unique(one)[1:] - 1 for one in maps]
    if (len(seen[0]), len(seen[1])) != (len(drawing.opacities), len(drawing.bronchi)):
        # What is too small to be marked must not be painted either.
        opacities, bronchi = (
            tuple(shapes[index] for index in kept)
            for shapes, kept in zip((drawing.opacities, drawing.bronchi), seen, strict=True)
        )
        drawing = replace(drawing, opacities=opacities, bronchi=bronchi)
        hu, maps = _paint(lung, drawing)
    voxel_mm3 = float(np.prod(lung.volume.spacing_mm))
    instances, found = list_lesions((drawing.opacities, drawing.bronchi), maps, voxel_mm3)
    lesions = tuple(replace(one, center_mm=lung.to_lps(one.center_mm)) for one in found)
    return InsertedCopy(number, hu, instances, lesions, drawing)


def _paint(lung: RealLung, drawing: Drawing) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return HU int16 ``[Z, Y, X]``, and for each category a map of instances, value index + 1."""
    hu = lung.volume.hu.copy()
    masks: tuple[list, list] = ([], [])
    for index, plane in enumerate(hu):
        painted = paint_slice(lung, drawing, index)
        changed = painted.hu != plane
        plane[changed] = np.clip(np.rint(painted.hu[changed]), LOWEST_HU, HIGHEST_HU)
        masks[0].append(painted.opacities)
        masks[1].append(painted.bronchi)
    return hu, [stack_instances(one, hu.shape[1:], lung.pixel_mm) for one in masks]


def paint_slice(lung: RealLung, drawing: Drawing, slice_index: int) -> Layer:
    """Paint the lesions that meet a slice.

    Values stay those of the CT where nothing is painted.

    Args:
        lung: The CT.
        drawing: The lesions to insert.
        slice_index: 0-based.

    Returns:
        The slice and its masks: an opacity where its haze is at least half, a bronchus where its outer wall encloses at
        least half of the voxel.
    """
    image = lung.volume.hu[slice_index].astype(np.float32)
    inside = lung.labels[slice_index] > 0
    plane = lung.plane(slice_index)
    opacities: dict[int, np.ndarray] = {}
    bronchi: dict[int, np.ndarray] = {}
    if inside.any():
        opacities = _paint_haze(image, lung, drawing, plane, slice_index)
        extra = drawing.distractors
        # Without their walls: a walled bulla on a slice looks like a dilated bronchus that is not marked.
        for tubes, hu in ((extra.bullae, -972.0), (extra.bands, -120.0), (extra.nodules, 35.0)):
            _paint_solid(image, lung, [(tubes, hu)], plane, inside)
        for index, cluster in enumerate(drawing.bronchi):
            if _meets(cluster, plane, lung):
                layers = [(cluster.artery, BLOOD_HU), (cluster.outer, cluster.wall_hu), (cluster.lumen, LUMEN_HU)]
                _paint_solid(image, lung, layers, plane, inside)
                mask = _enclosed(cluster.outer, plane, lung) & inside
                if mask.any():
                    bronchi[index] = mask
    return Layer(image, opacities, bronchi)


def _meets(lesion: Opacity | DilatedBronchi, plane: Plane, lung: RealLung) -> bool:
    reach = 1.5 * lesion.reach_mm + lung.volume.spacing_mm[0]
    return abs(plane.z - lesion.center[2]) <= reach


def _offsets(lung: RealLung) -> np.ndarray:
    """Return heights within a slice to average over, mm; a slice is taken to be as thick as slices are apart."""
    spacing = lung.volume.spacing_mm[0]
    count = int(np.clip(round(spacing / LAYER_MM), 1, MOST_LAYERS))
    return (np.arange(count) + 0.5) / count * spacing - spacing / 2


def _paint_haze(
    image: np.ndarray, lung: RealLung, drawing: Drawing, plane: Plane, slice_index: int
) -> dict[int, np.ndarray]:
    labels = lung.labels[slice_index]
    near = [index for index, one in enumerate(drawing.opacities) if _meets(one, plane, lung)]
    if not near:
        return {}
    pleura = -costal_depth(labels > 0, lung.pixel_mm)
    ground = local_parenchyma(image, labels > 0, lung.lung_hu, lung.pixel_mm)
    airy = air_share(image, ground, lung.pixel_mm)
    change, masks = np.zeros_like(image), {}
    for index in near:
        opacity = drawing.opacities[index]
        window = plane.window(opacity.center[:2], 1.5 * opacity.reach_mm)
        part = plane.crop(*window)
        if 0 in part.shape:
            continue
        radius = radius_on_plane(opacity, drawing.grain, part, pleura[window])
        there = labels[window] == lung.side_of(opacity.center)
        marked = drop_specks((radius < 1.0) & there, SPECK_MM2 / lung.pixel_mm**2)
        if not marked.any():
            continue
        near_it = smooth_step(*HALO_MM[::-1], _distance_mm(marked, lung.pixel_mm))
        target = opacity.hu + CORE_HU * np.clip(1.0 - radius, 0.0, 1.0)
        for number, (scale, hu) in enumerate(MOTTLE):
            target = target + hu * drawing.grain.on_plane(part, scale, opacity.shift + 4 + number)
        rise = np.clip(target - ground[window], 0.0, None) * haze(opacity, radius) * there * near_it
        change[window] = np.maximum(change[window], rise)
        masks[index] = np.zeros(labels.shape, bool)
        masks[index][window] = marked
    image += change * airy
    return masks


def _distance_mm(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return the distance to a mask, float32 ``(H, W)``, mm."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(pixel_mm)


def costal_depth(inside: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return how deep each pixel lies under the ribs: within the convex hull of both lungs.

    Crescents follow the chest wall; heart and diaphragm, which the hull includes, do not count.

    Args:
        inside: The lung field, bool ``(H, W)``, not all False.
        pixel_mm: Pixel size, mm.

    Returns:
        float32 ``(H, W)``, mm; 0 outside the hull.
    """
    hull = cv2.convexHull(cv2.findNonZero(inside.astype(np.uint8)))
    filled = cv2.fillConvexPoly(np.zeros(inside.shape, np.uint8), hull, 1)
    return cv2.distanceTransform(filled, cv2.DIST_L2, 5) * np.float32(pixel_mm)


def local_parenchyma(image: np.ndarray, inside: np.ndarray, lung_hu: float, pixel_mm: float) -> np.ndarray:
    """Estimate the parenchyma around each pixel, without vessels and airways.

    Args:
        image: float32 ``(H, W)``, HU.
        inside: The lung field, bool ``(H, W)``.
        lung_hu: Median of the lungs, HU.
        pixel_mm: Pixel size, mm.

    Returns:
        float32 ``(H, W)``, HU: the mean of the plain pixels nearby, ``lung_hu`` where there are none.
    """
    smooth = cv2.medianBlur(image, 5)
    ground = np.full_like(image, lung_hu)
    # Twice, because the second pass compares with the neighbourhood, which gravity makes darker or denser.
    for _ in range(2):
        difference = smooth - ground
        plain = (inside & (difference > PLAIN_HU[0]) & (difference < PLAIN_HU[1])).astype(np.float32)
        sigma = BACKGROUND_MM / pixel_mm
        weight = cv2.GaussianBlur(plain, (0, 0), sigma)
        mean = cv2.GaussianBlur(plain * (smooth - lung_hu), (0, 0), sigma) / np.maximum(weight, 1e-3)
        ground = np.where(weight > 1e-3, lung_hu + mean, lung_hu).astype(np.float32)
    return ground


def air_share(image: np.ndarray, ground: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return how much of each pixel is parenchyma, which ground glass can fill: neither vessel nor airway.

    A pixel is a mixture of parenchyma and blood, so its share follows from its HU.

    Args:
        image: float32 ``(H, W)``, HU.
        ground: Parenchyma around each pixel, float32 ``(H, W)``, HU.
        pixel_mm: Pixel size, mm.

    Returns:
        float32 ``(H, W)``, 0..1.
    """
    vessel = (cv2.medianBlur(image, 3) - ground) / (BLOOD_HU - ground)
    darker = ground - cv2.GaussianBlur(cv2.medianBlur(image, 5), (0, 0), 0.5 / pixel_mm)
    return (1.0 - np.clip(vessel, 0.0, 1.0)) * (1.0 - smooth_step(*LUMEN_DARKER_HU, darker))


def _paint_solid(
    image: np.ndarray, lung: RealLung, layers: list[tuple[Tubes, float]], plane: Plane, inside: np.ndarray
) -> None:
    """Replace the inside of tubes by their HU, later layers over earlier ones, blurred like the series."""
    window = _window(layers, plane)
    part = plane.crop(*window)
    if 0 in part.shape:
        return
    share, paint = np.zeros(part.shape, np.float32), np.zeros(part.shape, np.float32)
    offsets = _offsets(lung)
    for offset in offsets.tolist():
        thin = Plane(part.x, part.y, part.z + offset, part.pixel_mm)
        alpha, value = np.zeros(part.shape, np.float32), np.zeros(part.shape, np.float32)
        for tubes, hu in layers:
            covered = tube_coverage(tubes, thin) * inside[window]
            alpha += covered * (1.0 - alpha)
            value += covered * (np.float32(hu) - value)
        share += alpha / len(offsets)
        paint += value / len(offsets)
    share, paint = (_blurred(one, lung.blur_mm / lung.pixel_mm) for one in (share, paint))
    real = image[window]
    structure = cv2.medianBlur(np.ascontiguousarray(real), 5)
    noise = np.clip(real - structure, -NOISE_KEPT * lung.noise_hu, NOISE_KEPT * lung.noise_hu)
    image[window] = real + np.where(share > 0, paint - share * (real - noise), 0.0)


def _blurred(values: np.ndarray, sigma_pixels: float) -> np.ndarray:
    # OpenCV has no kernel for a Gaussian narrower than this, which is a single pixel.
    return values if sigma_pixels < 0.1 else cv2.GaussianBlur(values, (0, 0), sigma_pixels)


def _window(layers: list[tuple[Tubes, float]], plane: Plane) -> tuple[slice, slice]:
    """Return the rows and columns around the pieces that are near the plane; empty where there are none."""
    spans = []
    for tubes, _ in layers:
        near = tubes.near(plane.z, _MARGIN_MM)
        reach = near.reach(_MARGIN_MM)[:, None]
        for ends in (near.start, near.end):
            spans += [ends[:, :2] - reach, ends[:, :2] + reach]
    points = np.concatenate(spans)
    if not len(points):
        return slice(0, 0), slice(0, 0)
    middle, half = (points.max(axis=0) + points.min(axis=0)) / 2, np.ptp(points, axis=0) / 2
    rows, _ = plane.window((float(middle[0]), float(middle[1])), float(half[1]))
    _, columns = plane.window((float(middle[0]), float(middle[1])), float(half[0]))
    return rows, columns


def _enclosed(outer: Tubes, plane: Plane, lung: RealLung) -> np.ndarray:
    """Return the pixels of which the tubes hold at least half of the thickness, bool ``(H, W)``."""
    mask = np.zeros(plane.shape, bool)
    window = _window([(outer, 0.0)], plane)
    part = plane.crop(*window)
    if 0 in part.shape:
        return mask
    heights = (part.z + _offsets(lung)).tolist()
    inside = [tube_distance(outer, Plane(part.x, part.y, z, part.pixel_mm), 3.0) < 0 for z in heights]
    mask[window] = 2 * np.sum(inside, axis=0) >= len(inside)
    return mask
