"""Build one patient from a seed: anatomy, lesions and everything else, then the slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lung_d2.ct.scanner_noise import KERNELS, Kernel
from lung_d2.ct.volume import CTVolume
from lung_d2.files import hash_identity
from lung_d2.phantom.anatomy import draw_anatomy
from lung_d2.phantom.lesions import draw_bronchi, draw_opacities
from lung_d2.phantom.lungs import draw_distractors, fill_lungs, map_lungs
from lung_d2.phantom.render import Scene, render_slice
from lung_d2.phantom.shapes import Plane
from lung_d2.phantom.spec import PhantomSpec, phantom_uid
from lung_d2.phantom.truth import PhantomLesion, list_lesions, stack_instances

LOWEST_HU, HIGHEST_HU = -1024, 3071


@dataclass(frozen=True, eq=False)
class PhantomPatient:
    """A synthetic chest CT with its truth.

    Attributes:
        number: Number of the patient in its cohort; with the spec's seed it determines everything.
        volume: The CT.
        instances: For each category's name, uint16 ``[Z, Y, X]``: 0 background, 1..n a lesion.
        lesions: All lesions that are marked.
        scene: The continuous patient that was sampled.
        kernel: Reconstruction kernel.
        slice_thickness_mm: What a slice averages over, mm.
        prone: Lies on the chest.
    """

    number: int
    volume: CTVolume
    instances: dict[str, np.ndarray]
    lesions: tuple[PhantomLesion, ...]
    scene: Scene
    kernel: Kernel
    slice_thickness_mm: float
    prone: bool


def _stream(spec: PhantomSpec, number: int, purpose: int) -> np.random.Generator:
    """Return a source of randomness for one purpose, so that its draws do not shift any other."""
    return np.random.default_rng([spec.seed, number, purpose])


def draw_scene(spec: PhantomSpec, number: int) -> tuple[Scene, tuple[float, float]]:
    """Draw one patient; matrix and pixel size do not change it.

    Args:
        spec: The cohort.
        number: Number of the patient.

    Returns:
        The patient, and the heights of the lowest and the highest slice in mm.
    """
    anatomy = draw_anatomy(_stream(spec, number, 0), (spec.lung_hu.low, spec.lung_hu.high), spec.prone_share)
    lungs = map_lungs(anatomy)
    contents = fill_lungs(anatomy, lungs, _stream(spec, number, 1))
    low, high = 0.06 * anatomy.lung_height, 0.95 * anatomy.lung_height
    if spec.slice_spacing_mm is not None:
        extent = (spec.slice_count - 1) * spec.slice_spacing_mm
        spare = (high - low - extent) / 2
        middle = (low + high) / 2 + max(spare, 0.0) * _stream(spec, number, 2).uniform(-1, 1)
        low, high = middle - extent / 2, middle + extent / 2
    opacities = draw_opacities(spec, lungs, (low, high), _stream(spec, number, 3))
    bronchi = draw_bronchi(spec, lungs, contents.bronchi, opacities, (low, high), _stream(spec, number, 4))
    distractors = draw_distractors(spec.distractors, lungs, _stream(spec, number, 5))
    return Scene(anatomy, contents, tuple(opacities), tuple(bronchi), distractors), (low, high)


def _sample(spec: PhantomSpec, scene: Scene, heights: tuple[float, float]) -> tuple[Plane, np.ndarray, float]:
    """Return the lowest plane, the heights of all and their distance, mm; scanners show a prone patient turned."""
    rows, columns = spec.matrix
    pixel = float(spec.pixel_mm or round(2 * (scene.anatomy.body_reach + 6.0) / min(rows, columns), 4))
    sign = -1.0 if scene.anatomy.prone else 1.0
    x = sign * (np.arange(columns) - (columns - 1) / 2) * pixel
    y = sign * (np.arange(rows) - (rows - 1) / 2) * pixel + 6.0 * sign
    even = np.linspace(heights[0], heights[1], spec.slice_count)
    spacing = spec.slice_spacing_mm or (round(float(even[1] - even[0]), 3) if len(even) > 1 else 5.0)
    z = round(float(even[0]), 3) + spacing * np.arange(spec.slice_count)
    return Plane(x[None], y[:, None], float(z[0]), pixel), z, float(spacing)


def build_patient(spec: PhantomSpec, seed: int) -> PhantomPatient:
    """Build one patient of a cohort.

    Args:
        spec: The cohort.
        seed: Number of the patient; with ``spec.seed`` it determines everything.

    Returns:
        The patient: the same for the same arguments.
    """
    scene, heights = draw_scene(spec, seed)
    first, heights_mm, spacing_mm = _sample(spec, scene, heights)
    thickness_mm, pixel_mm = float(spec.slice_thickness_mm or spacing_mm), first.pixel_mm
    rng = _stream(spec, seed, 6)
    kernel = KERNELS[str(rng.choice(spec.kernels))]
    noise_hu = rng.uniform(spec.noise_hu.low, spec.noise_hu.high)
    layers = []
    for index, z in enumerate(heights_mm.tolist()):
        plane = Plane(first.x.astype(np.float32), first.y.astype(np.float32), z, pixel_mm)
        layers.append(render_slice(scene, plane, thickness_mm, kernel, noise_hu, _stream(spec, seed, 100 + index)))
    hu = np.clip(np.rint(np.stack([layer.hu for layer in layers])), LOWEST_HU, HIGHEST_HU).astype(np.int16)
    masks = [layer.opacities for layer in layers], [layer.bronchi for layer in layers]
    maps = [stack_instances(found, spec.matrix, pixel_mm) for found in masks]
    instances, lesions = list_lesions((scene.opacities, scene.bronchi), maps, pixel_mm**2 * spacing_mm)
    affine = np.diag([-pixel_mm if scene.anatomy.prone else pixel_mm] * 2 + [spacing_mm, 1.0])
    affine[:3, 3] = first.x[0, 0], first.y[0, 0], first.z
    series = phantom_uid(spec, seed, "series")
    volume = CTVolume(
        hu=hu,
        spacing_mm=(spacing_mm, pixel_mm, pixel_mm),
        slice_positions_mm=heights_mm,
        affine_lps=affine,
        series_instance_uid=series,
        study_instance_uid=phantom_uid(spec, seed, "study"),
        sop_instance_uids=tuple(phantom_uid(spec, seed, f"slice {index}") for index in range(len(hu))),
        frame_numbers=(None,) * len(hu),
        patient_hash=hash_identity("patient", f"PHANTOM-{seed:03d}"),
        series_hash=hash_identity("series", series),
    )
    return PhantomPatient(seed, volume, instances, lesions, scene, kernel, thickness_mm, scene.anatomy.prone)
