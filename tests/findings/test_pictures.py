"""Key slices of lesions, and overlays of detections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from findings.findings_samples import Lungs, find
from lesions.solids import axial_volume, block
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.drawing import marks
from lung_d2.findings import pictures
from lung_d2.findings.document import Findings
from lung_d2.findings.pictures import TILE_PX, KeySlicePainter, draw_overlay
from lung_d2.lesions import LinkSettings, SliceDetections
from lung_d2.masks import encode_mask
from tiny import ring, square

SHAPE = (6, 300, 300)
SPOT = block(SHAPE, slice(2, 4), slice(140, 160), slice(60, 80))
BIG = block(SHAPE, slice(2, 5), slice(30, 270), slice(30, 270))
GREY_OF_LUNG, GREY_OF_SPOT = 85, 170
SIDE = 100  # the picture is 8 times as large
FLAT = np.full((SIDE, SIDE), -600, np.int16)  # 128 in the lung window


def picture_of(*found: Any, spacing_mm: Any = (5.0, 1.0, 1.0), lungs: Any = None) -> tuple[dict[str, Any], Findings]:
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
    assert list(shown) == ["key slice", "key slice, outlined", "close-up", "close-up, outlined"]
    for tile in shown.values():
        assert (tile.shape, tile.dtype) == ((TILE_PX, TILE_PX, 3), np.uint8)
    assert orange(shown["key slice"]) == orange(shown["close-up"]) == 0
    assert 100 < orange(shown["key slice, outlined"]) < orange(shown["close-up, outlined"])


def test_large_lesion_needs_no_close_up() -> None:
    shown, _ = picture_of((BIG, 0.9))
    assert list(shown) == ["key slice", "key slice, outlined"]
    assert orange(shown["key slice, outlined"]) > 1000


@pytest.mark.parametrize("spacing_mm", [(5.0, 1.0, 1.0), (5.0, 0.5, 1.0), (5.0, 1.0, 0.4)])
def test_pictures_are_true_in_mm(spacing_mm: tuple[float, float, float]) -> None:
    shown, _ = picture_of((SPOT, 0.9), spacing_mm=spacing_mm)
    _, y, x = spacing_mm
    per_mm = TILE_PX / (300 * max(y, x))
    assert bright(shown["key slice"]) == pytest.approx((20 * x * per_mm, 20 * y * per_mm), abs=3)
    width, height = bright(shown["close-up"])
    assert width / height == pytest.approx(x / y, rel=0.05)
    assert max(width, height) == pytest.approx(20 * max(x, y) * TILE_PX / 60, rel=0.05)  # of 60 mm, the least


def test_slice_is_shown_from_its_edge_where_the_lesion_lies_there() -> None:
    corner = block(SHAPE, slice(2, 3), slice(0, 10), slice(290, 300))
    shown, _ = picture_of((corner, 0.9))
    assert shown["close-up"][200, 300].tolist() == [GREY_OF_LUNG] * 3
    assert shown["close-up"][60, TILE_PX - 30].tolist() == [GREY_OF_SPOT] * 3


def test_view_is_that_of_the_lungs_where_known() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 100:200, 50:150] = 1
    shown, _ = picture_of((SPOT, 0.9), lungs=Lungs(labels))
    per_mm = TILE_PX / 150  # 100 mm and 25 on both sides
    assert bright(shown["key slice"]) == pytest.approx((20 * per_mm,) * 2, abs=3)


def test_lesion_outside_the_view_of_the_lungs_has_a_close_up() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 220:240, 220:240] = 1
    shown, _ = picture_of((SPOT, 0.9), lungs=Lungs(labels))
    assert orange(shown["key slice, outlined"]) == 0
    assert orange(shown["close-up, outlined"]) > 100


def test_lungs_that_are_empty_hide_nothing() -> None:
    with_none, _ = picture_of((SPOT, 0.9))
    with_empty, _ = picture_of((SPOT, 0.9), lungs=Lungs(np.zeros(SHAPE, np.uint8)))
    assert np.array_equal(with_none["key slice"], with_empty["key slice"])


def test_other_lesions_of_the_slice_are_outlined_too() -> None:
    tube = block(SHAPE, slice(3, 4), slice(200, 220), slice(200, 220))
    alone, _ = picture_of((SPOT, 0.9))
    both, findings = picture_of((SPOT, 0.9), (tube, 0.8, BRONCHIECTASIS))
    assert findings.lesions[0].key_slice_index == 2  # the tube is on 3 alone
    assert np.array_equal(alone["key slice, outlined"], both["key slice, outlined"])
    beside, _ = picture_of((SPOT, 0.9), (np.roll(tube, -1, axis=0), 0.8, BRONCHIECTASIS))
    assert blue(beside["key slice, outlined"]) > 50
    assert blue(alone["key slice, outlined"]) == 0


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


def detect(*found):
    """Return detections of ``(category, mask)``, best first."""
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in (np.nonzero(mask) for _, mask in found)]
    return SliceDetections(
        slice_index=0,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.6, len(found), dtype=np.float32),
        category_ids=np.array([category.coco_id for category, _ in found], np.int64),
        masks=tuple(encode_mask(mask) for _, mask in found),
    )


NOTHING = detect()
MIDDLE = square(SIDE, 40, 40, 20)


def count(picture, color):
    return int((picture == color).all(axis=-1).sum())


@pytest.fixture
def texts(monkeypatch):
    """Note every text with its place."""
    drawn = {}
    real = marks.draw_text

    def draw_text(pen, place, text, *rest):
        drawn[text] = real(pen, place, text, *rest)
        return drawn[text]

    for module in (pictures, marks):
        monkeypatch.setattr(module, "draw_text", draw_text)
    return drawn


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 100), (800, 800)), ((512, 512), (1024, 1024)), ((768, 700), (768, 700)), ((256, 384), (512, 768))],
)
def test_small_slices_are_enlarged_by_a_whole_factor(shape, expected):
    picture = draw_overlay(np.full(shape, -600, np.int16), NOTHING)
    assert (picture.shape, picture.dtype) == ((*expected, 3), np.uint8)


def test_hu_are_shown_in_the_lung_window_and_grey_as_it_is(texts):
    assert draw_overlay(FLAT, NOTHING)[400, 400].tolist() == [128] * 3
    assert [text for text in texts if "W 1500" in text]
    texts.clear()
    assert draw_overlay(np.full((SIDE, SIDE), 77, np.uint8), NOTHING)[400, 400].tolist() == [77] * 3
    assert not [text for text in texts if "W 1500" in text]


def test_slice_is_not_changed():
    plane = FLAT.copy()
    draw_overlay(plane, detect((GROUND_GLASS_OPACITY, MIDDLE)))
    assert np.array_equal(plane, FLAT)


@pytest.mark.parametrize("category", [GROUND_GLASS_OPACITY, BRONCHIECTASIS], ids=lambda c: c.name)
def test_lesion_is_tinted_and_outlined_in_the_colour_of_its_category(category):
    picture = draw_overlay(FLAT, detect((category, MIDDLE)))
    tinted = np.rint(128 * 0.9 + np.array(category.color) * 0.1)
    assert picture[400, 400].tolist() == tinted.tolist()
    assert picture[320 - 8, 320 - 8].tolist() == [128] * 3  # outside, a source pixel away
    assert picture[400, 320].tolist() == list(category.color)


def test_hole_stays_open_and_is_outlined():
    picture = draw_overlay(FLAT, detect((BRONCHIECTASIS, ring(SIDE, 40, 40, 20, wall=6))))
    assert picture[400, 400].tolist() == [128] * 3
    assert count(picture[360:440, 360:440], BRONCHIECTASIS.color) > 100


def test_label_says_category_and_score(texts):
    draw_overlay(FLAT, detect((GROUND_GLASS_OPACITY, MIDDLE), (BRONCHIECTASIS, square(SIDE, 10, 70, 9))))
    assert {"GGO 0.90", "BE 0.60"} <= set(texts)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 92), (92, 0), (92, 92)])
def test_label_stays_in_the_picture(texts, top, left):
    draw_overlay(FLAT, detect((BRONCHIECTASIS, square(SIDE, top, left, 8))), caption="slice 1 (0-9)")
    x0, y0, x1, y1 = texts["BE 0.90"]
    assert min(x0, y0) >= 0
    assert max(x1, y1) <= 800


def test_labels_do_not_cover_each_other_or_the_caption(texts):
    lesions = [(GROUND_GLASS_OPACITY, square(SIDE, 3, left, 6)) for left in (1, 3)]
    draw_overlay(FLAT, detect(*lesions), caption="slice 1 (0-9)")
    places = [texts[text] for text in ("GGO 0.90", "GGO 0.60", "slice 1 (0-9)")]
    for number, one in enumerate(places):
        assert not any(marks.overlap(one, other) for other in places[number + 1 :])


@pytest.mark.parametrize(
    ("spacing", "length_mm"),
    [(0.8, 20), (0.9, 20), (2.5, 50), (0.1, 2)],  # the longest of 50, 20, 10, 5, 2, 1 mm within a quarter of the width
)
def test_scale_bar_is_as_long_as_it_says(texts, spacing, length_mm):
    picture = draw_overlay(FLAT, NOTHING, pixel_spacing_mm=(0.7, spacing))
    assert f"{length_mm} mm" in texts
    row = picture[800 - 14, 400:]  # the left half holds text
    white = np.flatnonzero((row == 255).all(axis=-1))
    expected = length_mm / (spacing / 8)  # the columns' spacing, in the enlarged picture
    assert white.max() - white.min() == pytest.approx(expected, abs=3)
    dark = np.flatnonzero((row != 128).any(axis=-1))
    assert dark.max() - dark.min() == pytest.approx(expected, abs=1)


def test_no_scale_bar_where_the_spacing_is_unknown(texts):
    draw_overlay(FLAT, NOTHING)
    assert not [text for text in texts if text.endswith("mm")]


def test_caption_and_sides_are_written(texts):
    draw_overlay(FLAT, NOTHING, caption="slice 3 (0-9), 12.5 mm", sides="RL")
    assert "slice 3 (0-9), 12.5 mm" in texts
    assert texts["R"][0] < 50
    assert texts["L"][0] > 750


def test_every_picture_says_what_it_is_not(texts):
    draw_overlay(FLAT, NOTHING)
    assert [text for text in texts if "research use only" in text]
