"""Voxels of volume files in the axes of DICOM, and how ITK is kept quiet while it reads them."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from ct.volume_samples import ITK_SUFFIXES, ct_array, make_affine, save, write_meta
from lung_d2.ct import read_volume
from lung_d2.ct.raw_volume import RawVolume, check_size, to_dicom_axes
from lung_d2.errors import GeometryError, InputError

PATH = Path("a.mha")


def test_slices_are_scaled_one_by_one() -> None:
    raw = RawVolume(PATH, np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.eye(4), slope=0.5, intercept=-10)
    slices = list(raw.slices())
    assert [picture.dtype for picture in slices] == [np.float64] * 3
    np.testing.assert_array_equal(slices[1], [[-8, -7.5], [-7, -6.5]])


def test_slice_with_infinity_is_refused_and_those_before_it_are_not() -> None:
    values = np.zeros((3, 2, 2))
    values[1, 0, 0] = np.inf
    slices = RawVolume(PATH, values, np.eye(4)).slices()
    assert not next(slices).any()
    with pytest.raises(InputError, match=r"a\.mha: NaN or infinity"):
        next(slices)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8192, 2, 2), (1024, 1024, 1024), (5, 6, 4, 1, 1)])
def test_sizes_that_a_ct_may_have(shape: tuple[int, ...]) -> None:
    check_size(shape, PATH)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((5, 6), "2 dimensions"),
        ((5, 6, 4, 2), "4 dimensions"),
        ((5, 0, 4), "size"),
        ((8193, 1, 1), "8192 a side"),
        ((1024, 1024, 1025), "2^30 voxels"),
        ((2**31, 2**31, 2**31), "size"),
    ],
)
def test_sizes_that_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_size(shape, PATH)
    assert words in str(caught.value)


def test_axes_are_reordered_with_their_affine() -> None:
    flipped = make_affine() @ np.array([[-1, 0, 0, 4], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    values, affine = to_dicom_axes(ct_array().transpose(2, 1, 0)[::-1].transpose(0, 2, 1), flipped, PATH)
    np.testing.assert_array_equal(values, ct_array())
    np.testing.assert_allclose(affine, make_affine())


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [(0, 0, np.nan, "NaN"), (1, 1, 0.0, "spacing"), (0, 1, 0.5, "skewed"), (2, 3, 2e5, "beyond 100 m")],
)
def test_affines_that_are_refused(row: int, column: int, value: float, words: str) -> None:
    affine = make_affine()
    affine[row, column] = value
    with pytest.raises(GeometryError, match=words):
        to_dicom_axes(ct_array().transpose(2, 1, 0), affine, PATH)


def test_settings_of_itk_come_back(tmp_path: Path) -> None:
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    read_volume(save(tmp_path / "a.mha", ct_array().transpose(2, 1, 0), make_affine()))
    with pytest.raises(InputError):
        read_volume(write_meta(tmp_path / "b.mha", ElementType="MET_BOGUS"))
    assert SimpleITK.ProcessObject.GetGlobalWarningDisplay() == before


def test_what_its_parser_prints_goes_nowhere_and_standard_error_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Its parser prints three lines about a comment of this length, then gives up.
    with pytest.raises(InputError, match="damaged or no MetaImage file"):
        read_volume(write_meta(tmp_path / "a.mha", Comment="a" * 600))
    os.write(sys.__stderr__.fileno(), b"ours\n")
    assert capfd.readouterr() == ("", "ours\n")


def test_threads_read_side_by_side(tmp_path: Path) -> None:
    files = []
    for number in range(12):
        path = tmp_path / f"{number}{ITK_SUFFIXES[number % 4]}"
        files.append(save(path, ct_array().transpose(2, 1, 0) + np.int16(number), make_affine()))
    with ThreadPoolExecutor(4) as pool:
        for number, volume in enumerate(pool.map(read_volume, files)):
            np.testing.assert_array_equal(volume.hu, ct_array() + number)


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
def test_name_that_no_text_can_hold(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", ct_array().transpose(2, 1, 0), make_affine())
    broken = path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff" + suffix.encode()))
    with pytest.raises(InputError, match="a name that is not UTF-8"):
        read_volume(broken)
