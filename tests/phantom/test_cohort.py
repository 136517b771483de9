"""A cohort is complete after any interruption, and the same however it was written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lung_d2.categories import CATEGORIES
from lung_d2.ct import labels_on_grid, read_label_volume, read_volume
from lung_d2.errors import ConfigError, DatasetError, InputError
from lung_d2.phantom import (
    INSERTED,
    insert_lesions,
    prepare_lung,
    preset_by_name,
    write_cohort,
    write_inserted_cohort,
)
from lung_d2.phantom import cohort as cohort_module
from lung_d2.phantom.dicom import write_case
from phantom.plain_chest import build_chest

SMALL = replace(preset_by_name("mini"), matrix=(64, 64), slice_count=2, patients=2)


def contents(folder: Path) -> dict[str, bytes]:
    # gzip writes a time stamp into its header; the masks are compared in test_dicom.py.
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_interrupted_cohort_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_cohort(SMALL, tmp_path / "whole")
    real, calls = cohort_module.write_patient, []

    def fail_at_the_second(patient, folder, spec) -> None:
        real(patient, folder, spec)
        calls.append(patient.number)
        if patient.number == 1 and len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cohort_module, "write_patient", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(SMALL, tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["patient_000"]
    seen: list[tuple[int, int]] = []
    again = write_cohort(SMALL, tmp_path / "cut", progress=lambda done, total: seen.append((done, total)))
    assert calls == [0, 1, 1]
    assert seen == [(1, 2), (2, 2)]
    assert [contents(a) for a in whole] == [contents(b) for b in again]


def test_more_patients_leave_the_first_as_they_are(tmp_path: Path) -> None:
    first = write_cohort(replace(SMALL, patients=1), tmp_path)[0]
    before = contents(first)
    assert len(write_cohort(SMALL, tmp_path)) == 2
    assert contents(first) == before


def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    one, two = (write_cohort(SMALL, tmp_path / str(count), workers=count) for count in (1, 2))
    assert [contents(a) for a in one] == [contents(b) for b in two]


def test_another_cohort_in_the_folder_is_refused(tmp_path: Path) -> None:
    write_cohort(replace(SMALL, patients=1), tmp_path)
    with pytest.raises(DatasetError, match="another cohort"):
        write_cohort(replace(SMALL, seed=99), tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file"):
        write_cohort(SMALL, tmp_path / "file" / "cohort")


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="benchmark"):
        write_cohort("huge", tmp_path)


ROOT = Path(__file__).resolve().parents[2]
TWO = replace(INSERTED, patients=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of a man with a name."""
    folder = tmp_path_factory.mktemp("source")
    header = {"PatientName": "DOE^JOHN", "PatientID": "ID-4711", "StudyID": "77", "FrameOfReferenceUID": "1.2.3.9"}
    header |= {"StudyDescription": "His study", "SeriesDescription": "His series"}
    write_case(build_chest(), header, {}, {}, folder)
    return folder / "ct"


@pytest.fixture(scope="module")
def cohort(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_inserted_cohort(source, tmp_path_factory.mktemp("cohort"), TWO)


def test_copies_read_back_with_their_masks(source: Path, cohort: list[Path]) -> None:
    for number, folder in enumerate(cohort):
        copy = insert_lesions(prepare_lung(read_volume(source)), number, TWO)
        volume = read_volume(folder / "ct")
        assert np.array_equal(volume.hu, copy.hu)
        for category in CATEGORIES:
            labels = read_label_volume(folder / "masks" / f"{category.name}.nii.gz")
            assert np.array_equal(labels_on_grid(labels, volume), copy.instances[category.name])
        record = json.loads((folder / "phantom.json").read_text())
        assert len(record["lesions"]) == len(copy.lesions)


def test_geometry_is_that_of_the_source(source: Path, cohort: list[Path]) -> None:
    one, other = read_volume(source), read_volume(cohort[0] / "ct")
    assert other.spacing_mm == pytest.approx(one.spacing_mm)
    assert np.allclose(other.affine_lps, one.affine_lps, atol=1e-4)


def test_copies_are_one_patient_but_two_series(source: Path, cohort: list[Path]) -> None:
    volumes = [read_volume(folder / "ct") for folder in cohort]
    assert len({volume.patient_hash for volume in volumes}) == 1
    assert len({volume.series_instance_uid for volume in volumes}) == 2
    assert volumes[0].patient_hash != read_volume(source).patient_hash


def test_nothing_of_the_source_is_in_the_headers(source: Path, cohort: list[Path]) -> None:
    original = read_volume(source)
    uids = {original.series_instance_uid, original.study_instance_uid, *original.sop_instance_uids}
    for path in sorted((cohort[0] / "ct").iterdir()):
        dataset = pydicom.dcmread(path)
        text = str(dataset.file_meta) + "\n".join(str(one) for one in dataset if one.keyword != "PixelData")
        assert not [word for word in ("DOE", "4711", "His", "1.2.3.9") if word in text]
        assert not uids & {str(one.value) for one in dataset}
        assert "synthetic" in dataset.StudyDescription
        assert dataset.ImageType[0] == "DERIVED"


def test_dciodvfy_finds_no_error(cohort: list[Path]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: install Debian's dicom3tools")
    done = subprocess.run(["dciodvfy", str(cohort[0] / "ct" / "0000.dcm")], capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr + done.stdout


def test_a_second_call_writes_only_what_is_missing(source: Path, cohort: list[Path], tmp_path: Path) -> None:
    first = write_inserted_cohort(source, tmp_path, replace(TWO, patients=1))[0]
    before = (first / "phantom.json").stat().st_mtime_ns
    folders = write_inserted_cohort(source, tmp_path, TWO)
    assert (first / "phantom.json").stat().st_mtime_ns == before
    name = "ct/0010.dcm"
    assert [(folder / name).read_bytes() for folder in folders] == [(folder / name).read_bytes() for folder in cohort]


def test_other_lesions_do_not_join_the_folder(source: Path, cohort: list[Path]) -> None:
    with pytest.raises(DatasetError, match="another cohort"):
        write_inserted_cohort(source, cohort[0].parent, replace(TWO, seed=1))


def test_a_folder_without_ct_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_inserted_cohort(tmp_path, tmp_path / "out", TWO)
    assert not (tmp_path / "out").exists()


def run_tool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_all_copies_can_be_prepared_for_training(cohort: list[Path], tmp_path: Path) -> None:
    words = ("tools/prepare_dataset.py", "dicom", cohort[0].parent, "--name", "inserted", "--instances", "values")
    done = run_tool(*words, "--val-fraction", 0, "--root", tmp_path, "--workers", 1)
    assert done.returncode == 0, done.stderr
    annotations = tmp_path / "lung_ct" / "inserted" / "annotations"
    assert [path.name for path in annotations.iterdir()] == ["train.json"]
    content = json.loads((annotations / "train.json").read_text())
    assert {one["category_id"] for one in content["annotations"]} == {category.coco_id for category in CATEGORIES}


def test_copies_of_one_patient_make_no_val_split(cohort: list[Path], tmp_path: Path) -> None:
    words = ("tools/prepare_dataset.py", "dicom", cohort[0].parent, "--name", "inserted", "--instances", "values")
    done = run_tool(*words, "--val-fraction", 0.5, "--root", tmp_path, "--workers", 1)
    assert done.returncode == 2
    assert "patient" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--copies", "2"), "--copies"),
        (("--into", "x", "--patients", "2"), "--patients"),
        (("--into", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_the_tool_says_what_is_wrong_in_one_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run_tool("tools/make_phantom.py", "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
