"""Outlines of masks: the pixels whose centre they surround are those of the mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lung_d2.findings.dicom_sr import MAX_POINTS, trace_outlines
from lung_d2.masks import fill_polygon


def drawn(outlines: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill outlines; the polygons count from the centre of the first pixel, not from its corner."""
    masks = [fill_polygon(outline[:-1] - 0.5, shape) for outline in outlines]
    return np.any(masks, axis=0)


def test_one_pixel_is_a_square_around_its_centre() -> None:
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    (outline,) = trace_outlines(mask)
    assert {tuple(point) for point in outline.tolist()} == {(3.0, 2.0), (4.0, 2.0), (4.0, 3.0), (3.0, 3.0)}
    assert np.array_equal(outline[0], outline[-1])


def test_outline_runs_along_the_edges_of_a_rectangle() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:7] = True
    (outline,) = trace_outlines(mask)
    assert outline.min(axis=0).tolist() == [2.0, 1.0]
    assert outline.max(axis=0).tolist() == [7.0, 4.0]
    assert len(outline) == 5


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_the_mask_back_without_its_holes(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), 1.0)
    mask = noise > 0.1
    filled = ndimage.binary_fill_holes(mask)
    assert (filled != mask).any()
    assert np.array_equal(drawn(trace_outlines(mask), mask.shape), filled)


def test_pixels_that_touch_at_a_corner_are_one_part() -> None:
    mask = np.eye(4, dtype=bool)
    outlines = trace_outlines(mask)
    assert len(outlines) == 1
    assert np.array_equal(drawn(outlines, mask.shape), mask)


def test_largest_part_comes_first() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[9, 9] = True
    mask[3:7, 3:7] = True
    outlines = trace_outlines(mask)
    assert [len(outlines), outlines[0].min(), outlines[0].max()] == [3, 3.0, 7.0]


def test_points_are_left_out_where_there_are_too_many() -> None:
    """A comb of 4,200 teeth has more corners than the field holds."""
    mask = np.zeros((5, 8400), bool)
    mask[2:] = True
    mask[1, ::2] = True
    (outline,) = trace_outlines(mask)
    assert len(outline) <= MAX_POINTS
    assert np.mean(drawn([outline], mask.shape)[2:]) > 0.999
