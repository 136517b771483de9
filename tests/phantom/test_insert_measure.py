"""Sharpness, noise and contrast medium are measured as they were put in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lung_d2.phantom.insert_measure import measure_blood_hu, measure_blur_mm, measure_noise_hu

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
