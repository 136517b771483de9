from __future__ import annotations

import json
import logging
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from ct.dicom_files import PATIENT_ID, PLANTED, write_series
from lung_d2.ct import read_volume, write_nifti
from lung_d2.files import pseudonym, read_key
from tiny import square

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "prepare_dataset.py"


class Done(NamedTuple):
    """How a call of the tool ended, and what it said."""

    returncode: int
    stderr: str


@pytest.fixture
def prepare(tmp_path, monkeypatch, caplog, capfd):
    """Give a function that runs the tool, in this process, with ``tmp_path/root`` for data sets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)

    def run(*words):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words), "--name", "made", "--workers", "1"])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return Done(caught.value.code, "\n".join([*caplog.messages, capfd.readouterr().err]))

    return run


def test_the_tool_runs_as_a_command(tmp_path, pictures):
    words = [*pictures, "--patients", "^([a-z])_", "--val-fraction", "0.5", "--name", "made", "--root", tmp_path]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"look at {tmp_path / 'lung_ct' / 'made' / 'report.html'}" in done.stderr


def content(tmp_path, split):
    return json.loads((tmp_path / "root" / "lung_ct" / "made" / "annotations" / f"{split}.json").read_text())


def error_of(done):
    """Return the one line that a refusal ends with."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == done.stderr.splitlines()[-1]
    return line


@pytest.fixture
def pictures(tmp_path):
    for name in ("a_1.png", "a_2.png", "b_1.png"):
        for folder, values in (("ct", np.full((16, 16), 50)), ("ggo", square(16, 2, 2, 5) * 255)):
            (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "source" / folder / name), values.astype(np.uint8))
    return ["slices", tmp_path / "source", "--images", "ct", "--masks", "ggo=ground_glass_opacity"]


@pytest.fixture
def series(tmp_path):
    """Give two patients' series of 3 slices, with a label map each."""
    for number in range(2):
        folder = tmp_path / "source" / f"case{number}"
        write_series(folder / "dicom", 3, PatientID=f"{PATIENT_ID}-{number}", SeriesInstanceUID=f"1.2.{number}")
        labels = np.zeros((3, 6, 5), np.uint8)
        labels[1, 1:4, 1:3] = 1
        labels[2, 5, 4] = 2
        write_nifti(labels, read_volume(folder / "dicom").affine_lps, folder / "labels.nii.gz")
    return ["dicom", tmp_path / "source", "--label", "1=ground_glass_opacity", "--label", "2=bronchiectasis"]


def test_dicom_with_label_maps(prepare, series, tmp_path):
    done = prepare(*series, "--val-fraction", "0.5")
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        found = content(tmp_path, split)
        assert len(found["images"]) == 3
        assert Counter(annotation["category_id"] for annotation in found["annotations"]) == {1: 1, 2: 1}
        assert f"made_{split}: 1 patients, 3 slices, 1 ground_glass_opacity, 1 bronchiectasis" in done.stderr


def test_data_set_holds_nothing_of_the_patient(prepare, series, tmp_path):
    done = prepare(*series, "--val-fraction", "0.5")
    everything = done.stderr + json.dumps([content(tmp_path, split) for split in ("train", "val")])
    assert not any(word in everything for word in (*PLANTED, PATIENT_ID))


def test_split_file_names_patients_of_dicom(prepare, series, tmp_path):
    (tmp_path / "split.csv").write_text(f"patient,split\n{PATIENT_ID}-0,val\n{PATIENT_ID}-1,test\n")
    done = prepare(*series, "--split-file", tmp_path / "split.csv")
    assert done.returncode == 0, done.stderr
    (name,) = {image["series"] for image in content(tmp_path, "val")["images"]}
    series_hash = read_volume(tmp_path / "source" / "case0" / "dicom").series_hash
    assert name == pseudonym("series", series_hash, read_key(tmp_path / "root/lung_ct/made/pseudonym.key"))


def test_split_file_that_lacks_a_case_is_named(prepare, series, tmp_path):
    (tmp_path / "split.csv").write_text("case,split\ncase0,train\n")
    line = error_of(prepare(*series, "--split-file", tmp_path / "split.csv"))
    assert f"case1: no split in {tmp_path / 'split.csv'}" in line


def test_set_without_a_training_split_is_made_with_a_warning(prepare, series, tmp_path):
    done = prepare(*series, "--val-fraction", "0.9", "--test-fraction", "0.1")
    assert done.returncode == 0, done.stderr
    assert "no patient is in the split train" in done.stderr
    assert not (tmp_path / "root" / "lung_ct" / "made" / "annotations" / "train.json").exists()


def test_split_file_names_case_folders(prepare, series, tmp_path):
    (tmp_path / "split.csv").write_text("case,split\ncase0,train\ncase1,val\n")
    done = prepare(*series, "--split-file", tmp_path / "split.csv")
    assert done.returncode == 0, done.stderr
    assert len(content(tmp_path, "val")["images"]) == 3


def test_two_cases_of_a_patient_in_two_splits_are_refused(prepare, series, tmp_path):
    write_series(tmp_path / "source" / "case1" / "dicom", 3, PatientID=f"{PATIENT_ID}-0", SeriesInstanceUID="1.2.1")
    (tmp_path / "split.csv").write_text("case,split\ncase0,train\ncase1,val\n")
    line = error_of(prepare(*series, "--split-file", tmp_path / "split.csv"))
    assert "case1: in val, another case of its patient in train" in line


def test_cases_of_one_dummy_id_are_told_apart_by_their_folders(prepare, series, tmp_path):
    for number in range(2):
        folder = tmp_path / "source" / f"case{number}" / "dicom"
        shutil.rmtree(folder)
        write_series(folder, 3, PatientID="ANON", SeriesInstanceUID=f"1.2.{number}")
    assert "1 patient(s) for 2 splits" in (line := error_of(prepare(*series)))
    assert "--patients-from folder" in line
    done = prepare(*series, "--patients-from", "folder", "--val-fraction", "0.5")
    assert done.returncode == 0, done.stderr
    assert len(content(tmp_path, "train")["images"]) == len(content(tmp_path, "val")["images"]) == 3


def test_split_file_names_folders_that_are_the_patients(prepare, series, tmp_path):
    (tmp_path / "split.csv").write_text("patient,split\ncase0,train\ncase1,val\n")
    done = prepare(*series, "--split-file", tmp_path / "split.csv", "--patients-from", "folder")
    assert done.returncode == 0, done.stderr


def test_label_may_be_background_and_a_series_without_lesions(prepare, series, tmp_path):
    (tmp_path / "source" / "case1" / "labels.nii.gz").unlink()
    words = [*series[:-1], "2=background", "--val-fraction", "0.5"]
    assert "case1: no mask" in error_of(prepare(*words))
    done = prepare(*words, "--allow-unannotated")
    assert done.returncode == 0, done.stderr
    found = [content(tmp_path, split) for split in ("train", "val")]
    assert sorted(Counter(a["category_id"] for a in split["annotations"]).total() for split in found) == [0, 1]
    kept = 2 if found[0]["annotations"] else 3  # of the training split a lesion-free slice for each with a lesion
    assert [len(split["images"]) for split in found] == [kept, 3]


def test_a_third_category_is_in_the_data_set(prepare, series, tmp_path):
    own = "2=consolidation,code=95436008|SCT|Lung consolidation,color=#CC79A7,short=CON"
    done = prepare(*series[:-1], own, "--val-fraction", "0.5")
    assert done.returncode == 0, done.stderr
    assert "made_val: 1 patients, 3 slices, 1 ground_glass_opacity, 0 bronchiectasis, 1 consolidation" in done.stderr
    found = content(tmp_path, "val")
    assert found["categories"][2] == {
        "id": 3,
        "name": "consolidation",
        "supercategory": "lung lesion",
        "short_name": "CON",
        "color": [204, 121, 167],
        "code": {"value": "95436008", "scheme": "SCT", "meaning": "Lung consolidation"},
    }
    assert Counter(annotation["category_id"] for annotation in found["annotations"]) == {1: 1, 3: 1}
    folder = tmp_path / "root" / "lung_ct" / "made"
    report = json.loads((folder / "report.json").read_text())
    assert report["splits"]["val"]["categories"]["consolidation"]["lesions"] == 1
    assert "consolidation" in (folder / "report.html").read_text()


def test_home_in_the_root_is_expanded(prepare, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = prepare(*pictures, "--patients", "^([a-z])_", "--val-fraction", "0.5", "--root", "~/sets")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "sets" / "lung_ct" / "made").is_dir()


def test_root_that_is_a_file_is_one_line(prepare, pictures, tmp_path):
    (tmp_path / "root").write_text("")
    line = error_of(prepare(*pictures, "--patients", "^([a-z])_", "--val-fraction", "0.5"))
    assert line.startswith(f"error: {tmp_path / 'root'}: a file; expected a folder")


def test_pictures_by_pattern(prepare, pictures, tmp_path):
    done = prepare(*pictures, "--patients", "^([a-z])_", "--val-fraction", "0.5")
    assert done.returncode == 0, done.stderr
    counts = sorted(len(content(tmp_path, split)["images"]) for split in ("train", "val"))
    assert counts == [1, 2]


def test_pictures_without_patients_are_refused(prepare, pictures):
    assert "a_1.png: no patient" in error_of(prepare(*pictures))


@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (["--label", "=bronchiectasis"], "--label =bronchiectasis: no label"),
        (["--label", "x=tumour"], "category 'tumour': unknown"),
        (["--label", "3"], "--label 3: no label"),
        (["--split-file", "none.csv"], "none.csv: no such file"),
        (["--split-file", "."], ".: a folder"),
        (["--val-fraction", "1.5"], "--val-fraction 1.5 --test-fraction 0: 1.5 of the patients"),
        (
            ["--val-fraction", "0.6", "--test-fraction", "0.6"],
            "--val-fraction 0.6 --test-fraction 0.6: 1.2 of the patients; expected shares from 0 to 1",
        ),
        (["--val-fraction", "-0.1"], "a share below 0"),
    ],
)
def test_bad_option_is_one_line(prepare, series, words, finding):
    assert finding in error_of(prepare(*series, *words))


def test_covid_slices_with_their_split(prepare, data_root, tmp_path):
    source = data_root / "covid_slices"
    folders = ["--images", "ct", "--masks", "covid=ground_glass_opacity", "--split-file", source / "split.csv"]
    done = prepare("slices", source, *folders)
    assert done.returncode == 0, done.stderr
    train, val = content(tmp_path, "train"), content(tmp_path, "val")
    assert (len(train["images"]), len(val["images"])) == (1093, 189)
    patients = [{image["patient"] for image in split["images"]} for split in (train, val)]
    assert [len(names) for names in patients] == [11, 4]
    assert not patients[0] & patients[1]
    annotated = {annotation["image_id"] for annotation in train["annotations"]}
    assert len(annotated) == 1093  # every slice has a lesion
    assert [len(split["annotations"]) for split in (train, val)] == [3209, 430]  # connected parts
    assert not any(image["hu"] for image in val["images"])
