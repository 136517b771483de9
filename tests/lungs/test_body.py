"""The body on one slice: alone, filled, and in every kind of picture."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lung_d2.lungs import body_mask

Plane = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]
SIZE = 256
AIR, FOAM, TISSUE, LUNG = -1000, -880, 40, -850


def ellipse(center: tuple[float, float], axes: tuple[float, float], size: int = SIZE) -> Mask:
    """Return a filled ellipse; centre and half axes as (row, column), in pixels of 256."""
    scale = size / SIZE
    rows, columns = np.ogrid[:size, :size]
    down, across = (rows + 0.5 - center[0] * scale) / axes[0], (columns + 0.5 - center[1] * scale) / axes[1]
    inside: Mask = down**2 + across**2 <= scale**2
    return inside


def chest(size: int = SIZE) -> tuple[Plane, Mask]:
    """Return a slice of a chest with two lungs, and its body."""
    body = ellipse((118, 128), (70, 105), size)
    plane = np.where(body, TISSUE, AIR).astype(np.int16)
    for column in (80, 176):
        plane[ellipse((118, column), (45, 35), size)] = LUNG
    return plane, body


def agreement(found: Mask, truth: Mask) -> float:
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


@pytest.mark.parametrize("size", [64, 256, 512, 700])
def test_body_is_found_with_its_lungs_filled_in(size: int) -> None:
    plane, body = chest(size)
    found = body_mask(plane)
    assert (found.shape, found.dtype) == ((size, size), np.bool_)
    assert agreement(found, body) > 0.98


def test_noise_changes_little() -> None:
    plane, body = chest()
    noise = np.random.default_rng(0).normal(0, 100, plane.shape)
    assert agreement(body_mask((plane + noise).astype(np.int16)), body) > 0.98


def test_table_of_foam_between_shells_is_left_out() -> None:
    plane, body = chest()
    plane[205:235, 10:246] = FOAM
    for rows in (slice(205, 207), slice(233, 235)):
        plane[rows, 10:246] = -100
    plane[205:235, 10:12] = plane[205:235, 244:246] = -100
    assert not body_mask(plane)[200:].any()
    assert agreement(body_mask(plane), body) > 0.98


def test_table_that_leaves_the_picture_is_left_out() -> None:
    plane, _ = chest()
    plane[205:] = FOAM
    plane[205:208] = -100
    assert not body_mask(plane)[200:].any()


def test_shell_that_touches_the_body_is_left_out() -> None:
    plane, body = chest()
    plane[187:190] = 100
    assert agreement(body_mask(plane), body) > 0.98


def test_blanket_and_tubes_are_left_out() -> None:
    plane, body = chest()
    plane[20:22, 30:220] = -50
    plane[ellipse((30, 40), (2, 2))] = 300
    assert not body_mask(plane)[:40].any()
    assert agreement(body_mask(plane), body) > 0.98


def test_arms_belong_to_the_body() -> None:
    plane, body = chest()
    arm = ellipse((120, 240), (14, 12))
    plane[arm] = TISSUE
    assert agreement(body_mask(plane), body | arm) > 0.98


def test_lung_that_the_field_of_view_cuts_open_belongs_to_the_body() -> None:
    plane, body = chest()
    cut = slice(None), slice(70, None)
    assert plane[118, 70] == LUNG
    assert agreement(body_mask(plane[cut]), body[cut]) > 0.98


def test_crop_inside_the_body_is_body_throughout() -> None:
    plane, _ = chest()
    assert body_mask(plane[90:150, 60:196]).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_air_alone_has_no_body(dtype: type) -> None:
    level = AIR if dtype is np.int16 else 0
    assert not body_mask(np.full((64, 64), level, dtype)).any()


def test_grey_levels_without_hu_will_do() -> None:
    plane, body = chest()
    grey = np.interp(plane, [-1000, 400], [10, 200]).astype(np.uint8)
    assert agreement(body_mask(grey), body) > 0.98


def test_chest_wall_of_dark_fat_holds_in_grey_levels() -> None:
    plane, body = chest()
    inner = ellipse((118, 128), (52, 80))
    plane[body & ~inner & (plane == TISSUE)] = -420  # as contrast enhancement shows fat beside bright muscle
    grey = np.interp(plane, [-1000, 400], [10, 200]).astype(np.uint8)
    assert agreement(body_mask(grey), body) > 0.97


def test_body_holds_the_lungs_of_real_slices(data_root) -> None:
    root = data_root / "covid_slices"
    with (root / "split.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)][::40]
    kept = pixels = 0
    for name in names:
        lungs = cv2.imread(str(root / "lungs" / name), cv2.IMREAD_GRAYSCALE) > 127
        body = body_mask(cv2.imread(str(root / "ct" / name), cv2.IMREAD_GRAYSCALE))
        kept, pixels = kept + int((body & lungs).sum()), pixels + int(lungs.sum())
    assert kept > 0.995 * pixels
