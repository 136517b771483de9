"""A CT as a place for lesions: what is refused, where its lungs and vessels are, how sharp and noisy it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lung_d2.ct import read_volume
from lung_d2.errors import GeometryError, InputError
from lung_d2.phantom import prepare_lung
from lung_d2.phantom.real_lung import measure_blood_hu, measure_blur_mm, measure_noise_hu
from phantom.plain_chest import LUNG_HU, VESSEL_MM, build_chest, cut_slices


@pytest.fixture(scope="module")
def lung():
    return prepare_lung(build_chest())


def test_lungs_noise_and_vessels_are_found(lung) -> None:
    assert lung.lung_hu == pytest.approx(LUNG_HU, abs=5)
    assert lung.noise_hu == pytest.approx(15.0, rel=0.15)
    points = lung.vessels.points
    assert len(points) > 300
    paths = [lung.vessels.trace(point, 20.0) for point in points[::50]]
    radii = [path.radius_mm for path in paths if path]
    assert len(radii) > 5
    assert np.median(radii) == pytest.approx(VESSEL_MM, abs=0.8)


def test_depth_is_the_distance_from_the_pleura(lung) -> None:
    # The right lung is an ellipse of 60 x 88 mm around x = -76; the grid is 4 mm wide.
    assert lung.lungs.depth_at(np.array([-76.0, 0.0, 0.0])) == pytest.approx(60.0, abs=6)
    assert lung.lungs.depth_at(np.array([0.0, 0.0, 0.0])) == 0.0


def test_sides_are_the_patients(lung) -> None:
    assert [lung.side_of((x, 0.0, 0.0)) for x in (-40.0, 40.0)] == [1, 2]


def test_positions_of_a_prone_and_tilted_volume_are_lps() -> None:
    affine = np.array([[-1.5, 0, 0, 90.0], [0, -1.5, 0.8, 60.0], [0, 0, 2.3685, -30.0], [0, 0, 0, 1]])
    lung = prepare_lung(build_chest(affine_lps=affine))
    at = tuple(float(axis[index]) for axis, index in zip(lung.axes, (100, 80, 20), strict=True))
    assert lung.to_lps(at) == pytest.approx(tuple((affine @ (100, 80, 20, 1))[:3]))


@pytest.mark.parametrize(
    ("chest", "said"),
    [
        ({"spacing_mm": (8.0, 1.5, 1.5), "shape": (12, 168, 228)}, "8 mm apart"),
        ({"shape": (1, 168, 228)}, "1 slice"),
        ({"blood_hu": 350.0, "vessels": 24}, "contrast medium"),
        ({"lung_hu": -560.0}, "lungs of"),
        ({"lung_hu": 30.0}, "0 ml of lung"),
        ({"affine_lps": np.array([[1.5, 0, 0, 0], [0, 0, 2.5, 0], [0, -1.5, 0, 0], [0, 0, 0, 1.0]])}, "not axial"),
    ],
    ids=["thick", "one slice", "contrast", "dense", "no lungs", "coronal"],
)
def test_what_cannot_be_used_is_refused_in_one_line(chest: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        prepare_lung(build_chest(**chest))
    assert "\n" not in str(caught.value)
    assert "1.2.3" in str(caught.value)


def test_a_volume_without_a_uid_is_named_by_its_hash() -> None:
    with pytest.raises(GeometryError, match="6666"):
        prepare_lung(replace(build_chest(shape=(1, 168, 228)), series_instance_uid=""))


def test_a_real_ct_without_contrast_medium_is_taken(data_root: Path) -> None:
    volume = read_volume(data_root / "ct_series" / "normal_case_2")
    lung = prepare_lung(cut_slices(volume, slice(40, 70)))
    assert -900 < lung.lung_hu < -820
    assert 0.2 < lung.blur_mm < 0.9  # B41s, a kernel of middle sharpness
    assert len(lung.vessels.points) > 5_000


PIXEL_MM = 0.7


def lung_edge(sigma_mm: float, noise_hu: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a round lung of -870 HU in tissue of 40 HU, blurred, as three slices with labels."""
    fine = 4
    size = 160 * fine
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    labels = np.hypot(x, y) < 55 * fine
    image = np.where(labels, -870.0, 40.0).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), max(sigma_mm / PIXEL_MM * fine, 0.2))
    image = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0, noise_hu, (3, 160, 160))
    small = cv2.resize(labels.astype(np.uint8), (160, 160), interpolation=cv2.INTER_AREA)
    return np.rint(image + noise).astype(np.int16), np.stack([small] * 3)


@pytest.mark.parametrize("sigma_mm", [0.6, 0.9, 1.3])
def test_blur_of_the_edge_is_found(sigma_mm: float) -> None:
    hu, labels = lung_edge(sigma_mm, noise_hu=15.0)
    assert measure_blur_mm(hu, labels, PIXEL_MM) == pytest.approx(sigma_mm, rel=0.2)


def test_blur_grows_with_the_blur() -> None:
    found = [measure_blur_mm(*lung_edge(sigma), PIXEL_MM) for sigma in (0.1, 0.4, 0.8, 1.2)]
    assert found == sorted(found)
    assert found[0] < 0.25


@pytest.mark.parametrize("noise_hu", [8.0, 30.0])
def test_noise_is_found(noise_hu: float) -> None:
    hu, labels = lung_edge(0.6, noise_hu)
    assert measure_noise_hu(hu, labels) == pytest.approx(noise_hu, rel=0.1)


@pytest.mark.parametrize("blood_hu", [40, 300])
def test_blood_is_the_middle_of_the_large_vessels(blood_hu: int) -> None:
    hu, labels = lung_edge(0.6, 15.0)
    hu[:, 60:70, 60:70] = blood_hu  # 7 mm across, 1 percent of the lung
    assert measure_blood_hu(hu, labels, PIXEL_MM) == pytest.approx(blood_hu, abs=30)
