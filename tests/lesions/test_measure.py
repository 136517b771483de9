from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lesions.solids import (
    Ellipsoid,
    Solid,
    Tube,
    axial_volume,
    block,
    detect,
    tilted_affine,
    volume_in,
    voxelise,
)
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import GeometryError
from lung_d2.lesions import LinkSettings, LobeField, link_lesions, measure_lesion, measure_lesions

SHAPE = (5, 30, 40)
BOX = block(SHAPE, slice(1, 4), slice(5, 15), slice(6, 18))
ALL = LinkSettings(min_volume_mm3=0)
SPACINGS = [(z, xy, xy) for xy in (0.5, 0.7, 1.0) for z in (0.5, 1.0, 2.5, 5.0, 10.0)]
OBLIQUE = [(1.0, 0.4, 0.3), (-0.3, 1.0, 0.8), (0.2, -0.5, 1.0)]


@dataclass(frozen=True)
class Lungs:
    labels: np.ndarray


def only(mask, volume, **around):
    (lesion,) = link_lesions(detect((mask, 0.9)), volume, ALL)
    return measure_lesion(lesion, volume, **around)


def test_a_box_measures_what_its_voxels_do():
    found = only(BOX, axial_volume(SHAPE, (2.0, 0.8, 0.7), hu=-600))
    assert found.voxel_count == 360
    assert found.volume_ml == pytest.approx(360 * 2 * 0.8 * 0.7 / 1000)
    assert found.extent_lps_mm == pytest.approx((12 * 0.7, 10 * 0.8, 3 * 2))
    assert found.centroid_lps_mm == pytest.approx((11.5 * 0.7, 9.5 * 0.8, 4.0))
    assert (found.slice_count, found.key_slice_index, found.lesion_number) == (3, 1, 1)
    assert (found.mean_hu, found.sd_hu, found.p5_hu, found.median_hu, found.p95_hu) == (-600, 0, -600, -600, -600)
    assert found.long_axis_mm == pytest.approx(np.hypot(12 * 0.7, 10 * 0.8), rel=0.05)


def test_uneven_slices_count_for_what_they_stand_for():
    volume = axial_volume(SHAPE, (2.0, 1.0, 1.0), positions_mm=[0, 1, 3, 7, 8])  # 1, 1.5, 3, 2.5, 1 mm
    found = only(BOX, volume)
    assert found.volume_ml == pytest.approx(0.12 * (1.5 + 3 + 2.5))
    assert found.extent_lps_mm == pytest.approx((12, 10, 7))
    assert found.centroid_lps_mm[2] == pytest.approx((1.5 * 1 + 3 * 3 + 2.5 * 7) / 7)


def test_a_single_slice_has_its_spacing_for_thickness():
    shape = (1, 30, 40)
    found = only(BOX[1:2], axial_volume(shape, (5.0, 1.0, 1.0), positions_mm=[0]))
    assert found.volume_ml == pytest.approx(0.6)
    assert found.extent_lps_mm == pytest.approx((12, 10, 5))


def test_missed_slices_add_no_volume():
    volume = axial_volume(SHAPE, (2.0, 1.0, 1.0))
    (lesion,) = link_lesions(detect((BOX, 0.9), missed=[2]), volume, ALL)
    found = measure_lesion(lesion, volume)
    assert (found.volume_ml, found.slice_count) == (pytest.approx(0.48), 2)
    assert found.extent_lps_mm[2] == pytest.approx(6)


def test_axes_that_run_otherwise_are_measured_along_the_patient():
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 2.0], [-0.8, 0, 0], [0, -0.7, 0]])  # sagittal: columns to the front, rows down
    found = only(BOX, volume_in(affine, SHAPE))
    assert found.extent_lps_mm == pytest.approx((3 * 2, 12 * 0.8, 10 * 0.7))
    assert found.centroid_lps_mm == pytest.approx((4.0, -11.5 * 0.8, -9.5 * 0.7))


def test_side_and_shares_are_those_of_lungs_and_lobes():
    labels = np.ones(SHAPE, np.uint8)
    labels[:, :, 20:] = 2
    lobes = LobeField(np.where(labels == 1, 3, 1).astype(np.uint8))
    found = only(BOX, axial_volume(SHAPE, (2.0, 1.0, 1.0)), lungs=Lungs(labels), lobes=lobes)
    assert (found.side, found.lung_share_percent) == ("right", pytest.approx(100 * 360 / 6000))
    assert [share.share_percent for share in found.lobes] == [0.0, None, pytest.approx(12.0), None, None]


def test_a_lesion_of_another_volume_is_refused():
    (lesion,) = link_lesions(detect((BOX, 0.9)), axial_volume(SHAPE), ALL)
    with pytest.raises(GeometryError, match="lesion 1: voxels outside"):
        measure_lesion(lesion, axial_volume((5, 14, 40)))


def laid_out(solid_of, spacing_mm, reach_mm, phase):
    """Lay a solid into the middle of a volume, moved by a part of a voxel."""
    z, y, x = spacing_mm
    shape = tuple(int(2 * reach_mm / step) + 4 for step in spacing_mm)
    middle = [
        (size - 1) / 2 * step + part * step for size, step, part in zip(shape[::-1], (x, y, z), phase, strict=True)
    ]
    return solid_of(tuple(middle)), axial_volume(shape, spacing_mm)


def sized(solid: Solid, volume: CTVolume, mask):
    """Return the measures of the one lesion that a solid is, checked against its voxels."""
    lesions = link_lesions(detect((mask, 0.9)), volume, ALL)
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    apart = [index for index in found[:-1] if not (mask[index] & mask[index + 1]).any()]
    assert len(lesions) == 1 + len(apart)
    measured = measure_lesions(lesions, volume)
    z, y, x = volume.spacing_mm
    assert sum(item.voxel_count for item in measured) == mask.sum()
    assert sum(item.volume_ml for item in measured) == pytest.approx(mask.sum() * z * y * x / 1000, rel=1e-12)
    return measured[0]


@pytest.mark.parametrize("axis", OBLIQUE)
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_ellipsoids_have_their_analytic_volume_and_extent(spacing_mm, axis):
    # 8.5 slices high in every direction, and 16 pixels wide where slices are thin.
    least = max(8.5 * spacing_mm[0], 16.5 * spacing_mm[1]) / 2
    solid, volume = laid_out(
        lambda center: Ellipsoid(center, (1.4 * least, 1.1 * least, least), axis),
        spacing_mm,
        1.4 * least,
        (0.3, -0.2, 0.1),
    )
    found = sized(solid, volume, voxelise(solid, volume))
    assert found.slice_count >= 8
    assert found.short_axis_mm >= 16 * spacing_mm[1]
    assert found.volume_ml == pytest.approx(solid.volume_ml, rel=0.02)
    # Across the slices; in their plane the widest place may lie between two of them, up to 0.7 percent narrower.
    assert found.extent_lps_mm[2] == pytest.approx(solid.extent_mm[2], abs=spacing_mm[0] * 1.0001)
    for measured, true in zip(found.extent_lps_mm[:2], solid.extent_mm[:2], strict=True):
        assert abs(measured - true) <= spacing_mm[1] * 1.0001 + 0.01 * true
    assert found.centroid_lps_mm == pytest.approx(solid.center, abs=0.1 * max(spacing_mm))


@pytest.mark.parametrize("axis", OBLIQUE)
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_tubes_are_one_lesion_of_their_analytic_volume(spacing_mm, axis):
    along = np.array(axis) / np.linalg.norm(axis)
    radius = max(8.25 * spacing_mm[1], 5.0, 0.7 * spacing_mm[0])
    half = max(3 * radius, 4.5 * spacing_mm[0] / abs(along[2]))
    solid, volume = laid_out(
        lambda center: Tube(tuple(center - half * along), tuple(center + half * along), radius),
        spacing_mm,
        half + radius,
        (0.3, -0.2, 0.1),
    )
    found = sized(solid, volume, voxelise(solid, volume))
    assert found.slice_count >= 8
    assert found.volume_ml == pytest.approx(solid.volume_ml, rel=0.02)


@pytest.mark.parametrize("degrees", [12.0, -20.0])
def test_a_tilted_gantry_keeps_volume_place_and_extent(degrees):
    volume = volume_in(tilted_affine((2.5, 0.7, 0.7), degrees), (26, 110, 70))
    z, y, x = volume.spacing_mm
    middle = volume.affine_lps @ (34.2, 54.6, 12.3, 1.0)
    solid = Ellipsoid(tuple(middle[:3].tolist()), (20.0, 14.0, 16.0), (0.5, 1.0, 0.6))
    found = sized(solid, volume, voxelise(solid, volume))
    assert (z, y, x) == pytest.approx((2.5, 0.7, 0.7))
    assert found.volume_ml == pytest.approx(solid.volume_ml, rel=0.02)
    assert found.centroid_lps_mm == pytest.approx(solid.center, abs=0.1)
    # A voxel reaches along each axis of the patient as far as its three edges together.
    voxel_mm = (x, y + z * abs(np.sin(np.deg2rad(degrees))), z + y * abs(np.sin(np.deg2rad(degrees))))
    assert (np.abs(np.subtract(found.extent_lps_mm, solid.extent_mm)) <= voxel_mm).all()


@pytest.mark.parametrize("seed", range(4))
def test_solids_anywhere_are_counted_and_measured_rightly(seed):
    rng = np.random.default_rng(seed)
    errors = []
    for z, y, x in SPACINGS:
        size = float(rng.uniform(6, 24))
        axis = tuple(rng.normal(0, 1, 3).tolist())
        solid, volume = laid_out(
            lambda center, s=size, a=axis: Ellipsoid(center, (1.5 * s, s, 0.8 * s), a),
            (z, y, x),
            1.5 * size,
            rng.uniform(-0.5, 0.5, 3),
        )
        mask = voxelise(solid, volume)
        found = sized(solid, volume, mask)
        if solid.extent_mm[2] >= 8 * z and found.short_axis_mm >= 16 * x:
            errors.append(abs(found.volume_ml / solid.volume_ml - 1))
    assert len(errors) >= 5
    assert max(errors) <= 0.02
