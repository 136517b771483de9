"""The lung field of a chest whose lungs are known, in every position, and of phantoms and real series."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lung_d2.ct import CTVolume, read_volume
from lung_d2.errors import GeometryError
from lung_d2.lungs import LungField, body_mask, find_lungs
from lung_d2.phantom import build_patient, preset_by_name

AIR, GAS, LUNG, SOFT, BONE = -1000, -990, -850, 40, 700
SHAPE, SPACING_MM = (24, 120, 160), (6.0, 2.5, 2.5)
Z, Y, X = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
MIDDLE = SHAPE[2] / 2
Hu = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]


def ball(center: tuple[float, float, float], half_axes_mm: tuple[float, float, float]) -> Bools:
    """Return an ellipsoid around a voxel (slice, row, column)."""
    parts = zip((Z, Y, X), center, half_axes_mm, SPACING_MM, strict=True)
    inside: Bools = sum(((axis - at) * mm / half) ** 2 for axis, at, half, mm in parts) <= 1
    return inside


RIGHT = ball((12, 58, MIDDLE - 30), (62, 85, 55))
LEFT = ball((12, 58, MIDDLE + 30), (62, 85, 55))
BODY = np.broadcast_to(((Y - 56) * 2.5 / 120) ** 2 + ((X - MIDDLE) * 2.5 / 170) ** 2 <= 1, SHAPE)
TRACHEA = np.broadcast_to(((Y - 52) * 2.5) ** 2 + ((X - MIDDLE) * 2.5) ** 2 <= 9**2, SHAPE)


def chest() -> Hu:
    """Return a chest: body, spine, two lungs, trachea between them, and a table below."""
    hu = np.full(SHAPE, AIR, np.int16)
    hu[BODY] = SOFT
    hu[np.broadcast_to(((Y - 88) * 2.5) ** 2 + ((X - MIDDLE) * 2.5) ** 2 <= 18**2, SHAPE)] = BONE
    hu[RIGHT | LEFT] = LUNG
    hu[TRACHEA] = GAS
    hu[:, 112:114] = 100
    return hu + np.random.default_rng(0).integers(-30, 31, SHAPE).astype(np.int16)


def volume_of(hu: Hu, affine_lps: npt.NDArray[np.float64] | None = None) -> CTVolume:
    affine = np.diag([*SPACING_MM[::-1], 1.0]) if affine_lps is None else affine_lps
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    count = len(hu)
    return CTVolume(
        hu=np.ascontiguousarray(hu),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        slice_positions_mm=spacing[0] * np.arange(count),
        affine_lps=affine,
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        sop_instance_uids=("",) * count,
        frame_numbers=(None,) * count,
        patient_hash="aa",
        series_hash="bb",
    )


def labels_of(hu: Hu) -> npt.NDArray[np.uint8]:
    return find_lungs(volume_of(hu)).labels


def share_in(found: Bools, truth: Bools) -> float:
    return float((found & truth).sum()) / float(truth.sum())


@pytest.fixture(scope="module")
def plain() -> LungField:
    return find_lungs(volume_of(chest()))


def test_both_lungs_are_found_and_told_apart(plain: LungField) -> None:
    for side, truth in ((1, RIGHT), (2, LEFT)):
        found = plain.labels == side
        assert share_in(found, truth) > 0.998
        assert share_in(truth, found) > 0.96


def test_trachea_air_around_the_body_and_table_are_left_out(plain: LungField) -> None:
    assert not plain.mask[TRACHEA].any()
    assert not plain.mask[~BODY].any()


def volumes_ml(field: LungField) -> tuple[float, float]:
    voxel_ml = float(np.prod(field.spacing_mm)) / 1000
    return float((field.labels == 1).sum() * voxel_ml), float((field.labels == 2).sum() * voxel_ml)


def test_volumes_and_areas_are_those_of_the_voxels(plain: LungField) -> None:
    right, left = volumes_ml(plain)
    expected_ml = 4 / 3 * np.pi * 62 * 85 * 55 / 1000
    assert right == pytest.approx(expected_ml, rel=0.04)
    assert left == pytest.approx(expected_ml, rel=0.04)
    assert not plain.mask[0].any()
    assert plain.mask[12].any()


def test_box_holds_the_lungs_with_a_margin_inside_the_picture() -> None:
    labels = np.zeros((3, 20, 30), np.uint8)
    labels[1, 5:9, 2:12] = 1
    field = LungField(labels, (5.0, 2.0, 1.0))
    assert field.box() == (slice(5, 9), slice(2, 12))
    assert field.box(4.0) == (slice(3, 11), slice(0, 16))
    assert LungField(np.zeros((1, 4, 4), np.uint8), (1.0, 1.0, 1.0)).box(9.0) == (slice(0, 0), slice(0, 0))


def test_labels_are_checked_and_cannot_be_written(plain: LungField) -> None:
    with pytest.raises(ValueError, match="read-only"):
        plain.labels[0, 0, 0] = 1
    with pytest.raises(GeometryError, match="uint8 of three"):
        LungField(np.full((2, 2, 2), 3, np.uint8), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)], ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_order_and_direction_of_the_axes_change_nothing(
    plain: LungField, order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    def turned(array: np.ndarray) -> np.ndarray:
        return array.transpose(order)[:: flips[0], :: flips[1], :: flips[2]]

    affine = np.eye(4)
    for axis, (of, flip) in enumerate(zip(order, flips, strict=True)):
        affine[:3, 2 - axis] = 0.0
        affine[2 - of, 2 - axis] = flip * SPACING_MM[of]
    found = find_lungs(volume_of(turned(chest()), affine))
    assert np.array_equal(found.labels, turned(plain.labels))


def test_oblique_volume_has_the_same_lungs(plain: LungField) -> None:
    angle = np.deg2rad(15)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert np.array_equal(find_lungs(volume_of(chest(), turn @ np.diag([2.5, 2.5, 6.0, 1.0]))).labels, plain.labels)


def test_ground_glass_at_the_pleura_is_kept() -> None:
    hu, lesion = chest(), ball((12, 58, 34), (20, 40, 25)) & RIGHT
    hu[lesion] = -350
    assert share_in(labels_of(hu) == 1, lesion) > 0.995


def test_dense_disease_at_the_chest_wall_is_kept() -> None:
    hu, lesion = chest(), ball((12, 58, 29), (20, 22, 18)) & RIGHT
    hu[lesion] = SOFT
    assert share_in(labels_of(hu) == 1, lesion) > 0.93


def test_vessel_nodule_and_bronchus_in_the_lung_are_kept() -> None:
    hu = chest()
    inside = ball((12, 50, 105), (30, 4, 4)) | ball((12, 70, 115), (14, 14, 14))
    hu[inside] = SOFT
    bronchus = ball((12, 58, 45), (40, 14, 14))
    hu[bronchus], hu[ball((12, 58, 45), (36, 10, 10))] = SOFT, GAS
    inside |= bronchus
    assert share_in(labels_of(hu) > 0, inside) == 1.0


def test_dome_of_the_diaphragm_is_left_out() -> None:
    hu, dome = chest(), ball((3, 58, MIDDLE - 30), (32, 40, 36)) & RIGHT
    hu[dome] = SOFT
    assert share_in(labels_of(hu) > 0, dome) < 0.15


def test_lungs_that_touch_are_parted() -> None:
    hu = chest()
    hu[4:20, 34:40, 72:88] = -700  # no tissue at the anterior junction
    labels = labels_of(hu)
    assert share_in(labels == 1, RIGHT) > 0.995
    assert share_in(labels == 2, LEFT) > 0.995


@pytest.mark.parametrize(("lost", "left"), [(RIGHT, 2), (LEFT, 1)])
def test_lung_without_air_leaves_the_other(lost: Bools, left: int) -> None:
    hu = chest()
    hu[lost] = SOFT
    assert set(np.unique(labels_of(hu))) == {0, left}


def test_picture_of_one_lung_alone_has_its_side() -> None:
    hu = chest()[:, :, :84]
    assert set(np.unique(labels_of(hu))) == {0, 1}


def test_main_bronchus_that_opens_into_the_lung_is_cut_from_it() -> None:
    hu, bronchus = chest(), np.zeros(SHAPE, bool)
    bronchus[11:13, 49:55, 68:82] = True
    hu[bronchus] = GAS
    hu[11:13, 50:53, 60:68] = GAS
    assert share_in(labels_of(hu) == 0, bronchus) > 0.75


def test_gas_in_the_stomach_is_left_out() -> None:
    hu = chest()
    stomach = ball((4, 40, MIDDLE + 30), (30, 30, 34))
    hu[ball((4, 40, MIDDLE + 30), (36, 36, 40))] = SOFT
    hu[stomach] = GAS
    assert share_in(labels_of(hu) > 0, stomach) < 0.01


@pytest.mark.parametrize("slices", [slice(12, 13), slice(6, 8), slice(10, 16)])
def test_few_slices_will_do(slices: slice) -> None:
    labels = labels_of(chest()[slices])
    for side, truth in ((1, RIGHT), (2, LEFT)):
        assert share_in(labels == side, truth[slices]) > 0.995


def test_noise_of_a_low_dose_changes_little(plain: LungField) -> None:
    noisy = chest() + np.random.default_rng(1).normal(0, 120, SHAPE)
    labels = labels_of(np.clip(noisy, -1024, 3000).astype(np.int16))
    assert share_in(labels == plain.labels, plain.mask) > 0.99


def test_volume_without_lungs_has_none() -> None:
    hu = chest()
    hu[RIGHT | LEFT] = SOFT
    hu[ball((12, 40, 60), (40, 12, 30))] = GAS
    assert not labels_of(hu).any()
    assert not labels_of(np.full((2, 32, 32), AIR, np.int16)).any()
    assert not labels_of(np.full((2, 32, 32), SOFT, np.int16)).any()


def test_stool_on_a_slice_of_the_abdomen_is_no_lung() -> None:
    hu = chest()
    hu[RIGHT | LEFT | TRACHEA] = SOFT
    stool = ball((12, 40, 60), (3, 30, 30))
    hu[stool] = np.where(np.random.default_rng(2).random(int(stool.sum())) < 0.8, -700, SOFT)
    assert not labels_of(hu[12:13]).any()


@pytest.mark.parametrize(("preset", "number"), [("mini", 0), ("quick", 2)])
def test_lesions_of_phantoms_are_kept(preset: str, number: int) -> None:
    patient = build_patient(preset_by_name(preset), number)
    lesions = np.any([instances > 0 for instances in patient.instances.values()], axis=0)
    assert share_in(find_lungs(patient.volume).mask, lesions) >= 0.99


def test_lesions_of_a_prone_phantom_on_the_fine_grid_are_kept() -> None:
    spec = replace(preset_by_name("benchmark"), slice_count=6, slice_spacing_mm=26.0, prone_share=1.0)
    patient = build_patient(spec, 0)
    field = find_lungs(patient.volume)
    lesions = np.any([instances > 0 for instances in patient.instances.values()], axis=0)
    assert share_in(field.mask, lesions) >= 0.995
    x_mm = patient.volume.affine_lps[0, 0] * np.arange(512) + patient.volume.affine_lps[0, 3]
    assert share_in(np.broadcast_to(x_mm < 0, field.labels.shape), field.labels == 1) > 0.98
    assert share_in(np.broadcast_to(x_mm > 0, field.labels.shape), field.labels == 2) > 0.98


def test_lungs_of_a_real_series_are_plausible(data_root) -> None:
    volume = read_volume(data_root / "ct_series" / "ggo_case")
    every_fourth = volume_of(volume.hu[::4], volume.affine_lps @ np.diag([1.0, 1.0, 4.0, 1.0]))
    field = find_lungs(every_fourth)
    right, left = volumes_ml(field)
    assert 2800 < right < 3600
    assert 2800 < left < 3600
    assert field.mask[[0, 15, 33]].any(axis=(1, 2)).all()
    assert not field.mask[35:].any()
    gas = (every_fourth.hu < -960) & field.mask  # trachea and stomach
    assert gas.sum() < 0.01 * field.mask.sum()


def pseudo_hu(grey: npt.NDArray[np.uint8]) -> Hu:
    """Map an enhanced 8-bit slice to what HU it may have had: dark to lung, bright to soft tissue, the skin closed."""
    body = body_mask(grey)
    inner, below_skin = (
        cv2.erode(body.astype(np.uint8), np.ones((size, size), np.uint8), borderValue=0) > 0 for size in (21, 13)
    )
    threshold = cv2.threshold(cv2.GaussianBlur(grey, (0, 0), 2), 0, 255, cv2.THRESH_OTSU)[0]
    dark, bright = (np.median(grey[inner & part]) for part in (grey <= threshold, grey > threshold))
    hu = np.interp(cv2.medianBlur(grey, 3), [dark - 60, dark, bright, 255], [-920, -850, 40, 400])
    hu[body & ~below_skin] = np.maximum(hu[body & ~below_skin], 0)
    hu[~body] = AIR
    return hu.astype(np.int16)


def test_box_of_enhanced_slices_holds_their_lesions(data_root) -> None:
    root = data_root / "covid_slices"
    kept = boxed = pixels = 0
    for path in sorted((root / "ct").glob("*.png"))[::60]:
        lesions = cv2.imread(str(root / "covid" / path.name), cv2.IMREAD_GRAYSCALE) > 127
        volume = volume_of(pseudo_hu(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))[None], np.diag([1.5, 1.5, 5.0, 1.0]))
        field = find_lungs(volume)
        pixels += int(lesions.sum())
        kept += int((lesions & field.mask[0]).sum())
        boxed += int(lesions[field.box(10.0)].sum())
    assert boxed > 0.999 * pixels
    assert kept > 0.95 * pixels  # dense disease as bright as the chest wall is lost where no lung lies around it
