from __future__ import annotations

import numpy as np
import pytest

from lung_d2.ct import read_volume
from lung_d2.ct.nifti import write_nifti
from lung_d2.errors import InputError
from lung_d2.lungs import LungField
from lung_d2.recognition import LabelFiles
from lung_d2.recognition.fields import FOUND, GIVEN, OF_LOBES, find_fields
from recognition.chests import LEFT, RIGHT, write_chest
from tiny import volume_of


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest")
    write_chest(folder)
    return read_volume(folder)


def write_labels(volume, path, right=1, left=2, dtype=np.uint8):
    labels = np.zeros(volume.hu.shape, dtype)
    labels[3:9, RIGHT], labels[3:9, LEFT] = right, left
    write_nifti(labels, volume.affine_lps, path)
    return path


def write_lobes(volume, path, first=1, others=()):
    """Write lobes: left upper and lower, right upper, middle and lower, by halves and thirds of the slices."""
    labels = np.zeros(volume.hu.shape, np.uint8)
    for offset, (slices, side) in enumerate(
        [(range(6, 9), LEFT), (range(3, 6), LEFT), (range(7, 9), RIGHT), (range(5, 7), RIGHT), (range(3, 5), RIGHT)]
    ):
        labels[list(slices)] += (side * (first + offset)).astype(np.uint8)
    for value in others:
        labels[0, value, 0] = value
    write_nifti(labels, volume.affine_lps, path)
    return path


def test_lungs_are_found(volume):
    fields = find_fields(volume)
    assert fields.lungs_from == FOUND
    assert np.array_equal(np.flatnonzero(fields.lungs.labels.any(axis=(1, 2))), np.arange(2, 10))
    assert fields.lobes is None
    assert fields.lobes_from == ""


def test_no_lungs_are_told(caplog):
    fields = find_fields(volume_of(np.full((3, 20, 20), 40, np.int16)))
    assert not fields.lungs.labels.any()
    assert "no lungs found: all slices are run whole" in caplog.text


def test_lungs_that_are_given_replace_them(volume, tmp_path):
    path = write_labels(volume, tmp_path / "lungs.nii.gz")
    fields = find_fields(volume, LabelFiles(lungs=path))
    assert fields.lungs_from == GIVEN
    assert np.array_equal(fields.lungs.labels[4], RIGHT + 2 * LEFT.astype(np.uint8))


def test_finder_is_chosen_by_name(volume, monkeypatch):
    everywhere = LungField(np.ones(volume.hu.shape, np.uint8), volume.spacing_mm)
    monkeypatch.setattr("lung_d2.recognition.fields.choose_finder", lambda name: lambda volume: everywhere)
    fields = find_fields(volume, LabelFiles(lungs="lungmask"))
    assert (fields.lungs, fields.lungs_from) == (everywhere, "found by lungmask")


@pytest.mark.parametrize(("first", "others"), [(1, ()), (10, ()), (10, (1, 2, 3, 51))])
def test_lobes_are_read_by_the_values_of_their_maker(volume, tmp_path, first, others):
    path = write_lobes(volume, tmp_path / "lobes.nii.gz", first, others)
    fields = find_fields(volume, LabelFiles(lobes=path))
    assert fields.lobes_from == GIVEN
    assert fields.lungs_from == OF_LOBES
    assert [int(fields.lobes.labels[z, 36, x]) for z, x in ((7, 68), (4, 68), (7, 28), (5, 28), (3, 28))] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert [int(fields.lungs.labels[5, 36, x]) for x in (28, 68)] == [1, 2]


def test_lobes_can_be_said_to_be_of_a_maker(volume, tmp_path):
    path = write_lobes(volume, tmp_path / "lobes.nii.gz", 1)
    with pytest.raises(InputError, match=r"lobes\.nii\.gz: no voxel with the value of a lobe; expected 10 left upper"):
        find_fields(volume, LabelFiles(lobes=path, lobe_values="totalsegmentator"))


def test_lobes_of_no_known_maker_are_refused(volume, tmp_path):
    path = write_lobes(volume, tmp_path / "lobes.nii.gz", 30)
    with pytest.raises(InputError, match=r"lobes\.nii\.gz: labels of neither lungmask's nor TotalSegmentator's lobes"):
        find_fields(volume, LabelFiles(lobes=path))
