"""Key slices: the right slice, true in mm, with outlines and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from findings.findings_samples import Lungs, find
from lesions.solids import axial_volume, block
from lung_d2.categories import BRONCHIECTASIS
from lung_d2.findings.document import Findings
from lung_d2.findings.pictures import TILE_PX, KeySlice, KeySlicePainter
from lung_d2.lesions import LinkSettings

SHAPE = (6, 300, 300)
SPOT = block(SHAPE, slice(2, 4), slice(140, 160), slice(60, 80))
BIG = block(SHAPE, slice(2, 5), slice(30, 270), slice(30, 270))
GREY_OF_LUNG, GREY_OF_SPOT = 85, 170


def picture_of(*found: Any, spacing_mm: Any = (5.0, 1.0, 1.0), lungs: Any = None) -> tuple[KeySlice, Findings]:
    """Return the key slice of the first lesion."""
    hu = np.full(SHAPE, -850, np.int16)  # 85 in the lung window
    for mask, *_ in found:
        hu[mask] = -350  # 170
    findings = find(*found, volume=axial_volume(SHAPE, spacing_mm, hu=hu), link=LinkSettings(min_volume_mm3=0))
    return KeySlicePainter(findings.volume, findings.lesions, lungs).paint(findings.lesions[0]), findings


def bright(tile: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Return the width and height of what is as bright as the spot, past the marks at the edges."""
    inner = tile[50 : TILE_PX - 60, 40 : TILE_PX - 40].astype(int)
    rows, columns = np.nonzero((np.abs(inner - GREY_OF_SPOT) < 20).all(axis=-1))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def orange(tile: npt.NDArray[np.uint8]) -> int:
    return int((tile[..., 0].astype(int) - tile[..., 2] > 60).sum())


def blue(tile: npt.NDArray[np.uint8]) -> int:
    return int((tile[..., 2].astype(int) - tile[..., 0] > 60).sum())


def test_small_lesion_is_shown_twice_and_closer_with_outlines_and_without() -> None:
    shown, _ = picture_of((SPOT, 0.9))
    assert shown.close_up is not None
    assert shown.close_up_outlined is not None
    for tile in (shown.plain, shown.outlined, shown.close_up, shown.close_up_outlined):
        assert (tile.shape, tile.dtype) == ((TILE_PX, TILE_PX, 3), np.uint8)
    assert orange(shown.plain) == orange(shown.close_up) == 0
    assert 100 < orange(shown.outlined) < orange(shown.close_up_outlined)


def test_large_lesion_needs_no_close_up() -> None:
    shown, _ = picture_of((BIG, 0.9))
    assert shown.close_up is shown.close_up_outlined is None
    assert orange(shown.outlined) > 1000


@pytest.mark.parametrize("spacing_mm", [(5.0, 1.0, 1.0), (5.0, 0.5, 1.0), (5.0, 1.0, 0.4)])
def test_pictures_are_true_in_mm(spacing_mm: tuple[float, float, float]) -> None:
    shown, _ = picture_of((SPOT, 0.9), spacing_mm=spacing_mm)
    _, y, x = spacing_mm
    per_mm = TILE_PX / (300 * max(y, x))
    assert bright(shown.plain) == pytest.approx((20 * x * per_mm, 20 * y * per_mm), abs=3)
    assert shown.close_up is not None
    width, height = bright(shown.close_up)
    assert width / height == pytest.approx(x / y, rel=0.05)
    assert max(width, height) == pytest.approx(20 * max(x, y) * TILE_PX / 60, rel=0.05)  # of 60 mm, the least


def test_slice_is_shown_from_its_edge_where_the_lesion_lies_there() -> None:
    corner = block(SHAPE, slice(2, 3), slice(0, 10), slice(290, 300))
    shown, _ = picture_of((corner, 0.9))
    assert shown.close_up is not None
    assert shown.close_up[200, 300].tolist() == [GREY_OF_LUNG] * 3
    assert shown.close_up[60, TILE_PX - 30].tolist() == [GREY_OF_SPOT] * 3


def test_view_is_that_of_the_lungs_where_known() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 100:200, 50:150] = 1
    shown, _ = picture_of((SPOT, 0.9), lungs=Lungs(labels))
    per_mm = TILE_PX / 150  # 100 mm and 25 on both sides
    assert bright(shown.plain) == pytest.approx((20 * per_mm,) * 2, abs=3)


def test_lesion_outside_the_view_of_the_lungs_has_a_close_up() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 220:240, 220:240] = 1
    shown, _ = picture_of((SPOT, 0.9), lungs=Lungs(labels))
    assert orange(shown.outlined) == 0
    assert shown.close_up_outlined is not None
    assert orange(shown.close_up_outlined) > 100


def test_lungs_that_are_empty_hide_nothing() -> None:
    with_none, _ = picture_of((SPOT, 0.9))
    with_empty, _ = picture_of((SPOT, 0.9), lungs=Lungs(np.zeros(SHAPE, np.uint8)))
    assert np.array_equal(with_none.plain, with_empty.plain)


def test_other_lesions_of_the_slice_are_outlined_too() -> None:
    tube = block(SHAPE, slice(3, 4), slice(200, 220), slice(200, 220))
    alone, _ = picture_of((SPOT, 0.9))
    both, findings = picture_of((SPOT, 0.9), (tube, 0.8, BRONCHIECTASIS))
    assert findings.lesions[0].key_slice_index == 2  # the tube is on 3 alone
    assert np.array_equal(alone.outlined, both.outlined)
    beside, _ = picture_of((SPOT, 0.9), (np.roll(tube, -1, axis=0), 0.8, BRONCHIECTASIS))
    assert blue(beside.outlined) > 50
    assert blue(alone.outlined) == 0


def test_marks_say_slice_window_sides_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: set[str] = set()
    for module in ("findings.pictures", "drawing.marks"):
        monkeypatch.setattr(
            f"lung_d2.{module}.draw_text", lambda pen, place, text, *rest: texts.add(text) or (0, 0, 0, 0)
        )
    _, findings = picture_of((SPOT, 0.9))
    assert texts == {"slice 2 (0-5), 10.0 mm", "C -600 W 1500", "R", "L", "50 mm", "10 mm", "1"}
    affine = findings.volume.affine_lps.copy()
    affine[:3, :2] *= -1
    texts.clear()
    volume = replace(findings.volume, affine_lps=affine)
    KeySlicePainter(volume, findings.lesions).paint(findings.lesions[0])
    assert {"R", "L"} <= texts
