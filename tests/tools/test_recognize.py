"""The tool as a user runs it: one series, pictures, trees of series, patients whose names are everywhere, kills."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from ct.dicom_files import make_slice, write, write_series
from lung_d2.ct import read_volume
from lung_d2.data.planes import write_plane
from recognition.chests import FRAME_UID, chest_hu, write_chest, write_model
from recognition.test_fields import write_lobes

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "recognize.py"
NAME, PATIENT_ID, BIRTH_DATE = "DOE^JANE", "PID-4711-X", "19010203"
IDENTITY = (NAME, "DOE_JANE", PATIENT_ID, BIRTH_DATE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Give the words that name a config as training dumps it, and random weights, whose scores are about 1/3."""
    config, weights = write_model(tmp_path_factory.mktemp("model"))
    return ["--config-file", config, "--weights", weights]


def start(*words, cwd, **options):
    command = [sys.executable, SCRIPT, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def run(*words, cwd):
    process = start(*words, cwd=cwd)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def write_tree(folder: Path, count: int) -> None:
    for number in range(count):
        write_chest(folder / f"patient {number}" / "ct", SeriesInstanceUID=f"1.2.3.{number}")


def summary(folder):
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def folders(output):
    return sorted(path for path in output.iterdir() if path.is_dir())


def test_series_in_detections_and_overlays_out(model, tmp_path):
    write_series(tmp_path / "series", 3)
    done = run(*model, "--input", "series", "--output", "out", "--score-threshold", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path / "out")
    detections = json.loads((folder / "detections.json").read_text())
    assert detections
    slices = {detection["image_id"] for detection in detections}
    assert slices <= {0, 1, 2}
    assert {path.name for path in (folder / "overlays").iterdir()} == {f"slice_{index:04d}.png" for index in slices}
    assert f"{len(slices)} overlays of slices with detections; research use only" in done.stderr
    assert f"written to out/{folder.name}" in done.stderr
    again = run(*model, "--input", "series", "--output", "out", "--score-threshold", "0", cwd=tmp_path)
    assert again.returncode == 0
    assert f"kept, as it was made of the same: out/{folder.name}" in again.stderr


def test_pictures_and_overrides(model, tmp_path):
    for name in ("a.png", "b.png"):
        write_plane(np.full((40, 50), 90, np.uint8), tmp_path / name)
    words = [*model, "--input", "a.png", "b.png", "--output", "out", "INPUT.CT.GREY", "minmax_clahe"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert len(json.loads((folder / "slices.json").read_text())["images"]) == 2
    assert "2 pictures, detections alone" in done.stderr


def test_options_reach_the_findings(model, tmp_path):
    write_chest(tmp_path / "series")
    write_lobes(read_volume(tmp_path / "series"), tmp_path / "lobes.nii.gz")
    options = "--score-threshold 0.2 --min-volume-mm3 7 --max-gap-mm 3 --segments category --empty-segmentation"
    lungs = "--lung-box on --keep-outside --all-slices --lobes lobes.nii.gz"
    done = run(*model, "--input", "series", "--output", "out", *options.split(), *lungs.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())["settings"]
    assert manifest["use"] == {"skip_slices": False, "crop": True, "drop_outside": False}
    assert manifest["segment_per_lesion"] is False
    findings = json.loads((folder / "findings.json").read_text())
    linking = findings["settings"]["linking"]
    assert [linking[key] for key in ("min_detection_score", "min_lesion_score", "min_volume_mm3", "max_gap_mm")] == [
        0.2, 0.2, 7, 3
    ]  # fmt: skip
    assert findings["settings"]["lung_margin_mm"] == 30
    assert len(findings["severity"]["lobes"]) == 5
    assert len(list(folder.glob("segmentation_*.dcm"))) == 2


@pytest.mark.parametrize("option", ["--workers", "--batch-size"])
def test_number_below_one_is_refused(tmp_path, option):
    done = run("--config-file", "c", "--weights", "w", "--input", "i", "--output", "o", option, "0", cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument {option}: 1 or more" in done.stderr


def test_input_that_cannot_be_read_is_one_line_and_leaves_nothing(model, tmp_path):
    (tmp_path / "notes.txt").write_text("no CT")
    done = run(*model, "--input", "notes.txt", "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: notes.txt: ")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_is_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").write_text("mine")
    words = ["--config-file", "none.yaml", "--weights", "none.pth", "--input", "none", "--output", "out"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: out: a file; expected a folder")


@pytest.mark.slow
def test_tree_of_series_gives_a_folder_each_and_a_table(model, tmp_path):
    write_tree(tmp_path / "tree", 3)
    (tmp_path / "tree" / "patient 1" / "ct" / "005.dcm").unlink()
    words = [*model, "--input", "tree", "--output", "out", "--workers", "2"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    rows = summary(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert [path.name for path in folders(tmp_path / "out")] == sorted(rows[k]["series_hash"] for k in (0, 2))
    assert "gap" in rows[1]["error_found"]
    assert "2 series done, 0 kept from before, 1 failed; research use only; written to out" in done.stderr
    assert "Traceback" not in done.stderr
    again = run(*words, cwd=tmp_path)
    assert [row["status"] for row in summary(tmp_path / "out")] == ["kept", "failed", "kept"]
    assert "0 series done, 2 kept from before, 1 failed" in again.stderr


@pytest.mark.slow
def test_model_that_cannot_be_loaded_is_one_line_for_all_series(model, tmp_path):
    write_tree(tmp_path / "tree", 2)
    words = [*model[:2], "--weights", "none.pth", "--input", "tree", "--output", "out"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: none.pth: no such file")
    assert done.stderr.count("error:") == 1


def plant(path: Path) -> None:
    """Write an identity into every text of a DICOM file, and some more."""
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT_ID, BIRTH_DATE
    for keyword in (
        *("StudyDescription", "SeriesDescription", "InstitutionName", "ReferringPhysicianName", "OperatorsName"),
        *("PatientComments", "ImageComments", "OtherPatientNames", "ProtocolName", "AdditionalPatientHistory"),
        *("AccessionNumber", "StudyID", "StationName", "Manufacturer", "ManufacturerModelName", "KVP"),
    ):
        if keyword == "KVP":
            dataset.KVP = "120"
        else:
            setattr(dataset, keyword, NAME)
    dataset.OtherPatientIDs = PATIENT_ID
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = BIRTH_DATE
    block = dataset.private_block(0x0019, f"{NAME} {PATIENT_ID}", create=True)
    block.add_new(0x01, "LO", f"{NAME} {PATIENT_ID} {BIRTH_DATE}")
    dataset.save_as(path)


def contents(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) + data if path.suffix == ".gz" else data


@pytest.mark.slow
def test_patient_is_named_by_the_dicom_objects_alone(model, tmp_path):
    tree = tmp_path / f"DOE_JANE {PATIENT_ID}" / f"{NAME} {BIRTH_DATE}"
    for number in range(4):
        write_chest(tree / f"{PATIENT_ID} {number}", SeriesInstanceUID=f"1.2.3.{number}")
    for path in tree.rglob("*.dcm"):
        plant(path)
        path.rename(path.with_name(f"{NAME} {BIRTH_DATE} {path.name}"))
    next((tree / f"{PATIENT_ID} 1").iterdir()).unlink()  # fails not: the first slice
    sorted((tree / f"{PATIENT_ID} 2").iterdir())[5].unlink()  # fails: a gap
    for path in (tree / f"{PATIENT_ID} 3").iterdir():  # is refused as DICOM
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = PATIENT_ID
        dataset.save_as(path)
    words = [*model, "--input", tree, "--output", "out", "--score-threshold", "0.2", "--empty-segmentation"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(summary(tmp_path / "out")) == 4
    holding = set()
    for path in (tmp_path / "out").rglob("*"):
        assert not any(word in str(path.relative_to(tmp_path)) for word in IDENTITY)
        if path.is_file() and any(word.encode() in contents(path) for word in IDENTITY):
            holding.add(path.name)
    assert holding == {
        "structured_report.dcm",
        "segmentation_ground_glass_opacity.dcm",
        "segmentation_bronchiectasis.dcm",
    }
    assert not any(word in line for line in done.stderr.splitlines() for word in IDENTITY if "/" not in line)


@pytest.mark.slow
def test_150_slices_leave_room_for_600_in_2_5_gib(model, tmp_path):
    planes = [cv2.resize(plane, (512, 512), interpolation=cv2.INTER_NEAREST) for plane in chest_hu()]
    for index in range(150):
        stored = (planes[index * 12 // 150] + 1024).astype(np.int16)
        place = {"z": 2.0 * index, "PixelSpacing": [0.5, 0.65], "FrameOfReferenceUID": FRAME_UID}
        write(make_slice(stored, **place), tmp_path / "series" / f"{index:03d}.dcm")
    done = run(*model, "--input", "series", "--output", "out", "--score-threshold", "0.3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["slices"] == 150
    assert json.loads((folder / "findings.json").read_text())["lesions_found"]
    # Each of the other 450 slices keeps 0.5 MiB of HU, 0.25 of lungs, and as much again for what is written.
    assert 500 < manifest["peak_memory_mib"] < 2560 - 450 * 1.5


RESULT = {
    *("detections.json", "findings.json", "lesions.csv", "lesions.nii.gz", "manifest.json", "report.html"),
    *("slices.json", "structured_report.dcm", "overlays"),
}


def comparable(path: Path) -> Any:
    """Return what two runs alike have in common: all but times, and the random UIDs of DICOM objects."""
    if path.name == "manifest.json":
        manifest = json.loads(path.read_text())
        return {key: value for key, value in manifest.items() if key not in ("seconds", "peak_memory_mib")}
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".dcm":
        text = str(pydicom.dcmread(path))
        text = re.sub(r"(2\.25|1\.2\.826\.0\.1\.3680043\.10\.511\.3)\.\d+", "UID", text)  # the latter: highdicom
        return re.sub(r"(?m)^.*(Date|Time|Group Length).*$", "", text)
    return path.read_bytes()


def snapshot(output: Path) -> dict[str, Any]:
    return {
        path.relative_to(output).as_posix(): comparable(path)
        for path in output.rglob("*")
        if path.is_file() and path.name != "summary.csv"
    }


@pytest.mark.slow
def test_killed_in_a_tree_and_started_again_equals_the_uninterrupted(model, tmp_path):
    write_tree(tmp_path / "tree", 5)
    words = [*model, "--input", "tree", "--score-threshold", "0.2", "--workers", "2", "--output"]
    whole = run(*words, "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    kills = 0
    for enough in (1, 3):
        process = start(*words, "cut", cwd=tmp_path, start_new_session=True)
        while process.poll() is None and len(list((tmp_path / "cut").glob("[!.]*/manifest.json"))) < enough:
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        for folder in (tmp_path / "cut").glob("[!.]*"):
            assert {path.name for path in folder.iterdir()} - {"segmentation_bronchiectasis.dcm"} >= RESULT
        assert not (tmp_path / "cut" / "summary.csv").exists()
    assert kills == 2
    again = run(*words, "cut", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    statuses = [row.pop("status") for row in summary(tmp_path / "cut")]
    assert set(statuses) == {"kept", "done"}
    assert statuses.count("kept") >= 3
    expected, found = snapshot(tmp_path / "whole"), snapshot(tmp_path / "cut")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    rows = [
        [
            {key: value for key, value in row.items() if key not in ("status", "seconds")}
            for row in summary(tmp_path / at)
        ]
        for at in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5
