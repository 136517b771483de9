from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ct.dicom_files import PLANTED, make_slice, stored_slices, write, write_series
from lung_d2.ct import find_series
from lung_d2.data.planes import write_plane
from lung_d2.errors import InputError, SeriesChoiceError
from lung_d2.recognition.sources import find_inputs


def uids(inputs):
    return [one.series_instance_uid for one in inputs.series]


def test_every_series_of_a_tree_is_found(tmp_path):
    for number in (2, 1, 3):
        write_series(tmp_path / f"patient {number}" / "ct", 3, SeriesInstanceUID=f"1.2.{number}")
    inputs = find_inputs([tmp_path])
    assert uids(inputs) == ["1.2.1", "1.2.2", "1.2.3"]
    assert all(len(one.paths) == 3 for one in inputs.series)
    assert inputs.unreadable == ()


def test_series_in_one_folder_are_told_apart(tmp_path):
    for number in (1, 2):
        write_series(tmp_path, 2, names=[f"{number}-{k}" for k in range(2)], SeriesInstanceUID=f"1.2.{number}")
    assert uids(find_inputs([tmp_path])) == ["1.2.1", "1.2.2"]


def test_series_is_named_as_its_volume_will_be(tmp_path):
    write_series(tmp_path, 3)
    (one,) = find_inputs([tmp_path]).series
    assert one.name == find_series(tmp_path)[0].series_hash


def test_series_of_one_uid_and_two_patients_get_two_names(tmp_path):
    for patient in ("a", "b"):
        write_series(tmp_path / patient, 2, PatientID=patient)
    first, second = find_inputs([tmp_path]).series
    assert first.series_instance_uid == second.series_instance_uid
    assert first.name != second.name


def test_series_without_uid_is_named_by_its_images(tmp_path):
    write_series(tmp_path, 2, SeriesInstanceUID=None)
    (one,) = find_inputs([tmp_path]).series
    assert one.name == find_series(tmp_path)[0].series_hash
    assert str(tmp_path) in one.title


def test_localizers_are_left_out_unless_they_are_all(tmp_path):
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.9"}
    write(make_slice(stored_slices(1)[0], **localizer), tmp_path / "scout")
    assert uids(find_inputs([tmp_path])) == ["1.2.9"]
    write_series(tmp_path / "ct", 2, SeriesInstanceUID="1.2.1")
    assert uids(find_inputs([tmp_path])) == ["1.2.1"]


def test_other_files_are_counted(tmp_path, caplog):
    write_series(tmp_path, 2)
    write(make_slice(stored_slices(1)[0], Modality="MR"), tmp_path / "mr")
    (tmp_path / "notes.txt").write_text("no image")
    with caplog.at_level(logging.INFO):
        assert len(find_inputs([tmp_path]).series) == 1
    assert "left out 1 MR, 1 file that is not DICOM" in caplog.text


def test_damaged_file_does_not_hide_the_others(tmp_path):
    write_series(tmp_path / "good", 2)
    (bad,) = write_series(tmp_path / "bad", 1, transfer_syntax=DeflatedExplicitVRLittleEndian)
    bad.write_bytes(bad.read_bytes()[:400])
    inputs = find_inputs([tmp_path])
    assert len(inputs.series) == 1
    assert [error.where for error in inputs.unreadable] == [str(bad)]
    with pytest.raises(InputError, match="damaged DICOM header"):
        find_inputs([tmp_path / "bad"])


def test_series_is_chosen_by_uid(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), 2, SeriesInstanceUID=f"1.2.{number}")
    assert uids(find_inputs([tmp_path], "1.2.2")) == ["1.2.2"]
    with pytest.raises(SeriesChoiceError, match=r"no series 1\.2\.7; there are 1\.2\.1, 1\.2\.2"):
        find_inputs([tmp_path], "1.2.7")


def test_volume_files_beside_dicom_are_masks(tmp_path):
    write_series(tmp_path, 2)
    (tmp_path / "mask.nii.gz").touch()
    assert len(find_inputs([tmp_path]).series) == 1


def test_volume_files_without_dicom_are_series(tmp_path):
    for name in ("a.nii.gz", "b.nrrd"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    assert [one.paths[0].name for one in find_inputs([tmp_path]).series] == ["a.nii.gz", "b.nrrd"]


def write_result(folder: Path) -> None:
    (folder / "overlays").mkdir(parents=True)
    for name in ("lesions.nii.gz", "overlays/more.nii.gz"):
        (folder / name).touch()
    manifest = {"series_hash": "ab", "weights_sha256": "", "seconds": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def names(inputs):
    return [one.paths[0].name for one in inputs.series]


def test_results_are_no_input(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").touch()
    write_result(tmp_path / "earlier" / "ab")
    assert names(find_inputs([tmp_path])) == ["a.nii.gz"]
    with pytest.raises(InputError):
        find_inputs([tmp_path / "earlier"])
    assert names(find_inputs([tmp_path / "earlier" / "ab" / "lesions.nii.gz"])) == ["lesions.nii.gz"]
    (tmp_path / "out" / ".ab.partial").mkdir(parents=True)
    (tmp_path / "out" / ".ab.partial" / "lesions.nii.gz").touch()  # as a kill leaves it, without a manifest
    monkeypatch.chdir(tmp_path)
    assert names(find_inputs([Path()], output=Path("out"))) == ["a.nii.gz"]


def test_series_among_results_is_said_to_be_passed_over(tmp_path):
    write_result(tmp_path)
    write_series(tmp_path, 2)
    with pytest.raises(InputError, match="only results of an earlier run"):
        find_inputs([tmp_path])


def test_output_that_holds_the_input_hides_none_of_it(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "a.nii.gz").touch()
    for output in (tmp_path / "series", tmp_path):
        assert names(find_inputs([tmp_path / "series"], output=output)) == ["a.nii.gz"]


@pytest.mark.parametrize("content", ['{"series": []}', "[1]", "{", '"\\ud800"'])
def test_manifest_of_others_hides_nothing(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "a.nii.gz").touch()
    assert names(find_inputs([tmp_path])) == ["a.nii.gz"]


def test_volume_file_that_is_named_is_a_series_beside_others(tmp_path):
    write_series(tmp_path / "ct", 2)
    (tmp_path / "a.nii").touch()
    inputs = find_inputs([tmp_path / "a.nii", tmp_path / "ct"])
    assert [len(one.paths) for one in inputs.series] == [2, 1]
    assert inputs.series[1].title == str(tmp_path / "a.nii")


def test_pictures_are_one_source(tmp_path):
    paths = [tmp_path / name for name in ("b.png", "a.png")]
    for path in paths:
        write_plane(np.full((40, 50), 100, np.uint8), path)
    assert find_inputs(paths).series[0].paths == tuple(paths)
    assert find_inputs([tmp_path]).series[0].paths == tuple(sorted(paths))


def test_pictures_among_other_files_are_refused(tmp_path):
    (series,) = write_series(tmp_path, 1)
    write_plane(np.full((40, 50), 100, np.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: a picture among other files"):
        find_inputs([series, tmp_path / "a.png"])


def test_input_without_ct_says_what_there_is(tmp_path):
    write(make_slice(stored_slices(1)[0], Modality="MR"), tmp_path / "mr")
    with pytest.raises(InputError, match="this is an MR; expected CT"):
        find_inputs([tmp_path])


def test_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="none: no such file or folder"):
        find_inputs([tmp_path / "none"])


def test_nothing_of_a_header_is_kept(tmp_path):
    write_series(tmp_path, 2)
    assert not any(word in repr(vars(one)) for one in find_inputs([tmp_path]).series for word in PLANTED)
