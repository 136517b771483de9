"""What every reader shares: sizes, the axes of DICOM, scaled slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ct.volume_samples import ct_array, make_affine
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
