"""Reading by ITK: its settings come back, threads do not disturb each other, and it says nothing."""

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
from lung_d2.errors import InputError


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
    with pytest.raises(InputError, match="a name that is no UTF-8"):
        read_volume(broken)
