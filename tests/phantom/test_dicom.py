"""A phantom on disk: a DICOM series that reads back bit for bit, and masks on its grid."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lung_d2.categories import CATEGORIES
from lung_d2.ct import labels_on_grid, read_label_volume, read_volume
from lung_d2.phantom import PhantomPatient, build_patient, preset_by_name, write_patient

MINI = preset_by_name("mini")


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["supine", "prone"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PhantomPatient, Path]:
    spec = replace(MINI, prone_share=request.param)
    patient = build_patient(spec, 0)
    folder = tmp_path_factory.mktemp("patient")
    write_patient(patient, folder, spec)
    return patient, folder


def test_hu_and_geometry_read_back(written: tuple[PhantomPatient, Path]) -> None:
    patient, folder = written
    volume = read_volume(folder / "ct")
    assert np.array_equal(volume.hu, patient.volume.hu)
    assert volume.spacing_mm == pytest.approx(patient.volume.spacing_mm)
    assert np.allclose(volume.affine_lps, patient.volume.affine_lps, atol=1e-4)
    assert volume.series_instance_uid == patient.volume.series_instance_uid
    assert volume.sop_instance_uids == patient.volume.sop_instance_uids


def test_hash_of_the_series_is_that_of_the_files(written: tuple[PhantomPatient, Path]) -> None:
    patient, folder = written
    volume = read_volume(folder / "ct")
    assert volume.series_hash == patient.volume.series_hash


def test_masks_lie_on_the_grid_of_the_series(written: tuple[PhantomPatient, Path]) -> None:
    patient, folder = written
    for category in CATEGORIES:
        labels = read_label_volume(folder / "masks" / f"{category.name}.nii.gz")
        assert np.array_equal(labels_on_grid(labels, read_volume(folder / "ct")), patient.instances[category.name])


def test_files_are_the_same_every_time(written: tuple[PhantomPatient, Path], tmp_path: Path) -> None:
    patient, folder = written
    write_patient(patient, tmp_path, replace(MINI, prone_share=1.0 if patient.prone else 0.0))
    for path in sorted((folder / "ct").iterdir()):
        assert path.read_bytes() == (tmp_path / "ct" / path.name).read_bytes()


def test_names_say_that_nobody_is_meant(written: tuple[PhantomPatient, Path]) -> None:
    dataset = pydicom.dcmread(next((written[1] / "ct").iterdir()))
    assert str(dataset.PatientName) == "PHANTOM^000"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert all(len(uid) <= 64 for uid in (dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID))


def test_dciodvfy_finds_no_error(written: tuple[PhantomPatient, Path]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: install Debian's dicom3tools")
    for path in sorted((written[1] / "ct").iterdir())[:2]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in done.stderr + done.stdout
