"""Which series a source holds, which one is chosen, and whose it is."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ct.dicom_files import (
    PLANTED,
    SERIES_UID,
    expected_hu,
    make_slice,
    refused,
    stored_slices,
    write,
    write_series,
)
from lung_d2.ct import find_series, load_series, read_volume
from lung_d2.errors import SeriesChoiceError


def test_localizer_in_a_series_of_its_own(tmp_path: Path) -> None:
    write_series(tmp_path)
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": SERIES_UID + ".9"}
    scout = write(make_slice(stored_slices(1)[0], **tags), tmp_path / "scout")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "only localizer" in refused(scout)


def test_several_series_are_listed_and_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", count=3, SeriesInstanceUID=SERIES_UID + ".7")
    message = refused(tmp_path, SeriesChoiceError)
    assert f"{SERIES_UID} (4 slices, 6 x 5 pixels, 2 x 0.5 x 0.75 mm)" in message
    assert f"{SERIES_UID}.7 (3 slices" in message
    assert read_volume(tmp_path, series_uid=SERIES_UID + ".7").hu.shape == (3, 6, 5)
    with pytest.raises(SeriesChoiceError, match=r"no series 1\.2\.3; there are"):
        read_volume(tmp_path, series_uid="1.2.3")


def test_a_broken_series_does_not_stop_the_other(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", PixelSpacing=None, SeriesInstanceUID=SERIES_UID + ".7")
    assert "unreadable: no PixelSpacing" in refused(tmp_path, SeriesChoiceError)
    assert read_volume(tmp_path, series_uid=SERIES_UID).hu.shape == (4, 6, 5)


def test_patients_with_one_series_uid_are_kept_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", PatientID="PLANTED-OTHER")
    assert "the UID does not tell them apart" in refused(tmp_path, SeriesChoiceError)


def test_empty_uids(tmp_path: Path) -> None:
    write_series(tmp_path, SOPInstanceUID="", SeriesInstanceUID="")
    volume = read_volume(tmp_path)
    assert volume.sop_instance_uids == ("",) * 4
    assert volume.series_instance_uid == ""
    assert len(volume.series_hash) == 16


def test_same_sop_uid_everywhere_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, SOPInstanceUID="1.2.3")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))
    assert "3 files have the SOPInstanceUID of another" in caplog.text


@pytest.mark.parametrize("tags", [{"Modality": None}, {"Modality": None, "SOPClassUID": ""}, {"Modality": "ct"}])
def test_missing_modality(tmp_path: Path, tags: dict[str, object]) -> None:
    write_series(tmp_path, **tags)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, expected_hu(4))


def test_rescale_in_some_slices_only(tmp_path: Path) -> None:
    write_series(tmp_path)
    write(make_slice(stored_slices(1)[0], z=8.0, RescaleIntercept=None), tmp_path / "b")
    assert "as 1 of the 5 slices" in refused(tmp_path)


def test_identity_leaves_as_hash_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        write_series(tmp_path / "a", PatientName="PLANTED" * 30)
        write_series(tmp_path / "b", SeriesInstanceUID="1.2.3.7")
        found = find_series(tmp_path)
        volumes = [load_series(series) for series in found]
    assert not any(word in text for word in PLANTED for text in (caplog.text, repr(found), repr(volumes)))
    assert volumes[0].patient_hash == volumes[1].patient_hash
    assert volumes[0].series_hash != volumes[1].series_hash
    assert len(volumes[0].patient_hash) == 16


def test_patient_falls_back_to_the_study(tmp_path: Path) -> None:
    write_series(tmp_path / "a", PatientID="")
    write_series(tmp_path / "b", PatientID="", StudyInstanceUID="1.2.3")
    first, second = (read_volume(tmp_path / name).patient_hash for name in "ab")
    assert first != second


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 500, b"\0" * 128 + b"DICM", b"\x08\0" * 300])
def test_files_that_are_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    assert str(tmp_path / "a.dcm") in refused(tmp_path / "a.dcm")


def test_sources_without_files(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent")
    assert "no files" in refused(tmp_path)
    assert "no files" in refused([])
