"""What all DICOM objects share: UIDs, silence about the patient, and whole files or none."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ct.dicom_files import make_slice, stored_slices
from lung_d2.errors import OutputError
from lung_d2.findings.dicom_object import build_object, device_uid, new_uid, quiet_highdicom, save_object


def test_uids_are_legal_and_differ() -> None:
    uids = {new_uid() for _ in range(100)} | {device_uid()}
    assert len(uids) == 101
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in uids)


def test_device_is_the_same_in_all_reports() -> None:
    assert device_uid() == device_uid()


def test_highdicom_is_silent_inside_and_speaks_after(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("highdicom.base")
    with quiet_highdicom(), warnings.catch_warnings(record=True) as caught:
        logger.warning("DOE^JANE")
        pydicom.valuerep.DSfloat("1.23456789012345678901")
    assert not caplog.records
    assert not caught
    logger.warning("after")
    assert caplog.messages == ["after"]


def test_refusal_does_not_quote_the_reason() -> None:
    def refuse(**_: object) -> Dataset:
        raise ValueError("DOE^JANE")

    with pytest.raises(OutputError) as caught:
        build_object(refuse, "a report")
    assert "DOE" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"earlier")
    dataset = make_slice(stored_slices(1)[0], SOPInstanceUID="1.2.3")
    save_object(dataset, path)
    assert pydicom.dcmread(path).SOPInstanceUID == "1.2.3"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_encoded_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"earlier")
    dataset = make_slice(stored_slices(1)[0], Rows="DOE")
    with pytest.raises(OutputError) as caught:
        save_object(dataset, path)
    assert "DOE" not in str(caught.value)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save_object(make_slice(stored_slices(1)[0]), tmp_path / "a.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.dcm"]
