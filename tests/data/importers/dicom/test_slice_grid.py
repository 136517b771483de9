from __future__ import annotations

import numpy as np
import pytest

from ct.dicom_files import write_series
from lung_d2.ct import read_volume
from lung_d2.data.importers.dicom.annotation_objects import ImageReference
from lung_d2.data.importers.dicom.slice_grid import FramePlane, SliceGrid
from lung_d2.errors import GeometryError


@pytest.fixture
def grid(tmp_path):
    """Return the grid of 4 slices of 6 x 5 pixels of 0.5 x 0.75 mm at 0.0, 1.0, 1.95 and 3.0 mm."""
    for k, z in enumerate((0.0, 1.0, 1.95, 3.0)):
        where = {"ImagePositionPatient": [10.0, 20.0, z], "SOPInstanceUID": f"1.2.{k}"}
        write_series(tmp_path / f"{k}", count=1, names=["x"], **where)
    return SliceGrid.of(read_volume(tmp_path))


def plane(origin, across=(0.75, 0.0, 0.0), down=(0.0, 0.5, 0.0), shape=(6, 5)):
    return FramePlane(np.array(origin), np.array(across), np.array(down), shape)


def test_indices_go_by_the_true_positions_of_the_slices(grid):
    points = np.array([[10, 20, 0], [10.75, 21, 1.95], [10, 20, 0.5], [10, 20, -1], [10, 20, 5]])
    expected = [[0, 0, 0], [1, 2, 2], [0, 0, 0.5], [0, 0, -1], [0, 0, 5]]
    np.testing.assert_allclose(grid.indices_of(points), expected, atol=1e-9)


def test_tolerance_is_that_of_uneven_slices(grid):
    assert grid.spacing_mm == 1.0
    assert grid.slice_tolerance == pytest.approx(0.16)


def test_frame_lands_on_its_slice(grid):
    placement = grid.place(plane((11.5, 20.5, 2.0), shape=(2, 3)), "x")
    assert placement.slice_index == 2
    mask = np.array([[True, False, False], [False, False, True]])
    assert placement.voxels(mask).T.tolist() == [[2, 1, 2], [4, 2, 2]]


def test_frame_across_slices_has_none(grid):
    sagittal = plane((10.75, 20.0, 0.0), across=(0.0, 0.5, 0.0), down=(0.0, 0.0, 1.0), shape=(4, 6))
    placement = grid.place(sagittal, "x")
    assert placement.slice_index is None
    assert placement.voxels(np.eye(4, 6, dtype=bool)).T.tolist() == [[1, k, k] for k in range(4)]


@pytest.mark.parametrize("z", [0.5, 1.45, 3.4, -0.5])
def test_what_lies_off_the_slices_is_refused(grid, z):
    with pytest.raises(GeometryError, match=r"x: lies .* mm from slice"):
        grid.place(plane((10.0, 20.0, z)), "x")
    with pytest.raises(GeometryError, match=r"x: lies .* mm from slice"):
        grid.slice_at(grid.indices_of(np.array([[10.0, 20.0, z]] * 3))[:, 2], "x")


def test_images_are_looked_up_by_uid(grid):
    assert grid.slices_named([ImageReference("1.2.2"), ImageReference("1.2.7")], "x") == {2}
    assert grid.slices_named([], "x") == set()
    grid.check_images(2, [ImageReference("1.2.1"), ImageReference("1.2.2", 1)], "x")
    with pytest.raises(GeometryError, match=r"names image 1\.2\.7, which is not in the series"):
        grid.check_images(2, [ImageReference("1.2.7")], "x")
    with pytest.raises(GeometryError, match="lies on slice 0 by its position, but names the image of slice 2"):
        grid.check_images(0, [ImageReference("1.2.2")], "x")


@pytest.mark.parametrize("uids", [[], ["1.2.1", "1.2.2"]])
def test_frame_without_a_position_needs_one_image(grid, uids):
    assert grid.slice_named([ImageReference("1.2.1")], "x") == 1
    with pytest.raises(GeometryError, match=f"no position, and {len(uids)} slices that it names"):
        grid.slice_named([ImageReference(uid) for uid in uids], "x")
