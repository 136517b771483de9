"""NIfTI in and out: axes, scale, tilted stacks, refusals."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ct.dicom_files import make_slice, stored_slices, write
from ct.volume_samples import ct_array, make_affine
from lung_d2.ct import CTVolume, labels_on_grid, read_label_volume, read_volume, write_nifti
from lung_d2.errors import GeometryError, InputError

FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])


def save(path: Path, array_xyz: np.ndarray, affine_ras: np.ndarray, code: int = 1) -> Path:
    image = nibabel.Nifti1Image(array_xyz, affine_ras)
    image.set_sform(affine_ras, code)
    image.set_qform(affine_ras, code)
    nibabel.save(image, path)
    return path


def tilted_volume(folder: Path) -> CTVolume:
    tilt = np.deg2rad(12)
    column = np.array([0, np.cos(tilt), -np.sin(tilt)]).round(9)
    for k, stored in enumerate(stored_slices(5)):
        tags = {"ImagePositionPatient": [3, 4, 4.0 * k], "ImageOrientationPatient": [1, 0, 0, *column]}
        write(make_slice(stored, **tags), folder / str(k))
    return read_volume(folder)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    write_nifti(ct_array(), make_affine(), tmp_path / "ct.nii")
    path = tmp_path / f"x{suffix}"
    data = (tmp_path / "ct.nii").read_bytes()
    path.write_bytes(gzip.compress(data) if suffix.lower().endswith("gz") else data)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, ct_array())
    np.testing.assert_allclose(volume.affine_lps, make_affine(), atol=1e-5)
    assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.75))
    assert volume.sop_instance_uids == ("",) * 4


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_any_order_of_axes_gives_the_same_volume(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    xyz = ct_array().transpose(2, 1, 0)
    orientation = np.array([[order[axis], flips[axis]] for axis in range(3)])
    moved = nibabel.orientations.apply_orientation(xyz, orientation)
    affine = FLIP_XY @ make_affine() @ nibabel.orientations.inv_ornt_aff(orientation, xyz.shape)
    volume = read_volume(save(tmp_path / "a.nii", moved, affine))
    np.testing.assert_array_equal(volume.hu, ct_array())
    np.testing.assert_allclose(volume.affine_lps, make_affine(), atol=1e-5)


def test_scale_is_applied(tmp_path: Path) -> None:
    stored = (ct_array().astype(int) + 1024).astype(np.int16)
    path = save(tmp_path / "a.nii", stored.transpose(2, 1, 0), FLIP_XY @ make_affine())
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([1.0, -1024.0], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path).hu, ct_array())


def realistic(shape: tuple[int, int, int] = (3, 64, 64)) -> np.ndarray:
    """Give air around a body with a lung."""
    hu = np.full(shape, -1000.0)
    hu[:, 12:52, 8:56] = 40
    hu[:, 20:40, 16:30] = -850
    return hu + np.random.default_rng(0).normal(0, 10, shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu + 1024,
        lambda hu: hu - 1024,
        lambda hu: (hu + 1024) / 4095,
        lambda hu: hu / 1000,
        lambda hu: np.clip((hu + 1350) / 1500 * 255, 0, 255),
    ],
)
def test_values_that_are_no_hu(tmp_path: Path, change: object) -> None:
    affine = np.diag([-5.0, -5.0, 2.0, 1.0])
    good = save(tmp_path / "a.nii", realistic().transpose(2, 1, 0).astype(np.float32), affine)
    assert read_volume(good).hu.shape == (3, 64, 64)
    bad = save(tmp_path / "b.nii", change(realistic()).transpose(2, 1, 0).astype(np.float32), affine)
    with pytest.raises(InputError, match="air at about -1000"):
        read_volume(bad)


def test_crop_inside_the_body_is_read(tmp_path: Path) -> None:
    crop = np.random.default_rng(0).normal(40, 15, (128, 128, 3)).astype(np.int16)
    assert read_volume(save(tmp_path / "a.nii", crop, np.diag([-0.7, -0.7, 2, 1.0]))).hu.mean() > 30


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 3, 3, 2), np.int16), "4 dimensions"),
        (np.zeros((3, 3), np.int16), "2 dimensions"),
        (np.full((3, 3, 3), np.nan, np.float32), "NaN"),
        (np.zeros((3, 3, 3), np.complex64), "complex64"),
        (np.zeros((8193, 1, 1), np.int8), "8193"),
    ],
)
def test_refusals(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_volume(save(tmp_path / "a.nii", array, np.eye(4)))


def test_no_orientation(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="no orientation"):
        read_volume(save(tmp_path / "a.nii", ct_array().transpose(2, 1, 0), np.eye(4), code=0))


def test_truncated_and_absent(tmp_path: Path) -> None:
    write_nifti(ct_array((20, 30, 30)), make_affine(), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-500])
    for name in ("b.nii.gz", "absent.nii"):
        with pytest.raises(InputError, match=name):
            read_volume(tmp_path / name)


def test_labels_of_a_tilted_stack(tmp_path: Path) -> None:
    volume = tilted_volume(tmp_path / "dicom")
    labels = (np.arange(volume.hu.size).reshape(volume.hu.shape) % 5).astype(np.uint8)
    write_nifti(labels, volume.affine_lps, tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    assert int(image.header["qform_code"]) == 0
    np.testing.assert_allclose(image.affine, FLIP_XY @ volume.affine_lps, atol=1e-5)
    np.testing.assert_array_equal(labels_on_grid(read_label_volume(tmp_path / "labels.nii.gz"), volume), labels)


def test_writing_leaves_one_file(tmp_path: Path) -> None:
    write_nifti(np.ones((2, 3, 4), bool), np.eye(4), tmp_path / "a.nii.gz")
    write_nifti(np.arange(24).reshape(2, 3, 4), np.eye(4), tmp_path / "a.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8
    with pytest.raises(InputError, match="another suffix"):
        write_nifti(np.zeros((1, 1, 1)), np.eye(4), tmp_path / "a.mha")
