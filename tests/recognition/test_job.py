from __future__ import annotations

import builtins
import json
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from ct.dicom_files import write_series
from lung_d2.ct.nifti import write_nifti
from lung_d2.errors import CheckpointError, InputError
from lung_d2.lesions import LinkSettings
from lung_d2.recognition import LabelFiles, RecognitionSettings
from lung_d2.recognition.job import ModelChoice, RecognitionJob
from lung_d2.recognition.sources import SeriesSource, find_inputs
from lung_d2.recognition.summary import DONE, FAILED, KEPT
from recognition.chests import StandIn, write_chest, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config, weights = write_model(tmp_path_factory.mktemp("model"))
    return ModelChoice(config, ("MODEL.WEIGHTS", str(weights)))


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", 3)
    return find_inputs([tmp_path / "series"]).series[0]


@pytest.fixture
def job(model, tmp_path):
    (tmp_path / "out").mkdir()
    return RecognitionJob(model, tmp_path / "out")


def times(job):
    return {path.name: path.stat().st_mtime_ns for path in job.output.glob("*/manifest.json")}


def with_settings(job, **changed):
    return RecognitionJob(job.model, job.output, RecognitionSettings(**changed))


def test_series_is_done_and_kept_the_next_time(job, series):
    folder, status = job.run(series)
    assert (folder, status) == (job.output / series.name, DONE)
    before = times(job)
    assert job.run(series) == (folder, KEPT)
    assert times(job) == before


def test_overwrite_does_it_again(job, series):
    job.run(series)
    before = times(job)
    assert RecognitionJob(job.model, job.output, overwrite=True).run(series)[1] == DONE
    assert times(job) != before


def test_result_of_other_settings_is_replaced_and_that_is_said(job, series, caplog):
    job.run(series)
    RecognitionJob(job.model, job.output, overwrite=True).run(series)
    assert "replaced" not in caplog.text
    assert with_settings(job, link=LinkSettings(0.1)).run(series)[1] == DONE
    assert caplog.text.count(f"{series.title}: other files, weights, config or settings than before") == 1


def test_result_of_another_config_is_replaced(job, series):
    job.run(series)
    other = ModelChoice(job.model.config_file, ("TEST.DETECTIONS_PER_IMAGE", "5", *job.model.opts))
    assert RecognitionJob(other, job.output).run(series)[1] == DONE


def test_result_of_changed_files_is_replaced(job, series):
    job.run(series)
    os.utime(series.paths[0], ns=(1, 1))
    assert job.run(series)[1] == DONE


def test_result_of_other_labels_is_replaced(job, series, tmp_path):
    affine = np.diag([0.75, 0.5, 2.0, 1.0])
    for value in (1, 2):
        write_nifti(np.full((3, 6, 5), value, np.uint8), affine, tmp_path / "lungs.nii.gz")
        assert with_settings(job, labels=LabelFiles(lungs=tmp_path / "lungs.nii.gz")).run(series)[1] == DONE


def test_result_is_of_the_folder_that_it_is_found_in(job, series):
    folder, _ = job.run(series)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "of another"}))
    assert job.run(series)[1] == DONE


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_damaged_manifest_is_no_result(job, series, damage):
    folder, _ = job.run(series)
    (folder / "manifest.json").write_text(damage)
    assert job.run(series)[1] == DONE


def test_volume_file_is_found_by_what_it_was_made_of(job, tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 100, (3, 6, 5)).astype(np.int16)
    write_nifti(hu, np.diag([0.75, 0.5, 2.0, 1.0]), tmp_path / "series.nii")
    (series,) = find_inputs([tmp_path / "series.nii"]).series
    assert series.name == ""
    folder, _ = job.run(series)
    assert job.run(series) == (folder, KEPT)
    folder.rename(folder.with_name(f".{folder.name}.partial"))  # as a kill just before the end leaves it
    assert job.run(series) == (folder, DONE)


def test_result_gets_the_name_of_its_source(job, series):
    other = SeriesSource(series.paths, series.series_instance_uid, "0123456789abcdef")
    folder, _ = job.run(other)
    assert folder.name == "0123456789abcdef"
    assert json.loads((folder / "manifest.json").read_text())["series_hash"] == folder.name


def test_call_tells_an_error_by_the_row(job, series, caplog):
    assert job(series).status == DONE
    series.paths[1].unlink()
    row = job(series)
    assert row.status == FAILED
    assert row.series_hash == series.name
    assert row.found == "no such file"
    assert str(series.paths[1]) in caplog.text
    with pytest.raises(InputError, match=r"none\.nii: no such file"):
        job.run(SeriesSource((series.paths[0].with_name("none.nii"),)))


def test_job_goes_to_another_process(job, series):
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert copy.run(pickle.loads(pickle.dumps(series)))[1] == DONE


def test_prepare_says_what_is_wrong_with_the_model(model, tmp_path):
    broken = ModelChoice(model.config_file, ("MODEL.WEIGHTS", str(tmp_path / "none.pth")))
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        RecognitionJob(broken, tmp_path).prepare()


def test_each_dicom_file_is_opened_for_its_header_and_for_its_pixels(job, tmp_path, monkeypatch):
    files = [str(path) for path in write_chest(tmp_path / "chest")]
    monkeypatch.setattr("lung_d2.recognition.job.load_predictor", lambda model: StandIn())
    counts, true_open = Counter(), builtins.open

    def counting_open(file, *args, **options):
        counts[str(file)] += 1
        return true_open(file, *args, **options)

    monkeypatch.setattr(builtins, "open", counting_open)
    folder, _ = job.run(find_inputs([tmp_path / "chest"]).series[0])
    assert {path.name for path in folder.glob("*.dcm")} >= {"structured_report.dcm"}
    assert len(list(folder.glob("segmentation_*.dcm"))) == 2
    assert {counts[path] for path in files} == {2}
