from __future__ import annotations

import cv2
import numpy as np
import pytest

from lung_d2.data.augment.cutouts import estimate_lung
from lung_d2.data.augment.drawn.bronchi import Bronchus, _mask_of, _paint, draw_cluster
from lung_d2.data.augment.drawn.canvas import AIR_LEVEL, Canvas, Discs
from lung_d2.data.augment.drawn.confounders import DRAWERS
from lung_d2.data.augment.drawn.lesions import BRONCHI, DrawnLesions
from lung_d2.data.augment.drawn.opacities import COLLAPSE_MM
from lung_d2.masks import decode_mask
from records import draw_chest

PIXEL_MM = 1.4
ALL = DrawnLesions(bronchi=1.0, opacities=1.0, confounders=1.0)


def chest(grey=False, size=256):
    """Return a chest of 256 px: int16 HU, or the same as 8-bit grey levels."""
    small, _ = draw_chest(seed=3)
    plane = np.kron(small, np.ones((size // small.shape[0],) * 2)).astype(np.int16)
    noise = np.random.default_rng(0).normal(0, 12, plane.shape)
    plane = np.rint(plane + noise).astype(np.int16)
    return np.clip((plane + 1000) // 6, 0, 255).astype(np.uint8) if grey else plane


def canvas_of(plane, seed=0):
    return Canvas.of(plane, np.zeros(plane.shape, bool), PIXEL_MM, np.random.default_rng(seed))


def draw(plane, seed=0, lesions=ALL):
    np.random.seed(seed)
    record = {"annotations": [], "pixel_spacing_mm": [PIXEL_MM, PIXEL_MM]}
    (drawn,) = lesions(record, [plane])
    return drawn, record["annotations"]


@pytest.mark.parametrize("grey", [False, True])
def test_a_slice_on_which_nothing_is_drawn_comes_back_bit_for_bit(grey):
    plane = chest(grey)
    assert np.array_equal(canvas_of(plane).to_plane(), plane)


@pytest.mark.parametrize("grey", [False, True])
def test_what_is_drawn_lies_in_the_lung_or_a_collapsed_part_beside_it_in_hu_and_in_grey_levels(grey):
    plane = chest(grey)
    lung = estimate_lung(plane, np.zeros(plane.shape, bool))
    near = cv2.distanceTransform((~lung).astype(np.uint8), cv2.DIST_L2, 5) * PIXEL_MM <= COLLAPSE_MM[1] + PIXEL_MM
    found = []
    for seed in range(8):
        drawn, annotations = draw(plane, seed)
        assert drawn.dtype == plane.dtype
        found += annotations
    masks = [decode_mask(one["segmentation"]) for one in found]
    assert {one["category_id"] for one in found} == {0, 1}
    assert all(mask.any() for mask in masks)
    rings = [mask for mask, one in zip(masks, found, strict=True) if one["category_id"] == BRONCHI]
    assert not any((mask & ~near).any() for mask in rings)


def test_the_seed_decides_everything():
    plane = chest()
    first, second, other = draw(plane, 5), draw(plane, 5), draw(plane, 6)
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1]
    assert not np.array_equal(first[0], other[0])


def test_neighbouring_slices_get_the_same_lesions():
    plane = chest()
    np.random.seed(1)
    record = {"annotations": [], "pixel_spacing_mm": [PIXEL_MM, PIXEL_MM]}
    before, middle, after = ALL(record, [plane, plane, plane])
    assert np.array_equal(before, middle)
    assert np.array_equal(after, middle)


def test_the_mask_of_a_ring_is_its_wall_and_its_lumen():
    canvas = canvas_of(chest())
    row, column = (int(one) for one in canvas.draw_place(12.0))
    outer = Discs(np.array([[row, column]], float), np.array([6.0]))
    ring = Bronchus(outer, outer.moved(add=-2.0), AIR_LEVEL, 1.0, np.zeros(2), 0.0)
    rows, columns = np.mgrid[:256, :256]
    assert np.array_equal(_mask_of(canvas, ring), np.hypot(rows - row, columns - column) < 6.0)
    assert _paint(canvas, ring)
    assert canvas.structure[row, column] < 0.1
    assert canvas.structure[row, column + 5] > 0.4


def test_what_nobody_could_see_is_not_drawn():
    canvas = canvas_of(chest())
    row, column = (int(one) for one in canvas.draw_place(12.0))
    outer = Discs(np.array([[row, column]], float), np.array([6.0]))
    before = canvas.structure.copy()
    faint = Bronchus(outer, outer.moved(add=-0.5), AIR_LEVEL, 0.05, np.zeros(2), 0.0)
    assert not _paint(canvas, faint)
    assert np.array_equal(canvas.structure, before)


def test_bronchi_keep_off_what_is_taken():
    canvas = canvas_of(chest())
    assert draw_cluster(canvas, np.ones(canvas.shape, bool)) == []


@pytest.mark.parametrize("name", sorted(DRAWERS))
def test_a_confounder_changes_the_lung_and_marks_nothing(name):
    plane = chest()
    lung = estimate_lung(plane, np.zeros(plane.shape, bool))
    changed = 0
    for seed in range(6):
        canvas = canvas_of(plane, seed)
        assert DRAWERS[name][0](canvas) is None
        changed += np.count_nonzero((canvas.to_plane() != plane) & lung)
    assert changed


def test_a_slice_without_lung_stays_as_it_is():
    plane = np.full((64, 64), 40, np.int16)
    drawn, annotations = draw(plane)
    assert drawn is plane
    assert annotations == []
