"""Phantom lesions in a CT: what is painted, what stays, and the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.phantom import INSERTED, InsertedCopy, LesionSpec, Range, RealLung, insert_lesions, prepare_lung
from lung_d2.phantom.insertion import air_share, costal_depth, local_parenchyma
from lung_d2.phantom.tubes import tube_distance
from phantom.plain_chest import build_chest, cut_slices

PURE = replace(INSERTED, distractors=0.0)
SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Passes noise with its standard deviation, and neither slopes nor curves (Immerkaer 1996)."""


@pytest.fixture(scope="module")
def lung() -> RealLung:
    return prepare_lung(build_chest())


@pytest.fixture(scope="module")
def copy(lung: RealLung) -> InsertedCopy:
    return insert_lesions(lung, 1, PURE)


def masks(copy: InsertedCopy) -> tuple[np.ndarray, np.ndarray]:
    return copy.instances[GROUND_GLASS_OPACITY.name] > 0, copy.instances[BRONCHIECTASIS.name] > 0


def check_untouched(lung: RealLung, copy: InsertedCopy) -> None:
    """Nothing changes beyond the halo of opacities and the blur of bronchi, nor outside the lungs."""
    opacity, _ = masks(copy)
    for index, (before, after) in enumerate(zip(lung.volume.hu, copy.hu, strict=True)):
        changed = (before != after).astype(np.uint8)
        far = cv2.distanceTransform((~opacity[index]).astype(np.uint8), cv2.DIST_L2, 5) > 5.5 / lung.pixel_mm
        plane = lung.plane(index)
        reach = lung.volume.spacing_mm[0] / 2 + 4 * lung.blur_mm + 2 * lung.pixel_mm
        for cluster in copy.drawing.bronchi:
            for tubes in (cluster.outer, cluster.artery):
                far &= tube_distance(tubes, plane, reach + 1.0) > reach
        assert not changed[far].any()
        outside = cv2.erode((lung.labels[index] == 0).astype(np.uint8), np.ones((9, 9))) > 0
        assert not changed[outside].any()


def check_noise(lung: RealLung, copy: InsertedCopy, tolerance: float) -> None:
    """Within ground glass, away from its edge and from bronchi, the noise is that of the CT."""
    before, after = _noise_in_haze(lung, copy)
    assert after.std() == pytest.approx(before.std(), rel=tolerance)
    assert np.corrcoef(before, after)[0, 1] > 0.8


def _noise_in_haze(lung: RealLung, copy: InsertedCopy) -> tuple[np.ndarray, np.ndarray]:
    before, after = [], []
    for one, other, opacity, bronchi in zip(lung.volume.hu, copy.hu, *masks(copy), strict=True):
        inner = cv2.erode(opacity.astype(np.uint8), np.ones((5, 5))) > 0
        inner &= cv2.dilate(bronchi.astype(np.uint8), np.ones((9, 9))) == 0
        for hu, rests in ((one, before), (other, after)):
            rests.append(cv2.filter2D(hu.astype(np.float32), -1, SECOND_DIFFERENCE)[inner])
    assert sum(map(len, before)) > 500
    return np.concatenate(before), np.concatenate(after)


def check_density(lung: RealLung, copy: InsertedCopy) -> None:
    """Ground glass is denser than the lung and lets vessels show; a lumen is darker than the wall around it."""
    opacity, bronchi = masks(copy)
    opacity &= np.stack([cv2.dilate(plane.astype(np.uint8), np.ones((7, 7))) == 0 for plane in bronchi])
    plain = opacity & (lung.volume.hu < -780)
    assert -720 < np.median(copy.hu[plain]) < -300
    assert np.median(copy.hu[plain]) > np.median(lung.volume.hu[plain]) + 100
    vessel = opacity & (lung.volume.hu > -50)
    # Blood of 45 HU would rise by 400 HU, were it treated as parenchyma.
    assert np.mean(copy.hu[vessel].astype(int) - lung.volume.hu[vessel]) < 40
    for cluster in copy.drawing.bronchi:
        lumen, wall = _lumen_and_wall(lung, copy, cluster)
        if lumen.size and wall.size:
            assert np.median(wall) > np.median(lumen) + 150


def _lumen_and_wall(lung: RealLung, copy: InsertedCopy, cluster) -> tuple[np.ndarray, np.ndarray]:
    index = int(np.argmin(np.abs(lung.axes[2] - cluster.center[2])))
    plane = lung.plane(index)
    outer, inner = (tube_distance(tubes, plane, 9.0) for tubes in (cluster.outer, cluster.lumen))
    wall = (outer < 0) & (inner > 0)
    return copy.hu[index][inner < -0.5 * lung.pixel_mm], copy.hu[index][wall]


def check_place(lung: RealLung, copy: InsertedCopy) -> None:
    opacity, bronchi = masks(copy)
    assert not ((opacity | bronchi) & (lung.labels == 0)).any()
    assert {one.category for one in copy.lesions} == {GROUND_GLASS_OPACITY.name, BRONCHIECTASIS.name}
    free = ~(opacity | bronchi).any(axis=(1, 2))
    assert free.sum() >= 0.1 * len(free)
    for one in copy.lesions:
        z = np.nonzero(copy.instances[one.category] == one.instance_id)[0]
        ml = len(z) * float(np.prod(lung.volume.spacing_mm)) / 1000
        assert one.volume_ml == pytest.approx(ml)
        assert one.slice_indices == tuple(np.unique(z).tolist())


@pytest.mark.parametrize("check", [check_untouched, check_density, check_place], ids=lambda one: one.__name__)
def test_copy_of_a_plain_chest(lung: RealLung, copy: InsertedCopy, check) -> None:
    check(lung, copy)


def test_noise_stays(lung: RealLung, copy: InsertedCopy) -> None:
    check_noise(lung, copy, 0.1)


def test_an_even_lung_gets_exactly_its_noise() -> None:
    """Without vessels, what is added is smooth: the rest is the CT's own noise, pixel by pixel."""
    lung = prepare_lung(build_chest(vessels=0))
    copy = insert_lesions(lung, 0, replace(PURE, bronchiectasis=LesionSpec((0, 0), Range(3, 4), Range(0, 1))))
    before, after = _noise_in_haze(lung, copy)
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_a_lung_without_visible_vessels_gets_bronchi_all_the_same() -> None:
    lung = prepare_lung(build_chest(vessels=0))
    copy = insert_lesions(lung, 0, PURE)
    assert any(one.category == BRONCHIECTASIS.name for one in copy.lesions)
    check_density(lung, copy)


def test_the_same_seed_gives_the_same_copy(lung: RealLung, copy: InsertedCopy) -> None:
    again = insert_lesions(lung, 1, PURE)
    assert np.array_equal(again.hu, copy.hu)
    assert again.lesions == copy.lesions


@pytest.mark.parametrize("other", [{"number": 2}, {"spec": replace(PURE, seed=1)}], ids=["number", "seed"])
def test_another_number_or_seed_gives_another_copy(lung: RealLung, copy: InsertedCopy, other: dict) -> None:
    assert not np.array_equal(insert_lesions(lung, **({"number": 1, "spec": PURE} | other)).hu, copy.hu)


def test_no_lesions_no_change(lung: RealLung) -> None:
    none = LesionSpec((0, 0), Range(5, 6), Range(0, 1))
    copy = insert_lesions(lung, 0, replace(PURE, ground_glass_opacity=none, bronchiectasis=none))
    assert np.array_equal(copy.hu, lung.volume.hu)
    assert copy.lesions == ()


def test_what_is_drawn_is_marked(lung: RealLung) -> None:
    """Whatever is too small to be marked is left out of the picture as well."""
    tiny = replace(PURE, ground_glass_opacity=LesionSpec((4, 4), Range(1.5, 2.5), Range(0, 1)))
    copy = insert_lesions(lung, 0, tiny)
    assert len(copy.lesions) == len(copy.drawing.opacities) + len(copy.drawing.bronchi)
    check_untouched(lung, copy)


def test_metal_beyond_12_bits_is_left_as_it_is(lung: RealLung) -> None:
    hu = lung.volume.hu.copy()
    hu[:, 0, 0], hu[:, 0, 1] = 9000, -2048
    copy = insert_lesions(replace(lung, volume=replace(lung.volume, hu=hu)), 1, PURE)
    assert (copy.hu[:, 0, 0] == 9000).all()
    assert (copy.hu[:, 0, 1] == -2048).all()


def test_copy_of_a_real_ct(data_root: Path) -> None:
    volume = read_volume(data_root / "ct_series" / "normal_case_2")
    lung = prepare_lung(cut_slices(volume, slice(35, 75)))
    copy = insert_lesions(lung, 1, PURE)
    check_untouched(lung, copy)
    check_noise(lung, copy, 0.15)
    check_density(lung, copy)
    check_place(lung, copy)


SHAPE = (120, 120)


def lung_with_vessel_and_airway() -> np.ndarray:
    """A lung that rises from -900 HU above to -820 below, a vessel of 40 HU, an airway of -990 HU."""
    image = np.broadcast_to(np.linspace(-900, -820, SHAPE[0], dtype=np.float32)[:, None], SHAPE).copy()
    image[50:60, 20:30] = 40.0
    image[50:60, 80:90] = -990.0
    return image


def test_parenchyma_is_estimated_without_vessels_and_airways() -> None:
    image = lung_with_vessel_and_airway()
    ground = local_parenchyma(image, np.ones(SHAPE, bool), -860.0, 1.0)
    assert ground[55, 25] == pytest.approx(-863, abs=6)
    assert ground[55, 85] == pytest.approx(-863, abs=6)
    assert ground[100, 60] - ground[20, 60] == pytest.approx(54, abs=6)


def test_parenchyma_of_nothing_is_the_median() -> None:
    ground = local_parenchyma(np.full(SHAPE, 40.0, np.float32), np.zeros(SHAPE, bool), -860.0, 1.0)
    assert (ground == -860.0).all()


def test_vessels_and_airways_have_no_share() -> None:
    image = lung_with_vessel_and_airway()
    ground = local_parenchyma(image, np.ones(SHAPE, bool), -860.0, 1.0)
    share = air_share(image, ground, 1.0)
    assert share[55, 25] == pytest.approx(0.0, abs=0.01)
    assert share[55, 85] == pytest.approx(0.0, abs=0.01)
    assert share[20, 60] > 0.98


def test_a_pixel_half_of_blood_is_filled_by_half() -> None:
    image = np.full(SHAPE, -860.0, np.float32)
    image[40:80, 40:80] = -410.0  # halfway between -860 and the blood's 42 HU, but for 1 HU
    share = air_share(image, np.full(SHAPE, -860.0, np.float32), 1.0)
    assert share[60, 60] == pytest.approx(0.5, abs=0.01)


def test_noise_of_parenchyma_changes_no_share_much() -> None:
    image = np.random.default_rng(0).normal(-860, 20, SHAPE).astype(np.float32)
    share = air_share(image, np.full(SHAPE, -860.0, np.float32), 0.75)
    assert share.min() > 0.93


def test_depth_counts_from_the_chest_wall_not_from_the_heart() -> None:
    lungs = np.zeros(SHAPE, bool)
    lungs[10:110, 10:50] = lungs[10:110, 70:110] = True
    depth = costal_depth(lungs, 2.0)
    assert depth[60, 10] == pytest.approx(2.0, abs=0.2)
    assert depth[60, 49] == pytest.approx(80.0, abs=3)
    assert depth[5, 5] == 0.0
