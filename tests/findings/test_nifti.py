"""Lesions as a label volume: values, overlaps, and where they lie."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from findings.dicom_samples import (
    base_affine,
    centres,
    dice,
    make_lesion,
    make_lesions,
    make_masks,
    rotations,
    write_ct,
)
from lung_d2.ct import CTVolume, labels_on_grid, read_label_volume, read_volume
from lung_d2.errors import OutputError
from lung_d2.findings.files import write_lesion_nifti

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    return read_volume(write_ct(tmp_path_factory.mktemp("ct")))


@pytest.mark.parametrize("geometry", ["axial", "oblique", "tilted"])
def test_masks_return_in_every_geometry(geometry: str, tmp_path: Path) -> None:
    first, second, _ = make_masks()
    for number, rotation in enumerate(rotations()):
        affine = rotation @ base_affine(geometry)
        volume = read_volume(write_ct(tmp_path / str(number), affine))
        path = write_lesion_nifti(make_lesions()[:2], volume, tmp_path / f"{number}.nii.gz")
        image = nibabel.load(path)
        labels = np.asarray(image.dataobj)
        for value, mask in ((1, first), (2, second)):
            found = RAS_TO_LPS @ image.affine
            points = np.argwhere(labels == value) @ found[:3, :3].T + found[:3, 3]
            assert dice(points, mask, affine) == 1.0
            assert np.abs(points.mean(axis=0) - centres(mask, affine).mean(axis=0)).max() < 0.01


def test_values_are_the_numbers_of_the_lesions(volume: CTVolume, tmp_path: Path) -> None:
    first, second, _ = make_masks()
    lesions = [make_lesion(7, first), make_lesion(3, second)]
    labels = labels_on_grid(read_label_volume(write_lesion_nifti(lesions, volume, tmp_path / "a.nii")), volume)
    assert np.array_equal(labels, 7 * first + 3 * second)


@pytest.mark.parametrize("order", [1, -1])
def test_the_smallest_is_seen_where_lesions_overlap(order: int, volume: CTVolume, tmp_path: Path) -> None:
    _, _, inner = make_masks()
    path = write_lesion_nifti(make_lesions()[::order], volume, tmp_path / "a.nii.gz")
    labels = labels_on_grid(read_label_volume(path), volume)
    assert np.array_equal(labels == 3, inner)


@pytest.mark.parametrize(("number", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_type_holds_the_highest_number(number: int, dtype: type, volume: CTVolume, tmp_path: Path) -> None:
    path = write_lesion_nifti([make_lesion(number, make_masks()[0])], volume, tmp_path / "a.nii.gz")
    assert nibabel.load(path).get_data_dtype() == dtype
    assert np.asarray(nibabel.load(path).dataobj).max() == number


def test_no_lesion_is_an_empty_volume(volume: CTVolume, tmp_path: Path) -> None:
    image = nibabel.load(write_lesion_nifti([], volume, tmp_path / "a.nii.gz"))
    assert image.shape == volume.hu.shape[::-1]
    assert not np.asarray(image.dataobj).any()


def test_what_cannot_be_written_is_an_output_error(volume: CTVolume, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_lesion_nifti([], volume, tmp_path / "gone" / "a.nii.gz")
