from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from ct.dicom_files import make_enhanced, write, write_series
from data.importers.dicom_seg_files import STUDY, make_frame, make_segment, write_seg, write_truth_seg
from data.importers.loading import found, load_case, refuse_case
from data.importers.truth import GEOMETRIES, compare, make_truth, write_ct
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.importers.dicom.dicom_seg import find_cases
from lung_d2.data.instances import VALUES
from lung_d2.errors import ConfigError, DatasetError, GeometryError, InputError

GGO, BRONCHI = GROUND_GLASS_OPACITY.name, BRONCHIECTASIS.name


load = partial(load_case, find_cases)


def pixels(*marked, frames=1, rows=6, columns=5, dtype=bool):
    """Return masks of the tiny series, slices of 6 x 5, with ``(frame, row, column[, value])`` set."""
    masks = np.zeros((frames, rows, columns), dtype)
    for frame, row, column, *value in marked:
        masks[frame, row, column] = value[0] if value else 1
    return masks


def at(z, segment=1, **options):
    """Return a frame on the slice at z (in mm) of the tiny series, whose slices are 2 mm apart."""
    return make_frame(segment, (0.0, 0.0, z), **options)


def tiny(root, masks, frames, *args, **options):
    """Write the tiny series of 4 slices and a SEG over it."""
    write_series(root / "ct")
    write_seg(root, masks, frames, *args, **options)
    return root


def uid_of(root, number):
    return str(pydicom.dcmread(root / "ct" / f"{number:03d}.dcm").SOPInstanceUID)


def refused(root, kind=InputError, *labels, **options):
    return refuse_case(find_cases, root, kind, *labels, **options)


# Round trips: written by highdicom.


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_round_trip_keeps_every_voxel(geometry, kind, tmp_path):
    truth = make_truth(geometry)
    write_truth_seg(truth, write_ct(truth, tmp_path / "ct", **STUDY), tmp_path / "seg" / "any name", kind)
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


def test_overlapping_segments_keep_all_their_voxels(tmp_path):
    truth = make_truth()
    both = np.maximum(*truth.instances.values())
    truth = replace(truth, instances=truth.instances | {GROUND_GLASS_OPACITY: both})
    assert (truth.mask(GROUND_GLASS_OPACITY) & truth.mask(BRONCHIECTASIS)).sum() > 100
    write_truth_seg(truth, write_ct(truth, tmp_path / "ct", **STUDY), tmp_path / "seg.dcm", "BINARY")
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


@pytest.mark.parametrize("geometry", ["axial", "oblique", "head down"])
def test_series_stored_in_reverse_gets_the_same_slices(geometry, tmp_path):
    truth = make_truth(geometry)
    images = write_ct(truth, tmp_path / "ct", reverse=True, **STUDY)
    backwards = replace(truth, instances={one: values[::-1] for one, values in truth.instances.items()})
    write_truth_seg(backwards, images[::-1], tmp_path / "seg.dcm", "BINARY")
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_compressed_frames_are_read(syntax, tmp_path):
    truth = make_truth()
    path = write_truth_seg(truth, write_ct(truth, tmp_path / "ct", **STUDY), tmp_path / "seg.dcm", "LABELMAP")
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert compare(load(tmp_path), truth, tmp_path / "ct") == {GGO: 1.0, BRONCHI: 1.0}


# Where frames lie: tiny ones by hand.


def test_fewer_frames_than_slices_land_by_their_positions_in_any_order(tmp_path):
    masks = pixels((0, 0, 4), (1, 5, 0), frames=2)
    assert found(load(tiny(tmp_path, masks, [at(6.0), at(2.0)]))) == [[], [(GGO, (5, 0))], [], [(GGO, (0, 4))]]


def test_bits_of_frames_may_share_a_byte(tmp_path):
    masks = np.random.default_rng(0).random((4, 6, 5)) < 0.5  # 30 bits each
    slices = load(tiny(tmp_path, masks, [at(2.0 * k) for k in range(4)]))
    for item, mask in zip(slices, masks, strict=True):
        assert np.array_equal(np.logical_or.reduce([one for _, one in item.instances]), mask)


def test_frame_without_a_position_lies_on_the_image_it_names(tmp_path):
    write_series(tmp_path / "ct")
    write_seg(tmp_path, pixels((0, 1, 2)), [make_frame(position=None, image=uid_of(tmp_path, 2))])
    assert found(load(tmp_path)) == [[], [], [(GGO, (1, 2))], []]


def test_frame_of_another_size_needs_a_position(tmp_path):
    write_series(tmp_path / "ct")
    masks = pixels((0, 1, 2), columns=8)
    write_seg(tmp_path, masks, [make_frame(position=None, image=uid_of(tmp_path, 2))])
    assert "seg.dcm frame 1: 6 x 8 pixels without a position; expected 6 x 5" in refused(tmp_path, GeometryError)


def test_frame_that_says_nothing_of_its_place_is_refused(tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [make_frame(position=None)])
    assert "frame 1: no position, and 0 slices that it names" in refused(tmp_path, GeometryError)


def test_position_and_image_must_agree(tmp_path):
    write_series(tmp_path / "ct")
    write_seg(tmp_path, pixels((0, 1, 2)), [at(2.0, image=uid_of(tmp_path, 1))])
    assert found(load(tmp_path))[1] == [(GGO, (1, 2))]
    write_seg(tmp_path, pixels((0, 1, 2)), [at(2.0, image=uid_of(tmp_path, 3))])
    message = refused(tmp_path, GeometryError)
    assert "frame 1: lies on slice 1 by its position, but names the image of slice 3" in message


def test_image_that_is_not_in_the_series_is_refused(tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [at(2.0, image="1.2.3.99")])
    assert "names image 1.2.3.99, which is not in the series" in refused(tmp_path, GeometryError)


def test_frames_of_a_multi_frame_series_are_told_by_their_numbers(tmp_path):
    stored = [np.full((6, 5), 500, np.uint16) for _ in range(3)]
    frames = make_enhanced(stored, (4.0, 0.0, 2.0), [(1, -1024)] * 3)  # slice 0 is frame 2
    write(frames, tmp_path / "ct" / "frames.dcm")
    named = {"image": str(frames.SOPInstanceUID)}
    write_seg(tmp_path, pixels((0, 1, 2)), [at(0.0, frame=2, **named)])
    assert found(load(tmp_path)) == [[(GGO, (1, 2))], [], []]
    write_seg(tmp_path, pixels((0, 1, 2)), [make_frame(position=None, frame=1, **named)])
    assert found(load(tmp_path)) == [[], [], [(GGO, (1, 2))]]
    write_seg(tmp_path, pixels((0, 1, 2)), [at(0.0, frame=1, **named)])
    assert "names the image of slice 2" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize(
    ("orientation", "origin"),
    [
        ((-1.0, 0, 0, 0, 1, 0), (3.0, 0.0, 2.0)),
        ((1.0, 0, 0, 0, -1, 0), (0.0, 2.5, 2.0)),
        ((-1.0, 0, 0, 0, -1, 0), (3.0, 2.5, 2.0)),
    ],
)
def test_frame_with_axes_the_other_way_round_lies_in_the_same_place(orientation, origin, tmp_path):
    mask = pixels((0, 1, 4), (0, 2, 0))[0]
    flipped = mask[:: int(orientation[4]), :: int(orientation[0])]
    tiny(tmp_path, flipped[None].copy(), [make_frame(position=origin)], orientation=orientation)
    assert found(load(tmp_path, instances=VALUES))[1] == [(GGO, (1, 4), (2, 0))]


def test_frame_whose_rows_are_columns_lies_in_the_same_place(tmp_path):
    masks = pixels((0, 1, 4), (0, 2, 0)).transpose(0, 2, 1).copy()
    tiny(tmp_path, masks, [at(2.0)], orientation=(0.0, 1, 0, 1, 0, 0), spacing=(0.75, 0.5))
    assert found(load(tmp_path, instances=VALUES))[1] == [(GGO, (1, 4), (2, 0))]


def test_cropped_frame_lies_where_it_was_cut(tmp_path):
    masks = pixels((0, 0, 1), rows=2, columns=3)
    tiny(tmp_path, masks, [make_frame(position=(1.5, 1.0, 4.0))])  # from row 2, column 2
    assert found(load(tmp_path)) == [[], [], [(GGO, (2, 3))], []]


def test_tiles_of_one_slice_are_joined(tmp_path):
    masks = pixels((0, 0, 2), (1, 0, 0), frames=2, rows=2, columns=3)
    tiny(tmp_path, masks, [at(4.0), make_frame(position=(1.5, 0.0, 4.0))])
    assert found(load(tmp_path)) == [[], [], [(GGO, (0, 2))], []]


def test_frames_across_the_slices_are_laid_into_them(tmp_path):
    """Sagittal frames: rows run to the feet's end of the series, columns to the back."""
    masks = pixels((0, 0, 1), (0, 3, 1), (1, 3, 1), frames=2, rows=4, columns=6)
    places = [make_frame(position=(0.75 * x, 0.0, 6.0)) for x in (2, 3)]
    tiny(tmp_path, masks, places, orientation=(0.0, 1, 0, 0, 0, -1), spacing=(2.0, 0.5))
    assert found(load(tmp_path)) == [[(GGO, (1, 2), (1, 3))], [], [], [(GGO, (1, 2))]]


@pytest.mark.parametrize(
    ("origin", "spacing"),
    [((0.0, 0.0, 2.0), (0.75, 0.75)), ((0.375, 0.0, 2.0), (0.5, 0.75)), ((0.0, 0.0, 2.0), (0.25, 0.375))],
)
def test_another_grid_is_refused_with_both_grids(origin, spacing, tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [make_frame(position=origin)], spacing=spacing)
    message = refused(tmp_path, GeometryError)
    assert (
        f"frame 1: a grid of 6 x 5 pixels of {spacing[0]:.3g} x {spacing[1]:.3g} mm from ({origin[0]:.1f}, " in message
    )
    assert (
        "expected that of the CT or a part of it, 4 x 6 x 5 voxels of 2 x 0.5 x 0.75 mm from (0.0, 0.0, 0.0)" in message
    )


def test_turned_grid_is_refused(tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [at(2.0)], orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))
    assert "along (0.80 0.60 0.00) (-0.60 0.80 0.00)" in refused(tmp_path, GeometryError)


def test_frame_between_two_slices_is_refused_with_its_distance(tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [at(3.0)])
    assert "frame 1: lies 1.00 mm from slice" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize("position", [(0.0, 0.0, 8.0), (-0.75 * 3, 0.0, 2.0), (0.0, -0.5 * 2, 2.0)])
def test_marked_pixels_outside_the_series_are_refused(position, tmp_path):
    frames = [make_frame(position=position)]
    tiny(tmp_path, pixels((0, 1, 2)), frames)
    assert "1 of 1 marked pixels outside the CT" in refused(tmp_path, GeometryError)
    write_seg(tmp_path, pixels(), frames)
    assert found(load(tmp_path)) == [[], [], [], []]


def test_tilted_series_takes_frames_by_its_true_positions(tmp_path):
    for k in range(4):
        tilted = {"ImagePositionPatient": [0.0, 0.6 * k, 2.0 * k]}
        write_series(tmp_path / f"{k}", count=1, names=["x"], **tilted)
    write_seg(tmp_path, pixels((0, 1, 2)), [make_frame(position=(0.0, 1.8, 6.0))])
    assert found(load(tmp_path)) == [[], [], [], [(GGO, (1, 2))]]
    write_seg(tmp_path, pixels((0, 1, 2)), [make_frame(position=(0.0, 0.0, 6.0))])
    assert "a grid of" in refused(tmp_path, GeometryError)


def test_rounded_positions_land(tmp_path):
    for k, z in enumerate((0.0, 0.6, 1.3, 1.9)):  # 0.625 mm apart
        write_series(tmp_path / f"{k}", count=1, names=["x"], ImagePositionPatient=[0.0, 0.0, z])
    write_seg(tmp_path, pixels((0, 1, 2), (1, 3, 3), frames=2), [at(0.625), at(1.3)])
    assert found(load(tmp_path)) == [[], [(GGO, (1, 2))], [(GGO, (3, 3))], []]


# What segments mean.


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (Code("112120", "DCM", "x"), GGO),
        (Code("12295008", "SCT", "x"), BRONCHI),
        (Code("19325002", "SCT", "x"), BRONCHI),
        (Code("GGO-7", "99MINE", "Ground-glass opacity"), GGO),
    ],
)
def test_code_says_the_category(code, name, tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [at(0.0)], [make_segment(1, "Segment 1", code)])
    assert found(load(tmp_path))[0] == [(name, (1, 2))]


def test_code_of_ours_comes_before_the_label_and_the_table_before_both(tmp_path):
    tiny(tmp_path, pixels((0, 1, 2)), [at(0.0)], [make_segment(1, "bronchiectasis", Code("112120", "DCM", "x"))])
    assert found(load(tmp_path))[0] == [(GGO, (1, 2))]
    assert found(load(tmp_path, "Bronchiectasis=background"))[0] == []
    assert found(load(tmp_path, "1=bronchiectasis"))[0] == [(BRONCHI, (1, 2))]


def test_table_is_for_labels_and_not_for_what_else_is_said(tmp_path):
    segments = [make_segment(1, "Mass", Code("39607008", "SCT", "Lung"))]
    segments[0].SegmentDescription = "GGO"
    tiny(tmp_path, pixels((0, 1, 2)), [at(0.0)], segments)
    assert found(load(tmp_path, "Lung=background", "*=background"))[0] == [(GGO, (1, 2))]
    assert found(load(tmp_path, "Mass=bronchiectasis"))[0] == [(BRONCHI, (1, 2))]


def test_segments_without_a_meaning_are_listed(tmp_path):
    segments = [make_segment(1), *(make_segment(number, f"Organ {number}") for number in range(2, 40))]
    tiny(tmp_path, pixels((0, 1, 2), (1, 3, 3), frames=2), [at(0.0), at(2.0, segment=39)], segments)
    message = refused(tmp_path, DatasetError)
    assert "seg.dcm: 38 label(s) without a category: 'Organ 2', 'Organ 3'" in message
    assert "--label '*=background'" in message
    assert found(load(tmp_path, "*=background")) == [[(GGO, (1, 2))], [], [], []]


def test_undecided_segment_spares_what_another_decides(tmp_path):
    segments = [make_segment(1), make_segment(2, "unsure"), make_segment(3, "normal")]
    masks = pixels((0, 1, 1), (1, 1, 1), (1, 1, 2), (1, 1, 3), (2, 1, 3), frames=3)
    tiny(tmp_path, masks, [at(0.0, 1), at(0.0, 2), at(0.0, 3)], segments)
    first = load(tmp_path, "unsure=ignore", "normal=background")[0]
    assert np.argwhere(first.undecided).tolist() == [[1, 2]]
    assert found([first]) == [[(GGO, (1, 1))]]


def test_each_segment_is_a_lesion_on_request(tmp_path):
    segments = [make_segment(1, "GGO"), make_segment(2, "GGO")]
    masks = pixels((0, 1, 1), (0, 4, 4), (1, 1, 2), frames=2)
    tiny(tmp_path, masks, [at(0.0, 1), at(0.0, 2)], segments)
    assert found(load(tmp_path, instances=VALUES))[0] == [(GGO, (1, 1), (4, 4)), (GGO, (1, 2))]
    assert found(load(tmp_path))[0] == [(GGO, (1, 1), (1, 2)), (GGO, (4, 4))]


def test_several_files_over_one_series_are_joined(tmp_path):
    write_series(tmp_path / "ct")
    write_seg(tmp_path / "a", pixels((0, 1, 1)), [at(0.0)])
    write_seg(tmp_path / "b", pixels((0, 3, 3)), [at(2.0)], [make_segment(1, "bronchiectasis")])
    assert found(load(tmp_path)) == [[(GGO, (1, 1))], [(BRONCHI, (3, 3))], [], []]


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.5, [128, 200]), (0.501, [128, 200]), (0.6, [200]), (0.01, [3, 128, 200])]
)
@pytest.mark.parametrize("meaning", ["PROBABILITY", "OCCUPANCY"])
def test_fraction_of_the_maximum_is_inside(meaning, fraction, kept, tmp_path):
    marked = [(0, 2 * k, 2 * k, value) for k, value in enumerate((3, 128, 200))]
    options = {"SegmentationType": "FRACTIONAL", "SegmentationFractionalType": meaning, "MaximumFractionalValue": 255}
    tiny(tmp_path, pixels(*marked, dtype=np.uint8), [at(0.0)], **options)
    expected = [(GGO, (row, column)) for _, row, column, value in marked if value in kept]
    assert sorted(found(load(tmp_path, fraction=fraction, instances=VALUES))[0][0][1:]) == [one[1] for one in expected]


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_fraction_that_is_none_is_refused(fraction, tmp_path):
    assert "--fraction" in refused(tmp_path, ConfigError, fraction=fraction)


def test_label_map_of_16_bits_may_have_a_background_of_its_own(tmp_path):
    masks = pixels((0, 1, 1, 700), (0, 3, 3, 9), dtype=np.uint16)
    segments = [
        make_segment(700),
        make_segment(9, "bronchiectasis"),
        make_segment(0, "Background", Code("125040", "DCM", "")),
    ]
    tiny(tmp_path, masks, [at(0.0, segment=None)], segments)
    assert found(load(tmp_path))[0] == [(GGO, (1, 1)), (BRONCHI, (3, 3))]
    masks[masks == 0] = 65535
    write_seg(tmp_path, masks, [at(0.0, segment=None)], segments[:2], PixelPaddingValue=65535)
    assert found(load(tmp_path))[0] == [(GGO, (1, 1)), (BRONCHI, (3, 3))]


def test_segment_coded_as_a_category_in_play_needs_no_entry(tmp_path):
    segments = [make_segment(1, "Segment_1", Code("95436008", "SCT", "Lung consolidation"))]
    tiny(tmp_path, pixels((0, 1, 2)), [at(2.0)], segments)
    own = "9=consolidation,code=95436008|SCT|Lung consolidation"
    assert found(load(tmp_path, own)) == [[], [("consolidation", (1, 2))], [], []]
    assert "1 label(s) without a category: 'Segment_1'" in refused(tmp_path, DatasetError)
