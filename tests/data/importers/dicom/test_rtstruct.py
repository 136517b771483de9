from __future__ import annotations

import logging
from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement

from ct.dicom_files import write, write_series
from data.importers.loading import found, load_case, refuse_case, union
from data.importers.rt_files import (
    border_contours,
    centre_contours,
    make_contour,
    make_structure_set,
    middle_contours,
    write_structures,
    write_truth_structures,
)
from data.importers.truth import GEOMETRIES, compare, make_truth, write_ct
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.importers.dicom.rtstruct import find_cases
from lung_d2.data.instances import VALUES
from lung_d2.errors import DatasetError, GeometryError, InputError, LungD2Error

GGO, BRONCHI = GROUND_GLASS_OPACITY.name, BRONCHIECTASIS.name
CONTOUR_DATA = 0x30060050
SPACING = np.array([0.75, 0.5])  # of the tiny series, x and y
load = partial(load_case, find_cases)


def refused(root, kind=InputError, *labels, **options):
    return refuse_case(find_cases, root, kind, *labels, **options)


def ring(*points, z=0.0, **options):
    """Return a contour of points (x, y) in pixels of the tiny series, slices of 6 x 5 that lie 2 mm apart."""
    flat = np.array(points, np.float64) * SPACING
    return make_contour(np.column_stack([flat, np.full(len(flat), z)]), **options)


def box(left, top, right, bottom, **options):
    return ring((left, top), (right, top), (right, bottom), (left, bottom), **options)


def tiny(root, *contours, name="GGO", **options):
    """Write the tiny series of 4 slices and a structure set of one ROI over it."""
    write_series(root / "ct")
    write_structures(root, {(1, name): contours}, **options)
    return root


def uid_of(root, number):
    return str(pydicom.dcmread(root / "ct" / f"{number:03d}.dcm").SOPInstanceUID)


# Round trips, by the conventions of the tools.


@pytest.mark.parametrize("draw", [border_contours, middle_contours])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_contours_between_pixels_keep_every_voxel(geometry, draw, tmp_path):
    truth = make_truth(geometry)
    write_truth_structures(truth, write_ct(truth, tmp_path / "ct"), tmp_path / "rt", draw)
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


@pytest.mark.parametrize("decimals", [2, 10])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_contours_through_pixel_centres_keep_the_pixels_that_they_run_through(geometry, decimals, tmp_path):
    truth = make_truth(geometry)
    images = write_ct(truth, tmp_path / "ct")
    write_truth_structures(truth, images, tmp_path / "rt", centre_contours, decimals)
    scores = compare(load(tmp_path), truth, tmp_path / "ct")
    assert min(scores.values()) >= 0.97, scores  # rt-utils drops specks of 1 and 2 pixels


def test_series_stored_in_reverse_gets_the_same_slices(tmp_path):
    truth = make_truth("oblique")
    images = write_ct(truth, tmp_path / "ct", reverse=True)
    write_truth_structures(truth, images, tmp_path / "rt", border_contours)
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


# What is inside.


def test_pixel_is_inside_where_its_centre_is(tmp_path):
    tiny(tmp_path, box(0.6, 1.4, 3.4, 3.6, z=2.0))  # wider than pixel 1 to 3, lower than row 2 to 3
    assert np.argwhere(union(load(tmp_path))).tolist() == [[1, y, x] for y in (2, 3) for x in (1, 2, 3)]


def test_slanted_contour_goes_by_centres_too(tmp_path):
    tiny(tmp_path, ring((-0.5, -0.5), (4.1, -0.5), (-0.5, 4.1)))  # x + y < 3.6
    assert np.argwhere(union(load(tmp_path))[0]).tolist() == [[y, x] for y in range(4) for x in range(4 - y)]


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contour_in_a_contour_is_a_hole(kind, tmp_path):
    tiny(tmp_path, box(-0.5, -0.5, 4.5, 5.5, kind=kind), box(0.5, 0.5, 3.5, 4.5, kind=kind), box(1.5, 1.5, 2.5, 2.5))
    mask = np.ones((6, 5), bool)
    mask[1:5, 1:4] = False
    mask[2, 2] = True
    assert np.array_equal(union(load(tmp_path))[0], mask)


def test_keyhole_leaves_the_hole_out(tmp_path):
    outer = [(-0.5, -0.5), (4.5, -0.5), (4.5, 5.5), (-0.5, 5.5), (-0.5, 2.0)]
    inner = [(1.5, 2.0), (1.5, 3.5), (2.5, 3.5), (2.5, 1.5), (1.5, 1.5), (1.5, 2.0)]
    tiny(tmp_path, ring(*outer, *inner, (-0.5, 2.0)))
    mask = np.ones((6, 5), bool)
    mask[2:4, 2] = False
    assert np.array_equal(union(load(tmp_path))[0], mask)


def test_ring_through_pixel_centres_keeps_both_its_rims(tmp_path):
    mask = np.ones((6, 5), bool)
    mask[2:4, 2:3] = False
    assert len(centre_contours(mask)) == 2
    tiny(tmp_path, *(ring(*points, decimals=3) for points in centre_contours(mask)))
    assert np.array_equal(union(load(tmp_path))[0], mask)


def test_the_same_contour_twice_is_one(tmp_path):
    tiny(tmp_path, box(0.5, 0.5, 2.5, 2.5), box(0.5, 0.5, 2.5, 2.5))
    assert union(load(tmp_path)).sum() == 4


def test_contour_beyond_the_slice_is_clipped_and_one_outside_is_refused(tmp_path):
    tiny(tmp_path, box(2.5, 3.5, 20.0, 30.0))
    assert np.argwhere(union(load(tmp_path))).tolist() == [[0, y, x] for y in (4, 5) for x in (3, 4)]
    write_structures(tmp_path, {(1, "GGO"): [box(5.0, 0.0, 9.0, 4.0)]})
    assert "rt.dcm ROI 1 contour 1: lies outside the slice" in refused(tmp_path, GeometryError)


def test_each_roi_is_a_lesion_on_request(tmp_path):
    write_series(tmp_path / "ct")
    boxes = [box(-0.5, -0.5, 0.5, 0.5), box(2.5, -0.5, 3.5, 0.5)], [box(0.5, -0.5, 1.5, 0.5)]
    write_structures(tmp_path, {(1, "ggo"): boxes[0], (2, "GGO"): boxes[1]})
    assert found(load(tmp_path, instances=VALUES))[0] == [(GGO, (0, 0), (0, 3)), (GGO, (0, 1))]
    assert found(load(tmp_path))[0] == [(GGO, (0, 0), (0, 1)), (GGO, (0, 3))]


# Where contours lie.


def test_contours_land_by_position_and_must_agree_with_the_image(tmp_path):
    write_series(tmp_path / "ct")
    write_structures(tmp_path, {(1, "GGO"): [box(0.5, 0.5, 1.5, 1.5, z=4.0, image=uid_of(tmp_path, 2))]})
    assert found(load(tmp_path)) == [[], [], [(GGO, (1, 1))], []]
    write_structures(tmp_path, {(1, "GGO"): [box(0.5, 0.5, 1.5, 1.5, z=4.0, image=uid_of(tmp_path, 0))]})
    message = refused(tmp_path, GeometryError)
    assert "ROI 1 contour 1: lies on slice 2 by its position, but names the image of slice 0" in message


def test_image_that_is_not_in_the_series_is_refused(tmp_path):
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5, image="1.2.3.99"))
    assert "names image 1.2.3.99, which is not in the series" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize(("z", "distance"), [(3.0, "1.00"), (2.5, "0.50"), (7.0, "1.00"), (-9.0, "9.00")])
def test_contour_off_the_slices_is_refused_with_its_distance(z, distance, tmp_path):
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5), box(0.5, 0.5, 1.5, 1.5, z=z))
    message = refused(tmp_path, GeometryError)
    assert f"ROI 1 contour 2: lies {distance} mm from slice" in message
    assert "expected in a slice, within 0.26 mm" in message


def test_contour_that_cuts_across_slices_is_refused(tmp_path):
    tiny(tmp_path, make_contour([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 6.0], [0.0, 0.0, 6.0]]))
    assert "it is 6.00 mm deep across the slices" in refused(tmp_path, GeometryError)


def test_rounded_positions_land(tmp_path):
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5, z=2.04))
    assert found(load(tmp_path))[1] == [(GGO, (1, 1))]


def test_tilted_series_takes_contours_by_its_true_positions(tmp_path):
    for k in range(4):
        write_series(tmp_path / f"{k}", count=1, names=["x"], ImagePositionPatient=[0.0, 0.6 * k, 2.0 * k])
    write_structures(tmp_path, {(1, "GGO"): [box(0.5, 0.5 + 3.6, 1.5, 1.5 + 3.6, z=6.0)]})  # 1.8 mm are 3.6 rows
    assert found(load(tmp_path)) == [[], [], [], [(GGO, (1, 1))]]


def test_slices_between_contours_stay_empty_and_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5, z=0.0), box(0.5, 0.5, 1.5, 1.5, z=6.0))
    assert found(load(tmp_path)) == [[(GGO, (1, 1))], [], [], [(GGO, (1, 1))]]
    assert "ROI 1: 2 slices between its contours have none" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        ring((1, 1), kind="POINT"),
        ring((1, 1), (3, 1), kind="OPEN_PLANAR"),
        ring((1, 1), (3, 1), (3, 3), kind="OPEN_NONPLANAR"),
        ring((1, 1)),
        ring((1, 1), (2, 1), (3, 1)),
    ],
)
def test_contours_without_an_area_are_left_out_and_counted(bad, tmp_path, caplog):
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5), bad, bad)
    assert union(load(tmp_path)).sum() == 1
    assert "left out contours: 2 " in caplog.text
    write_structures(tmp_path, {(1, "GGO"): [bad]})
    assert "ROI 1: no contour with an area among 1" in refused(tmp_path, DatasetError)


# What ROIs mean.


def test_rois_without_a_meaning_are_listed(tmp_path):
    write_series(tmp_path / "ct")
    lesion, organ = box(0.5, 0.5, 1.5, 1.5), ring((0, 0), kind="POINT")
    rois = {(7, "Bronchiectasis"): [lesion], (8, "Couch"): [organ], (9, "Body"): [organ], (10, "nothing drawn"): []}
    write_structures(tmp_path, rois)
    message = refused(tmp_path, DatasetError)
    assert "rt.dcm: 2 label(s) without a category: 'Couch', 'Body'" in message
    assert "--label 'Couch=ground_glass_opacity'" in message
    assert found(load(tmp_path, "*=background"))[0] == [(BRONCHI, (1, 1))]
    assert found(load(tmp_path, "*=background", "7=ground_glass_opacity"))[0] == [(GGO, (1, 1))]


def test_undecided_roi_spares_what_another_decides(tmp_path):
    write_series(tmp_path / "ct")
    rois = {(1, "unsure"): [box(-0.5, -0.5, 3.5, 0.5)], (2, "normal"): [box(1.5, -0.5, 3.5, 0.5)]}
    write_structures(tmp_path, rois | {(3, "GGO"): [box(-0.5, -0.5, 0.5, 0.5)]})
    first = load(tmp_path, "unsure=ignore", "normal=background")[0]
    assert np.argwhere(first.undecided).tolist() == [[0, 1]]


# Damage.


def raw(data, count=4):
    """Return a contour whose data are these bytes, as no writer of texts would let them through."""
    contour = box(0.5, 0.5, 1.5, 1.5, count=count)
    contour[CONTOUR_DATA] = DataElement(CONTOUR_DATA, "OB", data)  # in implicit VR it is bytes all the same
    return contour


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1\\2\\3\\4\\5\\6\\7\\8", "8 numbers as ContourData; expected three for each point"),
        (b"", "0 numbers as ContourData"),
        (b"1\\2\\0\\3\\nan\\0\\3\\5\\0\\1\\1\\0 ", "a coordinate that is not finite"),
        (b"1\\2\\0\\3\\1e999\\0\\3\\5\\0\\1\\1\\0 ", "a coordinate that is not finite"),
        (b"1\\2\\0\\3\\1e305\\0\\3\\5\\0\\1\\1\\0 ", "a coordinate that is not finite, or beyond 1,000,000,000"),
        (b"1\\2\\0\\PLANTED\\4\\0\\3\\5\\0\\1\\1\\0", "ContourData that are not numbers"),
        (b"1\\2\\0\\3\\4\\0\\3\\5\\0", "3 points; expected 4, as NumberOfContourPoints says"),
        (b"0\\" * (3 * 10**6 + 2) + b"0 ", "1000001 points; expected at most 1000000"),
    ],
)
def test_damaged_contour_is_refused_by_its_number(data, words, tmp_path):
    tiny(tmp_path, raw(data))
    assert f"rt.dcm ROI 1 contour 1: {words}" in refused(tmp_path)


def test_contour_of_a_million_points_is_read(tmp_path):
    corners = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 1.5], [0.5, 1.5]]) * SPACING
    text = "".join(f"{x:g}\\{y:g}\\0\\" * 250_000 for x, y in corners)[:-1]
    tiny(tmp_path, raw(text.encode(), count=10**6))
    assert found(load(tmp_path))[0] == [(GGO, (1, 1), (1, 2))]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"StructureSetROISequence": None}, "contours of ROI 1, which is not declared"),
        ({"StructureSetROISequence": []}, "contours of ROI 1, which is not declared"),
        ({"ROIContourSequence": None}, "1 ROIs and no contour"),
        ({"ROIContourSequence": []}, "1 ROIs and no contour"),
    ],
)
def test_missing_sequence_is_refused(tags, words, tmp_path):
    tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5), **tags)
    assert f"rt.dcm: {words}" in refused(tmp_path)


def test_roi_declared_twice_is_refused(tmp_path):
    write_series(tmp_path / "ct")
    dataset = make_structure_set({(1, "GGO"): [box(0.5, 0.5, 1.5, 1.5)]})
    dataset.StructureSetROISequence.append(dataset.StructureSetROISequence[0])
    write(dataset, tmp_path / "rt.dcm")
    assert "rt.dcm: ROI 1 twice" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_truncated_file_is_refused(share, tmp_path):
    path = tiny(tmp_path, box(0.5, 0.5, 1.5, 1.5)) / "rt.dcm"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "rt.dcm" in refused(tmp_path, LungD2Error)
