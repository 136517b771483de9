"""Label volumes: read from any format, and brought to the grid of a CT, whole or cropped."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ct.volume_samples import ct_array, make_affine, save, write_nrrd
from lung_d2.ct import CTVolume, labels_on_grid, read_label_volume, read_volume, write_nifti
from lung_d2.ct.headers import VOLUME_SUFFIXES
from lung_d2.ct.labels import LabelVolume, find_label_file, read_label_layers
from lung_d2.errors import GeometryError, InputError

TURN = np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1.0]])
AFFINE = TURN @ np.array([[0.75, 0, 0, -30], [0, 0.5, 0, -20], [0, 0, 2, 100], [0, 0, 0, 1]])
SHAPE = (4, 6, 5)


@pytest.fixture
def volume() -> CTVolume:
    hu = np.full(SHAPE, -1000, np.int16)
    return CTVolume(hu, (2.0, 0.5, 0.75), np.arange(4) * 2.0, AFFINE.copy(), "", "", ("",) * 4, (None,) * 4, "p", "s")


def crop(values: np.ndarray, low: tuple[int, int, int]) -> LabelVolume:
    """Make labels ``[Z, Y, X]`` whose first voxel lies at (x, y, z) = ``low`` of the grid."""
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return LabelVolume(values, affine)


def turned(labels: LabelVolume, order: tuple[int, ...], flips: tuple[int, ...]) -> LabelVolume:
    """Store labels with other axes in other directions, in the same place."""
    xyz, affine = labels.labels.transpose(2, 1, 0), labels.affine_lps.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (xyz.shape[axis] - 1)
        affine[:3, axis] *= -1
        xyz = np.flip(xyz, axis)
    affine[:, :3] = affine[:, list(order)]
    return LabelVolume(np.ascontiguousarray(xyz.transpose(order).transpose(2, 1, 0)), affine)


@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_part_lies_where_it_was_cut_out(volume: CTVolume, order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    values = np.arange(1, 13, dtype=np.uint8).reshape(2, 3, 2)
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:3, 2:5, 3:5] = values
    part = turned(crop(values, (3, 2, 1)), order, flips)
    np.testing.assert_array_equal(labels_on_grid(part, volume, part=True), expected)


def test_background_beyond_the_grid_is_cut_off(volume: CTVolume) -> None:
    values = np.zeros((9, 9, 9), np.uint8)
    values[3, 4, 2] = 7
    placed = labels_on_grid(crop(values, (-2, -2, -2)), volume, part=True)
    assert (placed[1, 2, 0], np.count_nonzero(placed)) == (7, 1)


def test_labels_beyond_the_grid_are_refused(volume: CTVolume) -> None:
    for low in ((4, 0, 0), (0, 0, -1), (90, 0, 0), (0, -90, 0)):
        with pytest.raises(GeometryError, match=r"labels beyond the CT, in 1 x 1 x 2 .* expected labels inside it"):
            labels_on_grid(crop(np.ones((1, 1, 2), np.uint8), low), volume, part=True)


@pytest.mark.parametrize("change", [np.diag([1, 1, 1.2, 1]), np.diag([0.5, 1, 1, 1]), TURN])
def test_part_of_another_grid_is_refused(volume: CTVolume, change: np.ndarray) -> None:
    labels = LabelVolume(np.ones((2, 3, 2), np.uint8), AFFINE @ change)
    with pytest.raises(GeometryError, match=r"2 x 3 x 2 voxels .* expected that of the CT"):
        labels_on_grid(labels, volume, part=True)


def test_part_between_the_voxels_is_refused(volume: CTVolume) -> None:
    with pytest.raises(GeometryError):
        labels_on_grid(crop(np.ones((1, 1, 1), np.uint8), (1, 1, 0.5)), volume, part=True)  # type: ignore[arg-type]


def test_part_is_no_whole(volume: CTVolume) -> None:
    with pytest.raises(GeometryError):
        labels_on_grid(crop(np.ones((2, 3, 2), np.uint8), (3, 2, 1)), volume)


def test_whole_labels_survive_any_order_of_axes(tmp_path: Path) -> None:
    labels = (ct_array() % 7).astype(np.uint8)
    xyz = labels.transpose(2, 1, 0)
    volume_path = tmp_path / "ct.nii"
    write_nifti(ct_array(), make_affine(), volume_path)
    volume = read_volume(volume_path)
    for order in itertools.permutations(range(3)):
        orientation = np.array([[axis, flip] for axis, flip in zip(order, (-1, 1, -1), strict=True)])
        moved = nibabel.orientations.apply_orientation(xyz, orientation)
        affine = make_affine() @ nibabel.orientations.inv_ornt_aff(orientation, xyz.shape)
        direct = LabelVolume(np.ascontiguousarray(moved.transpose(2, 1, 0)), affine)
        np.testing.assert_array_equal(labels_on_grid(direct, volume), labels)
        for suffix in (".nii.gz", ".seg.nrrd", ".mha"):
            path = save(tmp_path / f"labels{suffix}", moved, affine)
            np.testing.assert_array_equal(labels_on_grid(read_label_volume(path), volume), labels)


def test_labels_of_one_slice_may_have_another_thickness(tmp_path: Path) -> None:
    write_nifti(ct_array((1, 6, 5)), make_affine(), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    labels = LabelVolume(np.ones((1, 6, 5), np.uint8), make_affine() @ np.diag([1, 1, 7.0, 1]))
    assert labels_on_grid(labels, volume).all()


@pytest.mark.parametrize(
    "change", [np.diag([1, 1, 1.2, 1]), np.diag([2.0, 1, 1, 1]), np.eye(4) + np.outer([0, 0, 1, 0], [0, 0, 0, 0.5])]
)
def test_another_grid_is_refused(tmp_path: Path, change: np.ndarray) -> None:
    write_nifti(ct_array(), make_affine(), tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    labels = LabelVolume(np.zeros((4, 6, 5), np.uint8), make_affine() @ change)
    with pytest.raises(GeometryError, match=r"4 x 6 x 5 voxels .* expected that of the CT, 4 x 6 x 5"):
        labels_on_grid(labels, volume)


def test_fewer_slices_are_refused(tmp_path: Path) -> None:
    write_nifti(ct_array(), make_affine(), tmp_path / "ct.nii")
    with pytest.raises(GeometryError):
        labels_on_grid(LabelVolume(np.zeros((3, 6, 5), np.uint8), make_affine()), read_volume(tmp_path / "ct.nii"))


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize("value", [0.5, -1.0, 65536.0, np.nan])
def test_values_that_are_no_labels(tmp_path: Path, suffix: str, value: float) -> None:
    array = np.zeros((3, 3, 3), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(InputError, match=r"not labels|NaN"):
        read_label_volume(save(tmp_path / f"a{suffix}", array, np.eye(4)))


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_take_the_narrower_of_two_types(tmp_path: Path, suffix: str, largest: int, dtype: type) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[2, 1, 0] = largest
    labels = read_label_volume(save(tmp_path / f"a{suffix}", array, make_affine())).labels
    assert labels.dtype == dtype
    assert (labels[0, 1, 2], np.count_nonzero(labels)) == (largest, 1)


LISTED = {"dimension": "4", "sizes": "2 5 6 4", "kinds": "list domain domain domain", "type": "uchar"}
ALONG = "(0.75,0,0) (0,0.5,0) (0,0,2)"


def layered(path: Path, **fields: str) -> Path:
    """Write two layers of one grid, the values 1 to 120 and their doubles, as a list before the axes of space."""
    values = np.arange(1, 121, dtype=np.uint8)
    data = np.stack([values, 2 * values], axis=-1).tobytes()
    return write_nrrd(path, data, **{**LISTED, "space directions": f"none {ALONG}", **fields})


def test_layers_are_label_maps_of_one_grid(tmp_path: Path) -> None:
    first, second = read_label_layers(layered(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(first.labels, np.arange(1, 121).reshape(4, 6, 5))
    np.testing.assert_array_equal(second.labels, 2 * first.labels.astype(int))
    for one in (first, second):
        np.testing.assert_allclose(one.affine_lps, make_affine())


def test_one_layer_needs_no_list(tmp_path: Path) -> None:
    data = np.arange(120, dtype=np.uint8)
    for fields in ({}, {**LISTED, "sizes": "1 5 6 4", "space directions": f"none {ALONG}"}):
        path = write_nrrd(tmp_path / "a.nrrd", data.tobytes(), **{"type": "uchar", **fields})
        (layer,) = read_label_layers(path)
        np.testing.assert_array_equal(layer.labels, data.reshape(4, 6, 5))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kinds": "RGB-color domain domain domain"}, "4 dimensions"),
        ({"kinds": "domain domain domain list"}, "4 dimensions"),
        ({"space directions": f"(1,0,0) {ALONG}"}, "4 dimensions"),
        ({"space directions": "none none (0,0.5,0) (0,0,2)"}, "an axis has no space direction"),
        ({"sizes": "3 5 6 4"}, "shorter than declared"),
        ({"sizes": "2048 512 512 4"}, r"2048 layers of \(512, 512, 4\)"),
        ({"sizes": "2 5 6"}, "damaged or no NRRD file"),
        ({"sizes": "-2 5 6 4"}, "damaged or no NRRD file"),
        ({"dimension": "5"}, "5 dimensions"),
        ({"type": "double"}, "shorter than declared"),
    ],
)
def test_what_lists_no_label_maps_is_refused(tmp_path: Path, fields: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=rf"a\.nrrd: .*{words}"):
        read_label_layers(layered(tmp_path / "a.nrrd", **fields))


def test_layers_are_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not space \(list\)"):
        read_label_volume(layered(tmp_path / "a.nrrd"))


def test_label_file_of_a_series_is_found_by_uid_or_hash(volume: CTVolume, tmp_path: Path) -> None:
    volume = replace(volume, series_instance_uid="1.2.3", series_hash="bb")
    for name in (volume.series_hash, volume.series_instance_uid):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.nii.gz").touch()
        assert find_label_file(tmp_path / name, volume) == tmp_path / name / f"{name}.nii.gz"
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match=r"2 label volumes .* remove all but one"):
        find_label_file(tmp_path, volume)
    for path in tmp_path.glob("*.nii.gz"):
        path.unlink()
    both = f"{volume.series_hash} or {volume.series_instance_uid}"
    with pytest.raises(InputError, match=f"0 label volumes of series {both}"):
        find_label_file(tmp_path, volume)
