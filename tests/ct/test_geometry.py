"""Order, spacing, gaps, duplicates and views of a stack."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ct.dicom_files import (
    expected_hu,
    make_slice,
    refused,
    stored_slices,
    write,
    write_series,
)
from lung_d2.ct import read_volume
from lung_d2.errors import GeometryError


def test_series_listed_from_the_top(tmp_path: Path) -> None:
    write_series(tmp_path, step_mm=-2.0)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(4)[::-1])
    assert volume.slice_positions_mm[0] == -6.0


def test_oblique_stack(tmp_path: Path) -> None:
    angle = np.deg2rad(30)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)
    for k, stored in enumerate(stored_slices(4)):
        position = np.array([10.0, 20, 30]) + 3 * k * normal
        tags = {"ImagePositionPatient": [f"{value:.8f}" for value in position]}
        tags["ImageOrientationPatient"] = [f"{value:.8f}" for value in (*row, *column)]
        write(make_slice(stored, **tags), tmp_path / str(9 - k))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(4))
    assert volume.spacing_mm[0] == pytest.approx(3.0, abs=1e-6)
    np.testing.assert_allclose(volume.affine_lps[:3, 2], 3 * normal, atol=1e-6)


def test_tilted_gantry_keeps_its_shear(tmp_path: Path) -> None:
    tilt = np.deg2rad(12)
    column = np.array([0, np.cos(tilt), -np.sin(tilt)])
    for k, stored in enumerate(stored_slices(5)):
        tags = {"ImagePositionPatient": [0, 0, 4.0 * k], "ImageOrientationPatient": [1, 0, 0, *column.round(9)]}
        write(make_slice(stored, **tags), tmp_path / str(k))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected_hu(5))
    assert volume.spacing_mm[0] == pytest.approx(4 * np.cos(tilt), abs=1e-6)
    np.testing.assert_allclose(volume.affine_lps[:3, 2], [0, 0, 4])


def test_positions_rounded_to_a_tenth(tmp_path: Path) -> None:
    for k, stored in enumerate(stored_slices(9)):
        write(make_slice(stored, z=round(0.625 * k, 1)), tmp_path / str(k))
    assert read_volume(tmp_path).spacing_mm[0] == pytest.approx(0.625)


@pytest.mark.parametrize(("count", "missing"), [(4, 1), (6, 3), (10, 8)])
def test_missing_slice_is_named(tmp_path: Path, count: int, missing: int) -> None:
    write_series(tmp_path, count=count)[missing].unlink()
    message = refused(tmp_path, GeometryError)
    assert f"gap of 4.00 mm after slice {missing - 1}" in message
    assert "usual spacing of 2.00 mm" in message


def test_uneven_spacing(tmp_path: Path) -> None:
    for k, (z, stored) in enumerate(zip([0, 2, 4, 5.3, 7.3], stored_slices(5), strict=True)):
        write(make_slice(stored, z=z), tmp_path / str(k))
    assert "1.30 mm where 2.00 mm is usual, at slice 2" in refused(tmp_path, GeometryError)


def test_copy_names_both_files(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    (tmp_path / "copy").write_bytes(files[1].read_bytes())
    message = refused(tmp_path, GeometryError)
    assert "same image twice" in message
    assert str(files[1]) in message
    assert str(tmp_path / "copy") in message


def test_two_images_at_one_position(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=2.0), tmp_path / "other")
    assert "lie at the same position" in refused(tmp_path, GeometryError)


def test_two_phases_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b")
    assert "8 images at 4 positions" in refused(tmp_path, GeometryError)


def test_slices_shifted_in_their_plane(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], ImagePositionPatient=[5, 0, 8]), tmp_path / "b")
    write(make_slice(stored_slices(1)[0], z=10), tmp_path / "c")
    assert "shifted by" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelSpacing": [0.5, 0.8]}, "pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9950042, 0.0998334]}, "orientations"),
    ],
)
def test_mixed_geometry(tmp_path: Path, tags: dict[str, object], words: str) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=8.0, **tags), tmp_path / "b")
    assert words in refused(tmp_path, GeometryError)


def test_mixed_sizes(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(np.zeros((3, 3), np.uint16), z=8.0), tmp_path / "b")
    assert "3 x 3 and 6 x 5" in refused(tmp_path, GeometryError)


@pytest.mark.parametrize("says_so", [True, False])
def test_localizer_is_left_out(tmp_path: Path, says_so: bool, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path)
    tags = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    if says_so:
        tags |= {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "PixelSpacing": None}
    write(make_slice(np.zeros((9, 9), np.uint16), **tags), tmp_path / "scout")
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "left out 1" in caplog.text
