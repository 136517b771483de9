from __future__ import annotations

import numpy as np
import pytest

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.drawing import marks
from lung_d2.findings import overlay
from lung_d2.findings.pictures import draw_overlay
from lung_d2.lesions import SliceDetections
from lung_d2.masks import encode_mask
from tiny import ring, square

SIDE = 100  # the picture is 8 times as large
FLAT = np.full((SIDE, SIDE), -600, np.int16)  # 128 in the lung window


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

    for module in (overlay, marks):
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
    assert {"GGO 0.90", "Bronchiectasis 0.60"} <= set(texts)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 92), (92, 0), (92, 92)])
def test_label_stays_in_the_picture(texts, top, left):
    draw_overlay(FLAT, detect((BRONCHIECTASIS, square(SIDE, top, left, 8))), caption="slice 1 (0-9)")
    x0, y0, x1, y1 = texts["Bronchiectasis 0.90"]
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
