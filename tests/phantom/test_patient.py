"""One phantom: repeatable, varied, with tissues and lesions as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.phantom import LesionSpec, PhantomPatient, PhantomSpec, Range, build_patient, preset_by_name
from lung_d2.phantom.shapes import Plane
from lung_d2.phantom.thorax import build_frame
from lung_d2.phantom.tubes import tube_coverage

MINI = preset_by_name("mini")
# Fine, quiet, without anything but lesions: what shapes and densities are measured on.
CLEAR = PhantomSpec(
    matrix=(256, 256),
    slice_count=14,
    slice_spacing_mm=8.0,
    slice_thickness_mm=1.0,
    ground_glass_opacity=LesionSpec((6, 6), Range(14, 22), Range(0.2, 1.0)),
    bronchiectasis=LesionSpec((4, 4), Range(5.0, 7.0), Range(0.5, 1.0)),
    noise_hu=Range(0, 0),
    kernels=("lung",),
    distractors=0.0,
    prone_share=0.0,
    seed=3,
)
NONE = LesionSpec((0, 0), Range(5, 6), Range(1, 1))


@pytest.fixture(scope="module")
def mini() -> list[PhantomPatient]:
    return [build_patient(MINI, number) for number in range(2)]


@pytest.fixture(scope="module")
def clear() -> PhantomPatient:
    return build_patient(CLEAR, 0)


def lung_mask(patient: PhantomPatient) -> np.ndarray:
    """Return the lungs by their shape, bool ``[Z, Y, X]``."""
    affine, (depth, rows, columns) = patient.volume.affine_lps, patient.volume.hu.shape
    x = (affine[0, 3] + affine[0, 0] * np.arange(columns)).astype(np.float32)[None]
    y = (affine[1, 3] + affine[1, 1] * np.arange(rows)).astype(np.float32)[:, None]
    pixel = patient.volume.spacing_mm[1]
    planes = [Plane(x, y, affine[2, 3] + affine[2, 2] * k, pixel) for k in range(depth)]
    return np.stack([build_frame(patient.scene.anatomy, plane).lungs < 0 for plane in planes])


def lesion_mask(patient: PhantomPatient, index: int) -> np.ndarray:
    lesion = patient.lesions[index]
    return patient.instances[lesion.category] == lesion.instance_id


def test_the_same_seed_gives_the_same_patient(mini: list[PhantomPatient]) -> None:
    again = build_patient(MINI, 0)
    assert np.array_equal(again.volume.hu, mini[0].volume.hu)
    assert all(np.array_equal(again.instances[name], mini[0].instances[name]) for name in again.instances)
    assert again.lesions == mini[0].lesions
    assert again.volume.sop_instance_uids == mini[0].volume.sop_instance_uids


def test_patients_and_cohorts_differ(mini: list[PhantomPatient]) -> None:
    other = build_patient(replace(MINI, seed=8), 0)
    builds = {(p.scene.anatomy.lung_height, p.scene.anatomy.cage_width, p.volume.spacing_mm) for p in (*mini, other)}
    series = {p.volume.series_instance_uid for p in (*mini, other)}
    assert len(builds) == len(series) == 3


def test_volume_is_on_the_hu_scale(mini: list[PhantomPatient]) -> None:
    for patient in mini:
        hu = patient.volume.hu
        assert hu.dtype == np.int16
        assert hu.min() >= -1024
        assert hu.max() < 2000
        assert -1010 < np.median(hu[:, :4, :]) < -990


def test_tissues_have_their_attenuation(clear: PhantomPatient) -> None:
    hu, lungs = clear.volume.hu, lung_mask(clear)
    free = lungs & ~np.logical_or(*(clear.instances[category.name] > 0 for category in CATEGORIES))
    assert -910 < np.median(hu[free]) < -800
    middle = len(hu) // 2
    anatomy, affine = clear.scene.anatomy, clear.volume.affine_lps
    spine_x, spine_y = anatomy.spine(float(affine[2, 3] + affine[2, 2] * middle))
    column, row = np.linalg.solve(affine[:2, :2], np.array([spine_x, spine_y]) - affine[:2, 3]).astype(int)
    vertebra = hu[middle, row - 4 : row + 4, column - 4 : column + 4]
    assert 80 < vertebra.mean() < 500
    # Fat and muscle of the chest wall are two peaks.
    soft = hu[middle][(hu[middle] > -160) & (hu[middle] < 120)]
    counts, edges = np.histogram(soft, bins=28)
    assert {-100, 50} <= {int(round(edges[k] / 50) * 50) for k in np.argsort(counts)[-12:]}


def test_lesions_lie_inside_the_lungs(mini: list[PhantomPatient], clear: PhantomPatient) -> None:
    for patient in (*mini, clear):
        lungs = lung_mask(patient)
        for instances in patient.instances.values():
            outside = (instances > 0) & ~lungs
            # A slice averages over its thickness: at the edge its middle may be outside.
            assert outside.sum() <= 0.08 * (instances > 0).sum()


def test_every_patient_has_both_categories_evident_and_numbered(mini: list[PhantomPatient]) -> None:
    for patient in mini:
        area = patient.volume.spacing_mm[1] ** 2
        for category in CATEGORIES:
            instances = patient.instances[category.name]
            listed = [lesion for lesion in patient.lesions if lesion.category == category.name]
            assert instances.dtype == np.uint16
            assert instances.shape == patient.volume.hu.shape
            assert [lesion.instance_id for lesion in listed] == list(range(1, instances.max() + 1)) != []
            for lesion in listed:
                planes = (instances == lesion.instance_id).sum(axis=(1, 2)) * area
                assert planes.max() >= 40.0
                assert planes[planes > 0].min() >= 16.0
                assert tuple(np.flatnonzero(planes)) == lesion.slice_indices
                assert lesion.volume_ml == pytest.approx(planes.sum() * patient.volume.spacing_mm[0] / 1000)


def test_opacities_are_ground_glass(clear: PhantomPatient) -> None:
    indices = [k for k, lesion in enumerate(clear.lesions) if lesion.category == GROUND_GLASS_OPACITY.name]
    bronchi = clear.instances[BRONCHIECTASIS.name] > 0
    for index in indices:
        values = clear.volume.hu[lesion_mask(clear, index) & ~bronchi]
        assert -700 < values.mean() < -400
        assert np.mean(values > -300) < 0.4  # hazy, not consolidated


def test_vessels_stay_visible_in_opacities(clear: PhantomPatient) -> None:
    affine, haze = clear.volume.affine_lps, clear.instances[GROUND_GLASS_OPACITY.name] > 0
    haze &= clear.instances[BRONCHIECTASIS.name] == 0
    x = (affine[0, 3] + affine[0, 0] * np.arange(haze.shape[2])).astype(np.float32)[None]
    y = (affine[1, 3] + affine[1, 1] * np.arange(haze.shape[1])).astype(np.float32)[:, None]
    inside, beside = [], []
    for k in range(len(haze)):
        plane = Plane(x, y, float(affine[2, 3] + affine[2, 2] * k), clear.volume.spacing_mm[1])
        vessel = tube_coverage(clear.scene.contents.vessels, plane)
        inside.append(clear.volume.hu[k][haze[k] & (vessel > 0.6)])
        beside.append(clear.volume.hu[k][haze[k] & (vessel == 0)])
    vessels, ground = np.concatenate(inside), np.concatenate(beside)
    assert vessels.size > 20
    assert vessels.mean() - ground.mean() > 150


def test_bronchi_are_wider_than_their_artery_and_have_walls(clear: PhantomPatient) -> None:
    assert clear.scene.bronchi
    for cluster in clear.scene.bronchi:
        assert cluster.lumen.radius_start.mean() > cluster.artery.radius_start.mean()
        wall = cluster.outer.radius_start - cluster.lumen.radius_start
        assert 0.9 < wall.mean() < 3.0
    affine = clear.volume.affine_lps
    x = (affine[0, 3] + affine[0, 0] * np.arange(256)).astype(np.float32)[None]
    y = (affine[1, 3] + affine[1, 1] * np.arange(256)).astype(np.float32)[:, None]
    lumen_hu, wall_hu = [], []
    for k, truth in enumerate(clear.instances[BRONCHIECTASIS.name] > 0):
        plane = Plane(x, y, float(affine[2, 3] + affine[2, 2] * k), clear.volume.spacing_mm[1])
        lumen = np.max([tube_coverage(cluster.lumen, plane) for cluster in clear.scene.bronchi], axis=0)
        lumen_hu.append(clear.volume.hu[k][truth & (lumen == 1)])
        wall_hu.append(clear.volume.hu[k][truth & (lumen == 0)])
    assert np.median(np.concatenate(lumen_hu)) < -850
    assert np.median(np.concatenate(wall_hu)) > -400


def test_spacing_does_not_change_the_lesions() -> None:
    coarse = replace(CLEAR, slice_count=20, slice_spacing_mm=6.0, bronchiectasis=NONE)
    fine = replace(coarse, matrix=(320, 320), slice_count=39, slice_spacing_mm=3.0)
    first, second = build_patient(coarse, 1), build_patient(fine, 1)
    pairs = list(zip(first.lesions, second.lesions, strict=True))
    assert pairs
    for a, b in pairs:
        assert a.kind == b.kind
        assert a.center_mm == pytest.approx(b.center_mm)
        assert a.volume_ml == pytest.approx(b.volume_ml, rel=0.12)


def test_round_opacities_have_their_analytic_volume() -> None:
    spec = replace(CLEAR, slice_count=60, slice_spacing_mm=1.6, matrix=(192, 192), bronchiectasis=NONE)
    found = [
        les for number in range(1, 3) for les in build_patient(spec, number).lesions if les.analytic_ml is not None
    ]
    assert found
    for lesion in found:
        assert lesion.volume_ml == pytest.approx(lesion.analytic_ml, rel=0.02)


def test_prone_patients_are_shown_with_the_table_below() -> None:
    patient = build_patient(replace(MINI, prone_share=1.0), 0)
    affine = patient.volume.affine_lps
    assert affine[0, 0] < 0
    assert affine[1, 1] < 0 < affine[2, 2]
    lungs = np.argwhere(lung_mask(patient))
    assert len(lungs) > 100
