"""Rescale to HU, and what cannot be HU."""

from __future__ import annotations

import numpy as np
import pytest

from lung_d2.ct.hounsfield import STATED_FIELD_MM, check_hu, hu_from_stored
from lung_d2.errors import InputError

CHEST_MM = (350.0, 350.0)


def chest() -> np.ndarray:
    hu = np.full((2, 64, 64), -1000, np.int16)
    hu[:, 12:52, 8:56] = 40
    hu[:, 20:40, 16:30] = -850
    hu[:, 30:33, 40:43] = 600
    return hu


def test_rescale_is_clipped_to_int16() -> None:
    stored = np.array([0, 65535, 4096], np.uint16)
    np.testing.assert_array_equal(hu_from_stored(stored, 1.0, -1024.0), [-1024, 32767, 3072])
    np.testing.assert_array_equal(hu_from_stored(stored, None, None), [0, 32767, 4096])


def test_large_values_do_not_overflow() -> None:
    stored = np.array([2**31 - 1, -(2**31)], np.int32)
    np.testing.assert_array_equal(hu_from_stored(stored, 1.0, 0.0), [32767, -32768])


@pytest.mark.parametrize("hu", [chest(), np.where(chest() == -1000, -2048, chest()), chest()[:, 20:40, 16:30] - 20])
def test_ct_is_accepted(hu: np.ndarray) -> None:
    check_hu(hu.astype(np.int16), CHEST_MM, where="a", span=100.0)


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (chest() + 1024, "nothing below 0"),
        (np.where(chest() == -850, -2000, chest() + 1024), "a tenth above 800"),
        (chest() - 1024, "applied twice"),
        (chest() // 200, "normalised"),
        (chest() // 10, "no air in a field of view"),
    ],
)
def test_what_is_no_hu(hu: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_hu(hu.astype(np.int16), CHEST_MM, where="a")


def test_a_scanner_intercept_is_trusted_but_not_twice() -> None:
    check_hu((chest() // 10).astype(np.int16), CHEST_MM, where="a", trusted=True)
    with pytest.raises(InputError, match="applied twice"):
        check_hu((chest() - 1024).astype(np.int16), CHEST_MM, where="a", trusted=True)


def test_padding_is_no_evidence_of_air() -> None:
    hu = np.where(chest() == -1000, -1000, chest() + 1024).astype(np.int16)
    check_hu(hu, CHEST_MM, where="a")
    with pytest.raises(InputError, match="nothing below 0"):
        check_hu(hu, CHEST_MM, where="a", padded=True)


def test_small_fields_are_not_judged() -> None:
    check_hu(np.ones((1, 9, 9), np.int16), (20.0, 20.0), where="a", judged_field_mm=STATED_FIELD_MM)
