"""All lesions as seen from the front: true in mm, the patient's right on the left, whatever the grid."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from findings.findings_samples import SHAPE, Lungs, find, sample_lungs, sample_volume
from lesions.solids import Ellipsoid, Tube, block, tilted_affine, volume_in, voxelise
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.findings.coronal import LONGER_PX, draw_coronal
from lung_d2.lesions import LinkSettings

Picture = npt.NDArray[np.uint8]
MARGIN = 30
NO_LIMITS = LinkSettings(min_volume_mm3=0)
DOT = Ellipsoid((60.0, 45.0, 130.0), (9.0, 9.0, 9.0))
"""In a cube of 0..160 mm: left of the middle, towards the head."""


def hue(picture: Picture, name: str) -> npt.NDArray[np.bool_]:
    """Return where the colour of ground glass or bronchiectasis is."""
    red, _, blue = (picture[..., channel].astype(int) for channel in range(3))
    return red - blue > 40 if name == GROUND_GLASS_OPACITY.name else blue - red > 40


def spot(picture: Picture) -> tuple[float, float, float, float]:
    """Return the share of the width and height where the middle of the ground glass lies, and its size in pixels."""
    rows, columns = np.nonzero(hue(picture, GROUND_GLASS_OPACITY.name))
    height, width = (picture.shape[0] - 3 * MARGIN, picture.shape[1] - 2 * MARGIN)
    x, y = (columns.min() + columns.max() + 1) / 2 - MARGIN, (rows.min() + rows.max() + 1) / 2 - MARGIN
    return x / width, y / height, float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)


def cube(order: tuple[int, int, int], flips: tuple[int, int, int], spacing_mm: float = 4.0) -> npt.NDArray[np.float64]:
    """Return an affine whose axes x, y, z of the array lie along these axes of the patient; it fills 0..160 mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[axis, index] = -spacing_mm if flip else spacing_mm
        affine[axis, 3] = 160 - spacing_mm / 2 if flip else spacing_mm / 2
    return affine


ORDERS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((0, 1), repeat=3)
    if np.linalg.det(cube(order, flips)) > 0  # slices ascend along their normal
]


def draw_dot(affine: npt.NDArray[np.float64], shape: tuple[int, int, int] = (40, 40, 40), **changed: Any) -> Picture:
    volume = replace(volume_in(affine, shape), **changed)
    mask = voxelise(DOT, volume)
    assert mask.any()
    found = find((mask, 0.9), volume=volume, link=NO_LIMITS)
    return draw_coronal(volume, found.lesions)


@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_place_and_size_are_the_same_for_every_order_of_axes(order: Any, flips: Any) -> None:
    x, y, width, height = spot(draw_dot(cube(order, flips)))
    assert (x, y) == pytest.approx((60 / 160, 30 / 160), abs=0.015)
    pixels_per_mm = LONGER_PX / 160
    assert (width, height) == pytest.approx((18 * pixels_per_mm,) * 2, abs=2 * pixels_per_mm + 2)


def test_there_are_as_many_orders_as_a_cube_has() -> None:
    assert len(ORDERS) == 24


@pytest.mark.parametrize("spacing_mm", [(10.0, 1.0, 1.0), (2.0, 2.0, 4.0), (1.0, 4.0, 4.0)])
def test_picture_is_true_in_mm_whatever_the_spacing(spacing_mm: tuple[float, float, float]) -> None:
    z, y, x = spacing_mm
    affine = np.diag([x, y, z, 1.0])
    affine[:3, 3] = x / 2, y / 2, z / 2
    left, top, width, height = spot(draw_dot(affine, (round(160 / z), round(160 / y), round(160 / x))))
    assert (left, top) == pytest.approx((60 / 160, 30 / 160), abs=0.02)
    assert width / height == pytest.approx(1, abs=(z + x) / 18)


def test_tilted_gantry_moves_nothing_sideways() -> None:
    volume = volume_in(tilted_affine((4.0, 2.0, 2.0), 12.0), (30, 60, 60))
    found = find((voxelise(Ellipsoid((30.0, 60.0, 60.0), (9.0, 9.0, 9.0)), volume), 0.9), volume=volume, link=NO_LIMITS)
    picture = draw_coronal(volume, found.lesions)
    assert spot(picture)[0] == pytest.approx(31 / 120, abs=0.02)
    # 30 slices of 4 mm along their normal take 122.7 mm of the table, and their rows 24.7 mm of height.
    assert (picture.shape[0] - 3 * MARGIN) / (picture.shape[1] - 2 * MARGIN) == pytest.approx(122.7 / 120, abs=0.01)


def test_rotation_about_the_line_of_sight_is_seen() -> None:
    turn = np.deg2rad(30)
    affine = cube((0, 1, 2), (0, 0, 0))
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    affine[:3] = rotation @ affine[:3]
    volume = volume_in(affine, (40, 40, 40))
    rod = Tube((60.0, 80.0, 20.0), (140.0, 80.0, 20.0), 8.0)  # lies level in space, not in the array
    found = find((voxelise(rod, volume), 0.9), volume=volume, link=NO_LIMITS)
    *_, width, height = spot(draw_coronal(volume, found.lesions))
    assert height / width == pytest.approx(16 / 96, abs=0.06)


def test_uneven_slices_lie_where_they_are() -> None:
    affine = cube((0, 1, 2), (0, 0, 0))
    positions = np.r_[np.arange(20) * 2.0, 38 + np.arange(1, 21) * 6.0]
    mask = block((40, 40, 40), slice(30, 31), slice(10, 20), slice(10, 20))
    volume = volume_in(affine, (40, 40, 40), positions.tolist())
    found = find((mask, 0.9), volume=volume, link=NO_LIMITS)
    _, y, *_ = spot(draw_coronal(volume, found.lesions))
    assert 1 - y == pytest.approx((positions[30] + 2) / (positions[-1] + 4), abs=0.03)


def test_categories_have_their_colours_and_the_small_lies_on_the_large() -> None:
    large = block(SHAPE, slice(4, 16), slice(10, 50), slice(10, 60))
    small = block(SHAPE, slice(8, 12), slice(20, 30), slice(12, 20))
    found = find((large, 0.9), (small, 0.8, BRONCHIECTASIS))
    picture = draw_coronal(found.volume, found.lesions)
    assert hue(picture, "bronchiectasis").sum() > 300  # of 700, less its number
    assert hue(picture, "ground_glass_opacity").sum() > 5000


def test_lungs_are_outlined_where_known() -> None:
    volume = sample_volume()
    bare, lungs = draw_coronal(volume, ()), draw_coronal(volume, (), sample_lungs())
    assert bare.shape == lungs.shape
    assert 500 < (bare != lungs).any(axis=-1).sum() < 5000
    assert np.array_equal(bare, draw_coronal(volume, (), Lungs(np.zeros(SHAPE, np.uint8))))


def test_denser_body_is_brighter() -> None:
    volume = sample_volume()
    hu = volume.hu.copy()
    hu[:, :, 60:] = 0
    picture = draw_coronal(replace(volume, hu=hu), ())
    middle = picture[(picture.shape[0] - MARGIN) // 2 + 20, MARGIN:-MARGIN, 0].astype(int)
    assert middle[-20] > middle[20] + 50


def test_nothing_is_seen_beyond_the_scan() -> None:
    turn = np.deg2rad(30)
    affine = cube((0, 1, 2), (0, 0, 0))
    affine[:3] = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]) @ affine[:3]
    picture = draw_coronal(volume_in(affine, (40, 40, 40), hu=0), ())
    assert picture[MARGIN + 20, MARGIN + 20].tolist() == [0, 0, 0]
    assert picture[MARGIN + 320, MARGIN + 320].min() > 100


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 8, 200), (200, 4, 4)])
def test_odd_shapes_are_drawn(shape: tuple[int, int, int]) -> None:
    volume = volume_in(np.diag([1.0, 1.0, 5.0, 1.0]), shape)
    mask = np.zeros(shape, bool)
    mask[-1, :3, :3] = True
    found = find((mask, 0.9), volume=volume, link=NO_LIMITS)
    picture = draw_coronal(volume, found.lesions)
    assert max(picture.shape) <= LONGER_PX + 3 * MARGIN
    assert hue(picture, "ground_glass_opacity").any()


def test_lesions_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(
        "lung_d2.findings.coronal.draw_text", lambda pen, place, text, *rest: texts.append(text) or (*place, 0, 0)
    )
    found = find(
        (block(SHAPE, slice(4, 8), slice(10, 30), slice(8, 28)), 0.9),
        (block(SHAPE, slice(12, 16), slice(10, 30), slice(50, 70)), 0.9),
    )
    draw_coronal(found.volume, found.lesions)
    assert texts == ["R", "L", "H", "F", "research use only", "1", "2"]
