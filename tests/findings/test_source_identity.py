"""Patient and study of a file: what is carried over, and in what form."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from ct.dicom_files import make_slice, stored_slices, write
from lung_d2.ct.headers import quiet_pydicom
from lung_d2.findings.source_images import clean_identity

pytestmark = pytest.mark.filterwarnings("ignore")


def identity(folder: Path, **tags: object) -> Dataset:
    path = write(make_slice(stored_slices(1)[0], **tags), folder / "a.dcm")
    with quiet_pydicom():
        return clean_identity(path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientName", "DOE^JANE^^^", "DOE^JANE^^^"),
        ("PatientName", "DOE^JANE\\ROE^JOE", "DOE^JANE ROE^JOE"),
        ("PatientID", "A" * 100, "A" * 100),
        ("PatientID", "12\n34\0", "1234"),
        ("PatientBirthDate", "19010203", "19010203"),
        ("PatientBirthDate", "1901.02.03", "19010203"),
        ("PatientBirthDate", "19010230", ""),
        ("PatientBirthDate", "190102", ""),
        ("PatientSex", "F", "F"),
        ("PatientSex", "female", ""),
        ("StudyDate", None, ""),
        ("StudyTime", "235959.123456", "235959.123456"),
        ("StudyTime", "23:59:59", "235959"),
        ("StudyTime", "2359", "2359"),
        ("StudyTime", "9 o'clock", ""),
        ("AccessionNumber", "X" * 20, "X" * 20),
        ("StudyDescription", "CT  Thorax", "CT  Thorax"),
    ],
)
def test_value(name: str, value: str | None, expected: str, tmp_path: Path) -> None:
    assert str(identity(tmp_path, **{name: value})[name].value) == expected


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "DÖE^JÄNE"),
        ("ISO_IR 192", "Дое^Джейн"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_name_is_decoded(charset: str | list[str], name: str, tmp_path: Path) -> None:
    assert str(identity(tmp_path, SpecificCharacterSet=charset, PatientName=name).PatientName) == name


@pytest.mark.parametrize(
    ("name", "value"), [("PatientAge", "old"), ("LossyImageCompression", "yes"), ("PatientIdentityRemoved", "maybe")]
)
def test_optional_code_that_is_none_is_left_out(name: str, value: str, tmp_path: Path) -> None:
    assert name not in identity(tmp_path, **{name: value})


def test_attributes_of_type_2_are_there_if_empty(tmp_path: Path) -> None:
    found = identity(tmp_path, PatientName=None, PatientID=None, PatientBirthDate=None)
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName")
    assert all(str(found[name].value or "") == "" for name in names)


def test_removed_identity_is_told_with_its_method(tmp_path: Path) -> None:
    found = identity(tmp_path, PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    assert (found.PatientIdentityRemoved, found.DeidentificationMethod) == ("YES", "by hand")
    assert "PatientIdentityRemoved" not in identity(tmp_path, PatientIdentityRemoved="YES")


def test_what_is_no_identity_is_not_read(tmp_path: Path) -> None:
    assert not {"SeriesDescription", "SOPInstanceUID", "PixelData"} & set(identity(tmp_path).dir())
